// A canvas with a part of the plane, sharp on every screen.

import { h } from "../ui/dom.js";

const MARGIN = { left: 36, right: 20, top: 22, bottom: 26 };

/**
 * A canvas that keeps its aspect (height / width) as the page changes; it is drawn anew at once
 * after a change, since the canvas is empty then.
 *
 * begin(view) clears it and sets the part of the plane, [x0, x1, y0, y1]; it returns the context.
 *
 * @param {Shell} shell
 * @param {number} aspect
 * @param {Record<string, any>} attributes
 * @returns {Plane}
 */
export function makePlane(shell, aspect, attributes, margin = MARGIN) {
  const canvas = h("canvas", attributes);
  const element = h("div", { class: "plane", style: `aspect-ratio: ${1 / aspect}` }, canvas);
  /** @type {Plane} */
  const plane = {
    ...{ element, canvas, margin, view: [0, 1, 0, 1], width: 0, height: 0 },
    begin: (view) => clear(plane, view),
    inner: () => ({
      left: margin.left,
      top: margin.top,
      width: plane.width - margin.left - margin.right,
      height: plane.height - margin.top - margin.bottom,
    }),
    toPixel(x, y) {
      const { left, top, width, height } = plane.inner();
      const [x0, x1, y0, y1] = plane.view;
      return [left + ((x - x0) / (x1 - x0)) * width, top + ((y1 - y) / (y1 - y0)) * height];
    },
    toPoint(px, py) {
      const { left, top, width, height } = plane.inner();
      const [x0, x1, y0, y1] = plane.view;
      return [x0 + ((px - left) / width) * (x1 - x0), y1 - ((py - top) / height) * (y1 - y0)];
    },
  };
  keepSize(shell, plane);
  return plane;
}

/** As many pixels as the screen has where the canvas lies. */
function keepSize(shell, plane) {
  const observer = new ResizeObserver(([{ contentRect }]) => {
    const { width, height } = contentRect;
    if (width === plane.width && height === plane.height) return;
    const ratio = window.devicePixelRatio || 1;
    Object.assign(plane, { width, height });
    plane.canvas.width = Math.round(width * ratio);
    plane.canvas.height = Math.round(height * ratio);
    shell.redraw();
  });
  observer.observe(plane.element);
  shell.onEnd(() => observer.disconnect());
}

function clear(plane, view) {
  plane.view = view;
  const context = plane.canvas.getContext("2d");
  const ratio = plane.canvas.width / plane.width;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, plane.width, plane.height);
  return context;
}

/**
 * Draw only inside the axes.
 *
 * @param {Plane} plane
 * @param {CanvasRenderingContext2D} context
 * @param {() => void} draw
 */
export function clipped(plane, context, draw) {
  const { left, top, width, height } = plane.inner();
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  draw();
  context.restore();
}
