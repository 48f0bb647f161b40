// What Python packed (packing.py) -> data sets and models to compute with; refused where damaged.

import { countNumbers, makeStack } from "./layers.js";

/**
 * {datasets, models, solvers} of an explorer's `data`. Throws an Error that names what is wrong.
 *
 * @returns {{ datasets: Dataset[], models: Trained[], solvers: Tableau[] }}
 */
export function readData(data) {
  if (!data?.datasets?.length || !data.models?.length) throw new Error("it holds no model");
  const datasets = data.datasets.map(readDataset);
  const models = data.models.map((model) => readModel(model, datasets));
  return { datasets, models, solvers: data.solvers ?? [] };
}

function readDataset({ name, title, classes, x, y, starts }) {
  const points = readNumbers(x, Float32Array, `the points of ${name}`);
  const labels = readNumbers(y, Uint8Array, `the labels of ${name}`, points.length / 2);
  if (labels.some((label) => label >= classes.length)) {
    throw new Error(`${name} has labels beyond its ${classes.length} classes`);
  }
  if (starts.some((i) => !(i in labels))) throw new Error(`${name} has starts that are no points`);
  const counts = classes.map((_, label) => labels.filter((each) => each === label).length);
  const chance = Math.max(...counts) / labels.length; // of always naming the largest class
  return { name, title, classes, x: Float64Array.from(points), y: labels, starts, chance };
}

function readModel(model, datasets) {
  const dataset = datasets.find(({ name }) => name === model.dataset);
  if (!dataset) {
    throw new Error(`a model belongs to the data set ${model.dataset}, which is not here`);
  }
  const each = countNumbers(model.field) + countNumbers(model.head);
  const what = `the weights of a model of ${model.dataset}`;
  const weights = readNumbers(model.weights, Float32Array, what, each * model.seeds.length);
  return { ...model, dataset, weights, each };
}

/** Base64 -> numbers, all finite, `n` of them where that is given. */
export function readNumbers(text, Type, what, n) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const size = bytes.length / Type.BYTES_PER_ELEMENT;
  if (!Number.isInteger(size) || (n !== undefined && size !== n)) {
    throw new Error(`${what} are ${size} numbers, not ${n ?? "a whole number of them"}`);
  }
  const numbers = new Type(bytes.buffer);
  if (!numbers.every(Number.isFinite)) throw new Error(`${what} hold NaN or infinity`);
  return numbers;
}

/**
 * One seed of a model as plain data.
 *
 * @param {Trained} model
 * @returns {Member}
 */
export function selectMember(model, seed) {
  const at = model.seeds.indexOf(seed) * model.each;
  const weights = model.weights.slice(at, at + model.each);
  return { field: model.field, head: model.head, weights };
}

/**
 * Both ready to evaluate.
 *
 * @param {Member} member
 * @returns {Net}
 */
export function makeModel({ field, head, weights }) {
  return {
    field: makeStack(field, weights),
    head: makeStack(head, weights, countNumbers(field)),
  };
}
