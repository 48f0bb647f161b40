// Lines over the iterations of a training, and samples of them for a legend.

/** Values over the iterations as steps, from index `first` to the last one at or before `until`. */
export function drawLine(plane, context, iterations, values, colour, until, first = 0) {
  context.strokeStyle = colour;
  context.lineWidth = 1.2;
  context.beginPath();
  for (let i = first; i < values.length && iterations[i] <= until; i++) {
    const [x, y] = plane.toPixel(iterations[i], values[i]);
    if (i > first) context.lineTo(x, plane.toPixel(0, values[i - 1])[1]);
    context.lineTo(x, y);
  }
  context.stroke();
}

/** A line through the whole plane, the moment that is shown. */
export function drawUpright(plane, context, colour, x) {
  context.strokeStyle = colour("accent");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(...plane.toPixel(x, plane.view[2]));
  context.lineTo(...plane.toPixel(x, plane.view[3]));
  context.stroke();
}

/** A short piece of a line, dashed or not. */
export function drawSample(context, colour, [x, y], dash = []) {
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x - 7, y);
  context.lineTo(x + 7, y);
  context.stroke();
}

/** A small square, `size` to each side of its middle. */
export function drawSquare(context, colour, [x, y], size) {
  context.fillStyle = colour;
  context.fillRect(x - size, y - size, 2 * size, 2 * size);
}
