"""Which weights stage 3 gathers, by hand; tests/pretrain/plan/test_traffic.py has real workers."""

from typing import Any

import pytest

from pretrain.engines import DeepSpeedEngineConfig
from pretrain.plan.gathering import Gathering, gathering

SIZES = {"table": 50, "blocks.0.a.weight": 100, "blocks.0.b.weight": 200, "blocks.1.a.weight": 100,
         "blocks.1.b.weight": 200, "norm.weight": 10}  # fmt: skip
CALLS = ("", "blocks.0", "blocks.0.a", "blocks.0.b", "blocks.1", "blocks.1.a", "blocks.1.b", "norm")


def engine(**fields: Any) -> DeepSpeedEngineConfig:
    return DeepSpeedEngineConfig(kind="deepspeed", zero_stage=3, whole_below=10, **fields)


def test_what_is_needed_soon_stays_whole() -> None:
    assert gathering(SIZES, CALLS, engine()) == Gathering(gathered=650, most_whole=650, small=10)


def test_what_is_not_is_gathered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bucket of 2 one weight is gathered ahead at each module, the modules without weights of their own among
    them: all are whole by the time that blocks.0.b ends, which is let go, as blocks.0.a was, and gathered again at the
    next two modules."""
    monkeypatch.setattr("pretrain.plan.gathering.REUSE_DISTANCE", 1)
    found = gathering(SIZES, CALLS, engine(bucket_size=2))
    assert found == Gathering(gathered=650 + 300, most_whole=650, small=10)


def test_nothing_is_gathered_ahead_beyond_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the blocks' own weights alone are whole, and the table that no module uses."""
    monkeypatch.setattr("pretrain.plan.gathering.REUSE_DISTANCE", 1)
    monkeypatch.setattr("pretrain.plan.gathering.MOST_WHOLE", 0)
    found = gathering(SIZES, CALLS, engine(bucket_size=2))
    assert found == Gathering(gathered=50 + 2 * 600, most_whole=250, small=10)
