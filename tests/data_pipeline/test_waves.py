"""Waves: the entropy by enumeration and by their own probabilities; draws that have those."""

import itertools
import math

import numpy as np
import pytest
from pydantic import ValidationError

from data_pipeline.waves import WavesConfig

SMALL = WavesConfig(kind="waves", levels=3, length=4, periods=(4.0, 9.0), noise=0.3, num_waves=20_000)
CONFIG = WavesConfig(kind="waves")


def test_probabilities_sum_to_one_and_have_the_entropy() -> None:
    every = np.array(list(itertools.product([0.0, 0.5, 1.0], repeat=4)))
    entropies = []
    for voice in range(2):
        log_prob_N = SMALL.log_prob(every, voice)
        assert float(np.exp(log_prob_N).sum()) == pytest.approx(1, abs=1e-12)
        entropies.append(-float((np.exp(log_prob_N) * log_prob_N).sum()))
    assert SMALL.entropy() == pytest.approx(np.mean(entropies), abs=1e-12)
    assert entropies[0] != pytest.approx(entropies[1], abs=1e-3)


@pytest.mark.parametrize("config", [SMALL, CONFIG], ids=["small", "default"])
def test_draws_cost_the_entropy(config: WavesConfig) -> None:
    vectors = config.vectors("train")
    nats = np.concatenate(
        [-config.log_prob(vectors.values[vectors.labels == voice].astype(np.float64), voice) for voice in range(2)]
    )
    error = 4 * nats.std() / math.sqrt(len(nats))
    assert nats.mean() == pytest.approx(config.entropy(), abs=error)
    swapped = -config.log_prob(vectors.values[vectors.labels == 0].astype(np.float64), 1)
    assert swapped.mean() > config.entropy() + error, "the other voice's waves are another's"


def documented(config: WavesConfig, voice: int, before: float, earlier: float) -> list[float]:
    """The chance of each level by the module's docstring: a logistic number around the mean, put into the nearest."""
    mean = 2 * config.damping * math.cos(2 * math.pi / config.periods[voice]) * before - config.damping**2 * earlier
    step = 2 / (config.levels - 1)
    below = [1 / (1 + math.exp((mean - (-1 + (level + 0.5) * step)) / config.noise)) for level in range(config.levels)]
    below[-1] = 1.0
    return [below[0], *(after - before_it for before_it, after in itertools.pairwise(below))]


def as_documented(config: WavesConfig) -> bool:
    """Whether levels after each two samples come as often as they should, by chi-square; at the beginning, too."""
    vectors, samples = config.vectors("train"), np.linspace(-1, 1, config.levels)
    statistic, freedom = 0.0, 0
    for voice in range(len(config.periods)):
        places_NT = np.rint(vectors.values[vectors.labels == voice] * (config.levels - 1)).astype(int)
        x_NT = np.pad(samples[places_NT], ((0, 0), (2, 0)))
        pairs = np.stack([x_NT[:, 1:-1].ravel(), x_NT[:, :-2].ravel()], 1)
        contexts, which = np.unique(pairs, axis=0, return_inverse=True)
        for number, (before, earlier) in enumerate(contexts):
            counts_L = np.bincount(places_NT.ravel()[which.ravel() == number], minlength=config.levels)
            expected_L = counts_L.sum() * np.array(documented(config, voice, before, earlier))
            often_L = expected_L >= 5
            statistic += ((counts_L - expected_L)[often_L] ** 2 / expected_L[often_L]).sum()
            freedom += max(int(often_L.sum()) - 1, 0)
    return bool(statistic < freedom + 5 * math.sqrt(2 * freedom))


@pytest.mark.parametrize("config", [SMALL, CONFIG], ids=["small", "default"])
def test_draws_are_the_documented_process(config: WavesConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entropy and draws share `chances`, so that they would agree on another process, too."""
    assert as_documented(config)
    right = WavesConfig.chances
    for factor, other in ((config.damping, 0), (1, 0.1)):  # r in place of r^2 ; a mean that is moved

        def wrong(
            self: WavesConfig, voice: int, before: np.ndarray, earlier: np.ndarray, factor=factor, other=other
        ) -> np.ndarray:
            return right(self, voice, before + other, earlier / factor)

        monkeypatch.setattr(WavesConfig, "chances", wrong)
        assert not as_documented(config)


def test_a_period_is_positive() -> None:
    for period in (0.0, -3.0, math.nan):
        with pytest.raises(ValidationError, match=r"periods\.1\n  Input should be greater than 0"):
            WavesConfig(kind="waves", periods=(4.0, period))


def test_waves_are_functions_of_the_fields() -> None:
    assert CONFIG.fingerprint() == WavesConfig(kind="waves").fingerprint()
    assert CONFIG.fingerprint() != WavesConfig(kind="waves", wave_seed=1).fingerprint()
    train, test = CONFIG.vectors("train"), CONFIG.vectors("test")
    assert train.values.shape == (4000, 64)
    assert test.values.shape == (1000, 64)
    assert not np.array_equal(train.values[:1000], test.values)
    assert set(np.unique(train.labels)) == {0, 1}
    assert np.array_equal(np.unique(train.values), np.arange(16, dtype=np.float32) / np.float32(15))
