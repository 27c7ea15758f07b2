"""An exercise whose answer is known: images of 4 x 4 of which a number from 1 to 4 says the column that is on.

There are exactly four, equally likely, so no model can cost less than ln 4 = 1.386294 nats an image (Gibbs), and one
that has learned them costs hardly more.
"""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from pretrain.models import ModelConfig
from pretrain.models.autoregressive import made
from pretrain.models.autoregressive.visible import VisibleModel
from tests.pretrain.models.autoregressive.exact import batch_of

LN_4 = math.log(4)
MODELS: dict[str, dict[str, Any]] = {
    "made": {"num_values": 16, "hidden_widths": (256,)},
    "nade": {"num_values": 16, "num_hidden": 64},
}


def bars() -> Tensor:
    """[4, 16]."""
    return torch.eye(4)[:, None, :].expand(4, 4, 4).flatten(1)


def trained(kind: str, steps: int = 600) -> Iterator[float]:
    """Nats an image at each step of Adam on all four, exact; the last after the last step."""
    torch.manual_seed(0)
    model: VisibleModel = TypeAdapter(ModelConfig).validate_python({"kind": kind, **MODELS[kind]}).build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(batch_of(bars()), None, player="model", step=step)
        yield loss.total.item() / 4
        (loss.total / 4).backward()
        optimizer.step()
    with torch.no_grad():
        yield -float(model.log_prob(batch_of(bars())).mean())


@pytest.mark.parametrize("kind", MODELS)
def test_four_bars_cost_their_entropy_and_never_less(kind: str) -> None:
    nats = list(trained(kind))
    assert nats[0] > 5
    assert min(nats) >= LN_4 - 1e-5
    assert nats[-1] <= LN_4 + 0.01


def test_what_sees_itself_falls_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "output_mask", lambda degree_O, degree_I: degree_O[:, None] >= degree_I)
    assert min(trained("made")) < 1
