"""Random numbers: one generator for each purpose, never torch's global one."""

import numpy as np
import torch

from nodecore.ode.checks import check_choice, check_count

STREAMS = ("data", "initialisation", "batches", "samples", "draws", "start")


def make_generator(seed: int, stream: str) -> torch.Generator:
    """Return a CPU generator for one seed and one of STREAMS; a seed's streams are independent.

    Raises:
        ValueError: The stream is unknown or the seed negative.
    """
    check_choice("stream", stream, STREAMS)
    check_count("seed", seed, least=0)
    state = np.random.SeedSequence([STREAMS.index(stream), seed]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
