"""Criteria for flows: scores against torchdiffeq, discrimination against brute force."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torchdiffeq import odeint

from nodecore.check.scale import find_scale
from nodecore.evidence import measure
from nodecore.evidence.criteria import CRITERIA, discrimination, rank_share, scores
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.ode.fields import take_members
from nodecore.ode.steps import FixedSteps


def test_scores_of_stored_models_are_torchdiffeqs():
    evidence = find(Run("landscape", FixedSteps("euler", 32)))
    split = measure.tested_on(evidence.run).sample(60)
    table = scores(evidence, split).set_index("seed")
    seed = int(table.index[-1])
    field, head = (
        take_members(part, [evidence.run.seeds.index(seed)])
        for part in (evidence.field, evidence.head)
    )
    x, ts = split.x[None], torch.tensor([0.0, 1.0])

    def ends(method, steps):
        return odeint(field, x, ts, method=method, options={"step_size": 1 / steps})[-1]

    with torch.no_grad():
        own, twice, four = (ends("euler", k) for k in (32, 64, 128))
        other = ends("midpoint", 32)
        classes, changed = head(own).argmax(-1), head(other).argmax(-1)
    flips = (classes != changed).double().mean()
    assert table["classes changed under midpoint"][seed] == pytest.approx(flips.item(), abs=1e-9)
    halved = (classes != head(twice).argmax(-1)).double().mean().item()
    assert table["classes changed in half the step"][seed] == pytest.approx(halved, abs=1e-9)
    distance, (weight, bias) = (other - own)[0].double().norm(dim=-1), head.linear
    logits = (own[0] @ weight[0] + bias[0]).double()
    margins = [  # to the nearest other class, by loops
        min((row[c] - row[i]) / (weight[0, :, c] - weight[0, :, i]).double().norm()
            for i in range(len(row)) if i != c)
        for row, c in zip(logits, classes[0].tolist(), strict=True)
    ]  # fmt: skip
    beyond = (distance >= torch.stack(margins)).double().mean().item()
    assert table["end states moved beyond the margin"][seed] == pytest.approx(beyond, abs=1e-9)
    scale = find_scale(other[0], x[0])
    moved = np.median(scale.distance(own[0], other[0]))
    assert table["end states moved by midpoint"][seed] == pytest.approx(moved, rel=0.03)
    lost = (classes == split.y).double().mean() - (changed == split.y).double().mean()
    assert table["accuracy lost under midpoint"][seed] == pytest.approx(abs(lost.item()), abs=1e-9)
    p = ((own - twice).norm(dim=-1) / (twice - four).norm(dim=-1)).log2()
    near = ((p - 1).abs() <= 0.3).double().mean().item()
    assert table["observed order is not 1"][seed] == pytest.approx(1 - near, abs=0.02)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda z: field(0.0, z[None, None])[0, 0], z)
         for z in torch.cat([x[0, :32], own[0, :32]])]
    )  # fmt: skip
    slope = torch.linalg.matrix_norm(jacobians, ord=2).max().item() / 32
    assert table["h L along trajectories"][seed] == pytest.approx(slope, rel=0.02)
    assert slope <= table["h L bounded by spectral norms"][seed]


def test_seeds_that_did_not_train_have_no_score(monkeypatch):
    evidence = find(Run("landscape", FixedSteps("euler", 8)))
    split = measure.tested_on(evidence.run).sample(40)
    first, *others = evidence.run.seeds
    records = evidence.records.assign(trained=evidence.records["seed"] != first)
    monkeypatch.setattr(type(evidence), "records", property(lambda self: records))
    assert scores(evidence, split)["seed"].tolist() == others


def test_discrimination_is_the_share_of_pairs_within_a_step():
    generator = np.random.default_rng(3)
    table = pd.DataFrame(
        [(seed, k, bool(generator.random() < 0.5)) for seed in range(12) for k in (8, 16)],
        columns=["seed", "n_steps", "flow"],
    )
    table["score"] = generator.integers(0, 4, len(table)) + 100.0 * (table["n_steps"] == 8)
    found = discrimination(table, "score")
    pairs = [
        (bad.score > good.score) + (bad.score == good.score) / 2
        for bad in table[~table["flow"]].itertuples()
        for good in table[table["flow"]].itertuples()
        if bad.n_steps == good.n_steps
    ]
    assert found.value == pytest.approx(np.mean(pairs)) and found.low < found.value < found.high
    perfect = table.assign(score=(~table["flow"]).astype(float))
    assert tuple(discrimination(perfect, "score")) == (1.0, 1.0, 1.0)
    assert math.isnan(discrimination(table.assign(flow=True), "score").value)


def test_ranks_are_counted_within_rows_and_models_that_do_not_count_are_left_out():
    nan = math.nan
    score = [[3.0, 1.0, 2.0, nan], [5.0, 5.0, 9.0, 0.0], [1.0, 2.0, 3.0, 4.0]]
    flow = [[0, 1, 1, nan], [0, 1, nan, 1], [1, 1, 1, 1]]
    # first row: 3 > 1, 3 > 2; second: 5 = 5, 5 > 0; third: no pair
    assert rank_share(score, flow) == (3.5 / 4, 4)
    share, pairs = rank_share(score[2:], flow[2:])
    assert math.isnan(share) and pairs == 0


def test_every_criterion_says_what_it_costs():
    assert all(cost is None or cost >= 2 for _, cost in CRITERIA.values())
    assert [name for name, (labels, _) in CRITERIA.items() if labels] == [
        "accuracy lost under midpoint"
    ]
