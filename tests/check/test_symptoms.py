"""The page from symptoms to tests: its lines run as they stand."""

import re

import pytest
import torch
from torch import nn
from torchdiffeq import odeint

from nodecore import check_flow
from nodecore.data.files import PROJECT
from nodecore.pages.build import pages

PAGE = (PROJECT / "book" / "symptoms.md").read_text()
SYMPTOMS = dict(re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def model():
    """A field of two classes of points that any good solver takes apart."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 2, generator=generator)
    head = nn.Linear(2, 2)
    head.weight.data, head.bias.data = torch.tensor([[-3.0, 0], [3.0, 0]]), torch.zeros(2)

    def field(t, z):
        return torch.stack([z[:, 0] - z[:, 1], z[:, 0]], 1)

    y = (odeint(field, x, torch.tensor([0.0, 1.0]))[-1][:, 0] > 0).long()
    return {"field": field, "head": head, "x": x, "y": y, "torch": torch, "odeint": odeint}


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_the_lines_of_each_symptom_run(symptom, model, capsys):
    names = model | {"check_flow": check_flow}  # imported by the first
    [block] = blocks(SYMPTOMS[symptom])
    exec(block, names)
    lines = [line for line in block.splitlines() if line and not line.startswith("from ")]
    assert 2 <= len(lines) <= 3
    if "report" in names:
        assert names["report"].verdict in ("flow", "not a flow", "cannot tell")
    assert ("print(" not in block) or capsys.readouterr().out


def test_the_page_is_in_the_book():
    assert "book/symptoms" in pages(PROJECT / "_toc.yml") and len(SYMPTOMS) >= 6
