// The traits against what an explorer holds: refused where they name what is not there.

/** The entry of a list with that value; an error names what is not there. */
export function demand(list, key, value, what) {
  const found = list.find((each) => each[key] === value);
  if (!found) throw new Error(`${what} ${value} is not among those it holds`);
  return found;
}

/**
 * One of the seeds of a training; an error names another.
 *
 * @param {Trained} trained
 */
export function demandSeed({ seeds }, seed) {
  if (!seeds.includes(seed)) throw new Error(`seed = ${seed} is not here`);
  return seed;
}

/** The seed where a training has it too, else the training's first. */
export function keepSeed(seeds, seed) {
  return seeds.includes(seed) ? seed : seeds[0];
}

/**
 * What was computed last, by name: once(name, key, compute) computes anew where the key is another.
 * holds(name, key) tells whether it would not.
 */
export function makeMemory() {
  const kept = {};
  const holds = (name, key) => kept[name]?.key === key;
  return {
    holds,
    once(name, key, compute) {
      if (!holds(name, key)) kept[name] = { key, value: compute() };
      return kept[name].value;
    },
  };
}
