// Crossings of trajectories in the plane: the rule of nodecore.analysis.crossings, where it is explained.
//
// A path holds n trajectories of nPoints states each, one after the other: (n, nPoints, 2).

// Rounding bound of the 2 x 2 determinant: Shewchuk (1997), Discrete Comput. Geom. 18, 305-363.
const ROUNDING = (3 + 16 * 2 ** -53) * 2 ** -53;
const UNDERFLOW = 1e-290;

/**
 * Where trajectories change sides: {points: [[x, y], ...], times: the later index of a state, with
 * its fraction, at which each is complete, between: how many are of two different trajectories,
 * pairs: how many pairs cross}. Every state must be finite.
 */
export function findCrossings(path, nPoints) {
  const found = { points: [], times: [], between: 0, pairs: 0 };
  if (nPoints < 2) return found;
  const n = path.length / nPoints / 2;
  const pairs = new Set();
  eachClosePair(path, nPoints, (a, b) => {
    if (!crosses(path, nPoints, a, b)) return;
    const [tauA, tauB] = fractions(path, a, b);
    const [first, second] = [Math.floor(a / nPoints), Math.floor(b / nPoints)];
    const [x, y] = [path[2 * a], path[2 * a + 1]];
    found.points.push([x + tauA * (path[2 * a + 2] - x), y + tauA * (path[2 * a + 3] - y)]);
    found.times.push(Math.max((a % nPoints) + tauA, (b % nPoints) + tauB));
    if (first !== second) {
      found.between += 1;
      pairs.add(Math.min(first, second) * n + Math.max(first, second));
    }
  });
  found.pairs = pairs.size;
  return found;
}

/** The trajectories of which every state is finite, as a path, and how many were left out. */
export function finiteTrajectories(path, nPoints) {
  const width = 2 * nPoints;
  const kept = [];
  for (let at = 0; at < path.length; at += width) {
    if (path.subarray(at, at + width).every(Number.isFinite)) kept.push(at);
  }
  const leftOut = path.length / width - kept.length;
  if (!leftOut) return { path, leftOut };
  const finite = new Float64Array(kept.length * width);
  kept.forEach((at, i) => finite.set(path.subarray(at, at + width), i * width));
  return { path: finite, leftOut };
}

// --- the search: pairs of segments whose bounding boxes overlap ---------------------------------

/**
 * Call visit(a, b), a < b, for pairs of segments, named by the index of the state where they start.
 * A sweep from left to right: each segment meets those that begin before it ends.
 */
function eachClosePair(path, nPoints, visit) {
  const order = fromLeftToRight(path, nPoints);
  const { left, right, low, high } = makeBoxes(path, order);
  for (let i = 0; i < order.length; i++) {
    const [end, bottom, top] = [right[i], low[i], high[i]];
    for (let j = i + 1; j < order.length && left[j] <= end; j++) {
      // One branch that is hard to foresee is faster than two.
      if (Number(low[j] > top) | Number(high[j] < bottom)) continue;
      visit(Math.min(order[i], order[j]), Math.max(order[i], order[j]));
    }
  }
}

/** The segments, ordered by their left ends, rounded to float32. */
function fromLeftToRight(path, nPoints) {
  const n = path.length / 2 - path.length / 2 / nPoints;
  const pairs = new BigUint64Array(n); // sorted as they are: a key above the index of a segment
  const words = new Uint32Array(pairs.buffer);
  const end = new Float32Array(1);
  const bits = new Int32Array(end.buffer);
  for (let i = 0, s = 0; i < n; i++, s++) {
    if ((s + 1) % nPoints === 0) s++; // from the last state of a trajectory leads none
    end[0] = Math.min(path[2 * s], path[2 * s + 2]);
    words[2 * i] = s;
    words[2 * i + 1] = bits[0] ^ ((bits[0] >> 31) | 0x80000000); // in the order of the numbers
  }
  pairs.sort();
  return Uint32Array.from({ length: n }, (_, i) => words[2 * i]);
}

/** Bounding boxes of segments. Rounding to float32 keeps an order, so none that overlap part. */
function makeBoxes(path, order) {
  const [left, right, low, high] = [0, 1, 2, 3].map(() => new Float32Array(order.length));
  order.forEach((s, i) => {
    left[i] = Math.min(path[2 * s], path[2 * s + 2]);
    right[i] = Math.max(path[2 * s], path[2 * s + 2]);
    low[i] = Math.min(path[2 * s + 1], path[2 * s + 3]);
    high[i] = Math.max(path[2 * s + 1], path[2 * s + 3]);
  });
  return { left, right, low, high };
}

// --- the test: do two segments change sides? ----------------------------------------------------

function crosses(path, nPoints, a, b) {
  const a0 = side(path, b, b + 1, a);
  const a1 = side(path, b, b + 1, a + 1);
  if (a0 * a1 > 0) return false;
  const b0 = side(path, a, a + 1, b);
  const b1 = side(path, a, a + 1, b + 1);
  const aApart = a0 * a1 < 0;
  const bApart = b0 * b1 < 0;
  if (aApart && bApart) return true;
  if (a0 === 0 && bApart && passesCorner(path, nPoints, a, b, a1)) return true;
  return b0 === 0 && aApart && passesCorner(path, nPoints, b, a, b1);
}

/** Where `segment` starts on the segment `line`: did it come from the other side? */
function passesCorner(path, nPoints, segment, line, sideAfter) {
  return segment % nPoints > 0 && side(path, line, line + 1, segment - 1) * sideAfter < 0;
}

/** Exact side of state r from the line p -> q: 1 left, -1 right, 0 on it. */
function side(path, p, q, r) {
  const px = path[2 * p];
  const py = path[2 * p + 1];
  const qx = path[2 * q];
  const qy = path[2 * q + 1];
  const rx = path[2 * r];
  const ry = path[2 * r + 1];
  const left = (qx - px) * (ry - py);
  const right = (qy - py) * (rx - px);
  const area = left - right;
  const certain = ROUNDING * (Math.abs(left) + Math.abs(right)) + UNDERFLOW;
  if (area > certain) return 1;
  if (area < -certain) return -1;
  if ((rx === px && ry === py) || (rx === qx && ry === qy)) return 0;
  return exactSide(...[px, py, qx, qy, rx, ry].map(asInteger));
}

function exactSide(px, py, qx, qy, rx, ry) {
  const left = (qx - px) * (ry - py);
  const right = (qy - py) * (rx - px);
  return left > right ? 1 : left < right ? -1 : 0;
}

/** A double times 2^1074, the integer that it then is. */
function asInteger(x) {
  const bits = new BigInt64Array(new Float64Array([x]).buffer)[0];
  const exponent = (bits >> 52n) & 0x7ffn;
  const mantissa = (bits & 0xfffffffffffffn) | (exponent ? 0x10000000000000n : 0n);
  const size = mantissa << (exponent ? exponent - 1n : 0n);
  return bits < 0n ? -size : size;
}

/** Where the lines of two segments meet, as fractions of each, rounded. */
function fractions(path, a, b) {
  let ux = path[2 * a + 2] - path[2 * a];
  let uy = path[2 * a + 3] - path[2 * a + 1];
  let vx = path[2 * b + 2] - path[2 * b];
  let vy = path[2 * b + 3] - path[2 * b + 1];
  const size = Math.max(Math.abs(ux), Math.abs(uy), Math.abs(vx), Math.abs(vy));
  ux /= size; // against under- and overflow
  uy /= size;
  vx /= size;
  vy /= size;
  const wx = (path[2 * b] - path[2 * a]) / size;
  const wy = (path[2 * b + 1] - path[2 * a + 1]) / size;
  const area = ux * vy - uy * vx;
  const clip = (tau) => Math.min(1, Math.max(0, tau));
  return [clip((wx * vy - wy * vx) / area), clip((wx * uy - wy * ux) / area)];
}
