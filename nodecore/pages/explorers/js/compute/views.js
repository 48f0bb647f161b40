// Which part of the plane to show.

/** Points in the middle of size x size cells over a view, row by row from the top. */
export function gridOver(view, size) {
  const points = new Float64Array(2 * size * size);
  for (let row = 0; row < size; row++) {
    points.set(gridRow(view, size, row), 2 * size * row);
  }
  return points;
}

export function gridRow([x0, x1, y0, y1], size, row) {
  const points = new Float64Array(2 * size);
  for (let column = 0; column < size; column++) {
    points[2 * column] = x0 + ((column + 0.5) / size) * (x1 - x0);
    points[2 * column + 1] = y1 - ((row + 0.5) / size) * (y1 - y0);
  }
  return points;
}

/**
 * The part of the plane that holds all starts and the central 90 % of the states on each axis, and
 * around them a margin, as a share of its size.
 *
 * @returns {View}
 */
export function viewOf(path, nPoints, share = 0.05) {
  return [...axisRange(path, nPoints, share, 0), ...axisRange(path, nPoints, share, 1)];
}

/**
 * The view along one axis.
 *
 * @returns {[number, number]}
 */
function axisRange(path, nPoints, share, d) {
  const values = path.filter((_, i) => i % 2 === d).sort();
  const starts = path.filter((_, i) => i % (2 * nPoints) === d);
  const low = Math.min(values[Math.floor(0.05 * (values.length - 1))], ...starts);
  const high = Math.max(values[Math.ceil(0.95 * (values.length - 1))], ...starts);
  const margin = share * (high - low) || 1;
  return [low - margin, high + margin];
}
