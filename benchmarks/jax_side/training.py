"""A whole training in JAX: all iterations in one jitted scan, members vmapped, optax's Adam."""

import time

import jax
import optax
from solves import scan_solve


def member_loss(solve, parameters, x, y):
    """Mean cross entropy of a member; the classifier's weight and bias come last."""
    *field, weight, bias = parameters
    logits = solve(field, x).reshape(len(x), -1) @ weight + bias
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def train(case, learning_rate, parameters, x, y, order):
    """Trained parameters, seconds to compile, seconds to train.

    x (samples, ...), y (samples,): the training split; order (iterations, members, batch): the
    samples of each batch, drawn beforehand.
    """
    solve, optimiser = scan_solve(case), optax.adam(learning_rate)

    def total_loss(parameters, x, y):
        losses = jax.vmap(lambda *member: member_loss(solve, *member))(parameters, x, y)
        return losses.sum()

    def run(parameters, x, y, order):
        def iterate(state, index):
            parameters, moments = state
            gradients = jax.grad(total_loss)(parameters, x[index], y[index])
            updates, moments = optimiser.update(gradients, moments)
            return (optax.apply_updates(parameters, updates), moments), None

        state = parameters, optimiser.init(parameters)
        return jax.lax.scan(iterate, state, order)[0][0]

    start = time.process_time()
    compiled = jax.jit(run).lower(parameters, x, y, order).compile()
    between = time.process_time()
    trained = jax.block_until_ready(compiled(parameters, x, y, order))
    end = time.process_time()
    return trained, between - start, end - between
