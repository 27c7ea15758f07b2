"""Waves: the entropy by enumeration and by their own probabilities; draws that have those."""

import itertools
import math

import numpy as np
import pytest

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


def test_waves_are_functions_of_the_fields() -> None:
    assert CONFIG.fingerprint() == WavesConfig(kind="waves").fingerprint()
    assert CONFIG.fingerprint() != WavesConfig(kind="waves", wave_seed=1).fingerprint()
    train, test = CONFIG.vectors("train"), CONFIG.vectors("test")
    assert train.values.shape == (4000, 64)
    assert test.values.shape == (1000, 64)
    assert not np.array_equal(train.values[:1000], test.values)
    assert set(np.unique(train.labels)) == {0, 1}
    assert np.array_equal(np.unique(train.values), np.arange(16, dtype=np.float32) / np.float32(15))
