// Crossings of trajectories in the plane: the rule of nodecore.crossings, where it is explained.
//
// A path holds n trajectories of nPoints states each, one after the other: (n, nPoints, 2).

const BLOCK = 16; // consecutive segments that share a bounding box
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

/** Call visit(a, b) for pairs of segments, named by the index of the state where they start. */
function eachClosePair(path, nPoints, visit) {
  const blocks = makeBlocks(path, nPoints);
  blocks.sort((p, q) => p.left - q.left);
  for (let i = 0; i < blocks.length; i++) {
    const p = blocks[i];
    visitWithin(path, p, visit);
    for (let j = i + 1; j < blocks.length && blocks[j].left <= p.right; j++) {
      const q = blocks[j];
      if (p.low <= q.high && q.low <= p.high) visitBetween(path, p, q, visit);
    }
  }
}

/** Runs of segments from state `first` to state `last` of one trajectory, with their boxes. */
function makeBlocks(path, nPoints) {
  const blocks = [];
  for (let start = 0; start < path.length / 2; start += nPoints) {
    const end = start + nPoints - 1;
    for (let first = start; first < end; first += BLOCK) {
      const last = Math.min(first + BLOCK, end);
      const box = { first, last, left: Infinity, right: -Infinity, low: Infinity, high: -Infinity };
      for (let s = first; s <= last; s++) {
        box.left = Math.min(box.left, path[2 * s]);
        box.right = Math.max(box.right, path[2 * s]);
        box.low = Math.min(box.low, path[2 * s + 1]);
        box.high = Math.max(box.high, path[2 * s + 1]);
      }
      blocks.push(box);
    }
  }
  return blocks;
}

function visitWithin(path, { first, last }, visit) {
  for (let a = first; a < last; a++) {
    for (let b = a + 1; b < last; b++) if (overlap(path, a, b)) visit(a, b);
  }
}

function visitBetween(path, p, q, visit) {
  for (let a = p.first; a < p.last; a++) {
    if (!meets(path, a, q)) continue;
    for (let b = q.first; b < q.last; b++) {
      if (overlap(path, a, b)) visit(Math.min(a, b), Math.max(a, b));
    }
  }
}

function meets(path, a, box) {
  const [x0, y0, x1, y1] = [path[2 * a], path[2 * a + 1], path[2 * a + 2], path[2 * a + 3]];
  return !(
    (x0 < box.left && x1 < box.left) ||
    (x0 > box.right && x1 > box.right) ||
    (y0 < box.low && y1 < box.low) ||
    (y0 > box.high && y1 > box.high)
  );
}

function overlap(path, a, b) {
  for (let d = 0; d < 2; d++) {
    const a0 = path[2 * a + d];
    const a1 = path[2 * a + 2 + d];
    const b0 = path[2 * b + d];
    const b1 = path[2 * b + 2 + d];
    if (a0 < b0 && a0 < b1 && a1 < b0 && a1 < b1) return false;
    if (a0 > b0 && a0 > b1 && a1 > b0 && a1 > b1) return false;
  }
  return true;
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
  if ((rx === px && ry === py) || (rx === qx && ry === qy)) return 0;
  const left = (qx - px) * (ry - py);
  const right = (qy - py) * (rx - px);
  const area = left - right;
  const certain = ROUNDING * (Math.abs(left) + Math.abs(right)) + UNDERFLOW;
  if (Math.abs(area) > certain) return Math.sign(area);
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
  const along = (s, d) => path[2 * s + 2 + d] - path[2 * s + d];
  const parts = [along(a, 0), along(a, 1), along(b, 0), along(b, 1)];
  const scale = Math.max(...parts.map(Math.abs)); // against under- and overflow
  const [ux, uy, vx, vy] = parts.map((part) => part / scale);
  const wx = (path[2 * b] - path[2 * a]) / scale;
  const wy = (path[2 * b + 1] - path[2 * a + 1]) / scale;
  const area = ux * vy - uy * vx;
  const clip = (tau) => Math.min(1, Math.max(0, tau));
  return [clip((wx * vy - wy * vx) / area), clip((wx * uy - wy * ux) / area)];
}
