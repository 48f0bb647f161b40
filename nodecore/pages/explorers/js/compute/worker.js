// What takes longer than a frame, off the page's thread: accuracy over all points, the class of
// every start in the view, accuracy against the number of steps; trajectories with their crossings.
//
// Messages in: {model, x, y}, then {id, setting, view, curve}; a newer one ends what is under way
// after its accuracy. Messages out: {id, accuracy, ...}, {id, regions, size}, {id, nSteps, value}.
// Or trajectories: {model}, then {id, run: {tableau, nSteps, starts}}, which gives {id, run}, or
// {id, each: {tableau, tolerance, starts}}, which gives {id, each}.

import { solveAdaptive } from "./adaptive.js";
import { solveFixed } from "./fixed.js";
import { classify } from "./layers.js";
import { makeModel } from "./models.js";
import { solveEach, solveRun } from "./runs.js";
import { gridRow } from "./views.js";

const SLICE = 64; // points between two looks at the messages
const REGION_SIZES = [40, 120]; // points along each axis of the view, coarse and fine
const FINE_STEPS = 300; // beyond so many evaluations a start, the coarse picture has to do

let data = null;
let newest = 0;

// onmessage is asynchronous: what it throws would not reach the page by itself.
self.onunhandledrejection = ({ reason }) => reportError(reason);

self.onmessage = async ({ data: message }) => {
  if (message.model) {
    data = { ...message, ...makeModel(message.model) };
    return;
  }
  if (message.run) {
    sendRun(message.id, message.run);
    return;
  }
  if (message.each) {
    const { tableau, starts, tolerance } = message.each;
    const each = solveEach(data.field, tableau, starts, tolerance);
    self.postMessage({ id: message.id, each });
    return;
  }
  const { id, setting, view, curve } = message;
  newest = id;
  self.postMessage({ id, ...assess(setting) });
  if (view) await sendRegions(id, setting, view);
  for (const nSteps of curve) {
    const value = await accuracyInSlices(id, { ...setting, nSteps });
    if (value === null) return;
    self.postMessage({ id, nSteps, value });
  }
};

function sendRun(id, { tableau, nSteps, starts }) {
  const run = solveRun(data.field, tableau, starts, nSteps);
  const { points, times } = run.crossings;
  self.postMessage({ id, run }, { transfer: [run.path.buffer, points.buffer, times.buffer] });
}

/** The accuracy over all points, with the steps that an adaptive solve took; null if it fails. */
function assess(setting) {
  try {
    const { z, ...steps } = solveSetting(data.field, setting, data.x);
    const right = classify(data.head, z).filter((label, i) => label === data.y[i]).length;
    return { accuracy: right / data.y.length, ...steps };
  } catch (error) {
    return { accuracy: null, error: error.message };
  }
}

async function accuracyInSlices(id, setting) {
  let right = 0;
  for (let first = 0; first < data.y.length; first += SLICE) {
    if (await overtaken(id)) return null;
    right += countRight(setting, first, Math.min(first + SLICE, data.y.length));
  }
  return right / data.y.length;
}

function countRight(setting, first, last) {
  const classes = predict(setting, data.x.subarray(2 * first, 2 * last));
  return classes.reduce((n, label, i) => n + Number(label === data.y[first + i]), 0);
}

function predict(setting, points) {
  return classify(data.head, solveSetting(data.field, setting, points).z);
}

/** The class of each start on a grid over the view, row by row from the top. */
async function sendRegions(id, setting, view) {
  for (const size of REGION_SIZES) {
    if (size > REGION_SIZES[0] && setting.nSteps * setting.tableau.b.length > FINE_STEPS) return;
    const regions = new Uint8Array(size * size);
    for (let row = 0; row < size; row++) {
      if (await overtaken(id)) return;
      regions.set(predict(setting, gridRow(view, size, row)), row * size);
    }
    self.postMessage({ id, regions, size });
  }
}

let breath = 0;

/** Whether a newer message has come; lets one in every few milliseconds. */
async function overtaken(id) {
  if (performance.now() - breath > 12) {
    await new Promise((resolve) => setTimeout(resolve));
    breath = performance.now();
  }
  return id !== newest;
}

/**
 * The final states z of points under a setting: {tableau, nSteps}, or {tableau, tolerance}, which
 * adds how many steps were accepted and rejected, and nfe.
 */
function solveSetting(field, { tableau, nSteps, tolerance }, points) {
  if (!tolerance) return { z: solveFixed(field, tableau, points, nSteps, { path: false }) };
  const { z, attempts, nfe } = solveAdaptive(field, tableau, points, tolerance);
  const accepted = attempts.filter((attempt) => attempt.accepted).length;
  return { z, accepted, rejected: attempts.length - accepted, nfe };
}
