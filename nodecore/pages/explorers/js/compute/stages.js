// One step of an explicit Runge-Kutta method, from its tableau: coefficients only, as they come
// from Python. The field is autonomous, a stack of layers (layers.js).

/**
 * The stages of a step for arrays of `size` numbers: compute(z, h, hasFirst) fills `stages`,
 * k_i = f(z + h sum_j a_ij k_j); add(z, h, weights, out) sets out = z + h sum_i w_i k_i.
 */
export function makeStages(f, tableau, n, size) {
  const stages = Array.from({ length: n }, () => new Float64Array(size));
  const rows = tableau.a.slice(0, n).map(nonzero);
  const inner = new Float64Array(size);

  function compute(z, h, hasFirst = false) {
    if (!hasFirst) f(z, stages[0]);
    for (let i = 1; i < n; i++) {
      addStages(z, h, rows[i], inner);
      f(inner, stages[i]);
    }
  }
  function addStages(z, h, terms, out) {
    for (let e = 0; e < size; e++) {
      let sum = 0;
      for (let i = 0; i < terms.length; i++) sum += terms[i].weight * stages[terms[i].index][e];
      out[e] = z[e] + h * sum;
    }
  }
  return { stages, compute, add: addStages };
}

export function nonzero(weights) {
  return weights.map((weight, index) => ({ weight, index })).filter((term) => term.weight !== 0);
}
