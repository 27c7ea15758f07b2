"""Units by hand-sized cases."""

import math

import pytest

from pretrain.units import bits_per_byte, bits_per_dimension, perplexity


def test_a_fair_coin_per_byte_is_one_bit() -> None:
    assert bits_per_byte(100 * math.log(2), 100) == pytest.approx(1.0)
    assert bits_per_dimension(64 * math.log(256), 64) == pytest.approx(8.0)


def test_perplexity_of_a_uniform_choice_is_its_size() -> None:
    assert perplexity(50 * math.log(10_000), 50) == pytest.approx(10_000)
    assert perplexity(1e6, 1) == math.inf
