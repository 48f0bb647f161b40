// The shapes that pass between modules, for the type check; nothing of this reaches the browser.

declare module "*.css" {
  const text: string;
  export default text;
}

/** What anywidget gives, or page.js in its place. */
interface TraitModel {
  get(name: string): any;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, listener: () => void): void;
  off(event: string, listener: () => void): void;
}

interface Ask {
  (): void;
  cancel(): void;
}

/** What a started explorer works with; made in ui/shell.js. */
interface Shell {
  root: HTMLElement;
  body: HTMLElement;
  summary: HTMLElement;
  model: TraitModel;
  put(changes: Record<string, unknown>): void;
  ask: Ask;
  redraw(): void;
  announce(text: string): void;
  fail(message: string): void;
  onEnd(end: () => void): void;
}

type Pixel = [number, number];
type View = [number, number, number, number]; // x0, x1, y0, y1
type Colour = (name: string) => string;

interface Margin {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

/** A canvas that shows a part of the plane; made in draw/plane.js. */
interface Plane {
  element: HTMLElement;
  canvas: HTMLCanvasElement;
  view: View;
  width: number;
  height: number;
  margin: Margin;
  begin(view: View): CanvasRenderingContext2D;
  inner(): { left: number; top: number; width: number; height: number };
  toPixel(x: number, y: number): Pixel;
  toPoint(px: number, py: number): Pixel;
}

/** A place along a slider and its chart. */
interface Scale {
  toPosition(value: number): number;
  toValue(position: number): number;
  nudge(value: number, direction: number, far: boolean): number;
  ticks?: [number, string][];
}

/** A method's coefficients, as packing.py writes them. */
interface Tableau {
  name: string;
  title: string;
  a: number[][];
  b: number[];
  order: number;
  bError: number[] | null;
  embeddedOrder: number | null;
  firstSameAsLast: boolean;
}

interface Setting {
  tableau: Tableau;
  nSteps?: number;
  tolerance?: number;
}

interface LayerSpec {
  inputs: number;
  outputs: number;
  window: number;
  activation: "relu" | "tanh" | null;
}

interface StackSpec {
  positions: number;
  layers: LayerSpec[];
}

/** Layers ready to evaluate, a tile of points at a time; made in compute/layers.js. */
interface Stack {
  inputs: number;
  outputs: number;
  evaluate(x: Float64Array, xAt: number, y: Float64Array, yAt: number): void;
}

interface Net {
  field: Stack;
  head: Stack;
}

/** One seed of a model as plain data, as a worker takes it. */
interface Member {
  field: StackSpec;
  head: StackSpec;
  weights: Float32Array;
}

interface Dataset {
  name: string;
  title: string;
  classes: string[];
  x: Float64Array;
  y: Uint8Array;
  starts: number[];
  chance: number;
}

/** All seeds of a training. Explorers add what they need: a study, a title, the tests. */
interface Trained {
  dataset: Dataset;
  nSteps: number | null;
  solver: string;
  title: string;
  seeds: number[];
  trained: boolean[];
  field: StackSpec;
  head: StackSpec;
  weights: Float32Array;
  each: number;
  [more: string]: any;
}

/** points: (n, 2); times: the state, with a fraction, at which each is complete. */
interface Crossings {
  points: Float64Array;
  times: Float64Array;
  between: number;
  pairs: number;
}

/** Trajectories under a solver, (n, nPoints, 2), with their crossings; made in compute/runs.js. */
interface Run {
  path: Float64Array;
  nPoints: number;
  crossings: Crossings;
  leftOut: number;
  nTrajectories: number;
}
