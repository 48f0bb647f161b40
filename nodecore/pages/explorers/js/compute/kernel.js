// A dense layer for a tile of four points in WebAssembly, two float64 at a time.
//
// The module is written here instruction by instruction, so that no compiler is needed. It exports
//
//   dense(x, weight, bias, y, rows, quads, floor)      y = max(x @ weight + bias, floor)
//
// on byte addresses in its memory: x (rows, 4), weight (quads, rows, 4), bias (quads, 4) and
// y (quads, 4, 4), four outputs to a quad. floor is 0 for a ReLU and -Infinity for none; a NaN
// stays one.

const [I32, F64, V128] = [0x7f, 0x7c, 0x7b];
const [X, WEIGHT, BIAS, Y, ROWS, QUADS, FLOOR] = [0, 1, 2, 3, 4, 5, 6]; // parameters
const [AT, LEFT, LOW, HIGH, FACTOR, SUM] = [7, 8, 9, 10, 11, 12]; // locals; SUM .. SUM + 7

const get = (local) => [0x20, local];
const set = (local) => [0x21, local];
const add32 = (local, n) => [...get(local), 0x41, ...signed(n), 0x6a, ...set(local)];
const load = (address, offset) => [...get(address), 0xfd, 0x00, 4, ...unsigned(offset)];
const loadTwice = (address, offset) => [...get(address), 0xfd, 0x0a, 3, ...unsigned(offset)];
const store = (offset) => [0xfd, 0x0b, 4, ...unsigned(offset)];
const [ADD, MULTIPLY, MAXIMUM] = [
  [0xfd, 0xf0, 1],
  [0xfd, 0xf2, 1],
  [0xfd, 0xf5, 1],
];
const SPLAT = [0xfd, 0x14];
// loop { body; counter -= 1 } while counter
const repeat = (counter, body) => [
  ...[0x03, 0x40, ...body],
  ...[...add32(counter, -1), ...get(counter), 0x0d, 0, 0x0b],
];

const PAGE = 65536; // bytes

/** {buffer, kernel}: `bytes` of memory and dense() on it; null where the browser has no vectors. */
export function makeKernel(bytes) {
  if (COMPILED === null) return null;
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE) });
  const { exports } = new WebAssembly.Instance(COMPILED, { m: { m: memory } });
  return { buffer: memory.buffer, kernel: exports.d };
}

const COMPILED = compile();

function compile() {
  try {
    return new WebAssembly.Module(new Uint8Array(assemble()));
  } catch {
    return null;
  }
}

function dense() {
  const quad = [0, 1, 2, 3];
  const columns = quad.flatMap((j) => [
    ...[...loadTwice(WEIGHT, 8 * j), ...set(FACTOR)],
    ...[...get(SUM + 2 * j), ...get(FACTOR), ...get(LOW), ...MULTIPLY, ...ADD, ...set(SUM + 2 * j)],
    ...[...get(SUM + 2 * j + 1), ...get(FACTOR), ...get(HIGH), ...MULTIPLY, ...ADD],
    ...set(SUM + 2 * j + 1),
  ]);
  const row = [
    ...[...load(AT, 0), ...set(LOW), ...load(AT, 16), ...set(HIGH)],
    ...[...columns, ...add32(AT, 32), ...add32(WEIGHT, 32)],
  ];
  const result = (k) => [
    ...[...get(Y), ...get(SUM + k), ...get(FLOOR), ...SPLAT, ...MAXIMUM, ...store(16 * k)],
  ];
  return repeat(QUADS, [
    ...quad.flatMap((j) => [
      ...[...loadTwice(BIAS, 8 * j), ...set(SUM + 2 * j)],
      ...[...get(SUM + 2 * j), ...set(SUM + 2 * j + 1)],
    ]),
    ...[...get(X), ...set(AT), ...get(ROWS), ...set(LEFT)],
    ...repeat(LEFT, row),
    ...[0, 1, 2, 3, 4, 5, 6, 7].flatMap(result),
    ...[...add32(BIAS, 32), ...add32(Y, 128)],
  ]);
}

function assemble() {
  const parameters = [I32, I32, I32, I32, I32, I32, F64];
  const locals = [2, 2, I32, 11, V128];
  const body = [...locals, ...dense(), 0x0b];
  const code = [1, ...unsigned(body.length), ...body];
  return [
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, parameters.length, ...parameters, 0]),
    ...section(2, [1, ...name("m"), ...name("m"), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name("d"), 0, 0]),
    ...section(10, code),
  ];
}

function section(id, content) {
  return [id, ...unsigned(content.length), ...content];
}

function name(letter) {
  return [1, letter.charCodeAt(0)];
}

/** LEB128 of a whole number >= 0. */
function unsigned(n) {
  return n < 128 ? [n] : [(n & 127) | 128, ...unsigned(n >> 7)];
}

/** LEB128 of a whole number with a sign. */
function signed(n) {
  return n >= -64 && n < 64 ? [n & 127] : [(n & 127) | 128, ...signed(n >> 7)];
}
