"""Twenty steps of each tiny recipe give the recorded losses: a change of mathematics, data or noise shows here."""

import pytest
import torch

from tests.golden.curves import RECIPES, curve, recorded

TOLERANCE = 1e-4
"""Relative: other processors round other sums; a change of one per cent in a learning rate shows at 1e-3."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_are_the_recorded_ones(recipe: str) -> None:
    now, before = curve(recipe), recorded(recipe)
    assert now.keys() == before.keys()
    for player, losses in now.items():
        assert losses == pytest.approx(before[player], rel=TOLERANCE, abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the local engine of a tiny recipe is on the CPU")
def test_the_fused_kernels_give_the_losses_of_the_reference() -> None:
    """In Triton's interpreter; both drop attention weights by noise of their own, so none are dropped here."""
    fused, reference = (
        curve("tiny_transformer_xl", "model.attention_dropout=0", f"kernels.default={impl}")["model"]
        for impl in ("triton", "reference")
    )
    assert len(fused) == 20
    assert fused == pytest.approx(reference, rel=TOLERANCE, abs=1e-4)
    assert fused != reference, "two implementations round differently"
    golden = recorded("tiny_transformer_xl")["model"]
    assert fused == pytest.approx(golden, rel=0.01), "its noise apart, it is the recorded run"
