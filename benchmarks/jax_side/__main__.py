"""The JAX side of the benchmarks: a process of its own, with JAX and without torch.

Reads a JSON object a line and answers each with one. {"prepare": peer, "case": ..., "arrays": path}
compiles; {"calls": n, "peer": peer} times; {"result": path, "peer": peer} writes what it computes;
{"train": case, ...} trains. Arrays go through .npz files.
"""

import json
import os
import sys
import time
from importlib.metadata import version

# One core: XLA's thread pools take their sizes from the cores that the process may use.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np
from solves import count_steps, diffrax_solve, scan_solve
from training import train

compiled = {}  # by peer: a call of the case prepared last, and what it returns


def load(path):
    with np.load(path) as stored:
        return [jnp.asarray(stored[name]) for name in stored.files]


def side_by_side(solve):
    """z(T) of all members and the gradient of their parameters, vmapped over members."""

    def call(parameters, z0, cotangent):
        z, pull_back = jax.vjp(lambda p: jax.vmap(solve)(p, z0), parameters)
        return z, pull_back(cotangent)[0]

    return call


def one_by_one(solve):
    """The same, a member after the other in one compiled loop."""

    def one(member):
        parameters, z0, cotangent = member
        z, pull_back = jax.vjp(lambda p: solve(p, z0), parameters)
        return z, pull_back(cotangent)[0]

    return lambda *members: jax.lax.map(one, members)


def time_calls(call, calls):
    start = time.process_time()
    for _ in range(calls):
        jax.block_until_ready(call())
    return (time.process_time() - start) / calls * 1e3


def compile_faster(solve, arrays):
    """Of two ways to batch, the faster: a call without arguments, and its seconds to compile."""
    found = []
    # One member needs no batching; both would be the same.
    for batch in (side_by_side, one_by_one) if len(arrays[1]) > 1 else (one_by_one,):
        start = time.process_time()
        executable = jax.jit(batch(solve)).lower(*arrays).compile()
        seconds = time.process_time() - start

        def call(executable=executable):
            return executable(*arrays)

        call()
        found.append((min(time_calls(call, 1) for _ in range(3)), seconds, call))
    _, seconds, call = min(found, key=lambda way: way[0])
    return call, seconds


def prepare(request):
    case = request["case"]
    *parameters, z0, cotangent = load(request["arrays"])
    answer, n_steps = {}, case["n_steps"]
    if request["prepare"] == "scan":
        solve = scan_solve(case)
    else:
        if case["rtol"] is not None:
            n_steps, answer["nfe"] = count_steps(case, parameters, z0)
        solve = diffrax_solve(case, n_steps)
    call, answer["compile_s"] = compile_faster(solve, (parameters, z0, cotangent))
    compiled[request["prepare"]] = call
    return answer


def write_result(request):
    z, gradients = compiled[request["peer"]]()
    np.savez(request["result"], z, *gradients)
    return {}


def run_training(request):
    x, y, order, *parameters = load(request["arrays"])
    trained, compile_s, train_s = train(
        request["train"], request["learning_rate"], parameters, x, y, order
    )
    np.savez(request["arrays"], *trained)
    return {"compile_s": compile_s, "train_s": train_s}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        if "calls" in request:
            answer = {"ms": time_calls(compiled[request["peer"]], request["calls"])}
        elif "prepare" in request:
            answer = prepare(request)
        elif "result" in request:
            answer = write_result(request)
        elif "versions" in request:
            answer = {name: version(name) for name in ("jax", "diffrax", "optax")}
        else:
            answer = run_training(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
