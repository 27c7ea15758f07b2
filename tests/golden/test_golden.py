"""Twenty steps of each tiny recipe give the recorded losses: a change of mathematics, data or noise shows here."""

import pytest

from tests.golden.curves import RECIPES, curve, recorded

TOLERANCE = 1e-4
"""Relative: other processors round other sums; a change of one per cent in a learning rate shows at 1e-3."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_are_the_recorded_ones(recipe: str) -> None:
    now, before = curve(recipe), recorded(recipe)
    assert now.keys() == before.keys()
    for player, losses in now.items():
        assert losses == pytest.approx(before[player], rel=TOLERANCE, abs=1e-4)
