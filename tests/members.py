"""Generators of the members of an ensemble."""

from nodecore.data.seeding import make_generator


def generators(members=2):
    return [make_generator(seed, "initialisation") for seed in range(members)]
