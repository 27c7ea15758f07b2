"""The Markov chain: its entropy is what it says, and its tokens are drawn from it."""

import numpy as np
import pytest

from data_pipeline.config import BadInput
from data_pipeline.markov import MarkovChain, MarkovConfig

CONFIG = MarkovConfig(kind="markov", num_symbols=12, document_length=50, num_documents=2000, num_held_out=100)


def test_the_stationary_distribution_is_the_left_eigenvector() -> None:
    chain = MarkovChain(12, seed=4, sharpness=3)
    values, vectors = np.linalg.eig(chain.transitions_VV.T)
    vector = np.real(vectors[:, np.argmax(np.real(values))])
    assert np.allclose(chain.stationary_V, vector / vector.sum(), atol=1e-8)
    assert np.allclose(chain.transitions_VV.sum(axis=1), 1.0, atol=1e-12)


def test_the_entropy_rate_is_that_of_long_blocks() -> None:
    """H(X_1..X_n) by summing over all sequences: n tokens cost H(pi) + (n - 1) H."""
    chain = MarkovChain(3, seed=1, sharpness=2)
    joint = chain.stationary_V
    for _ in range(5):
        joint = (joint[..., None] * chain.transitions_VV).reshape(*joint.shape, 3)
    block = -(joint * np.log(joint)).sum()
    assert block == pytest.approx(chain.first_entropy() + 5 * chain.entropy_rate(), rel=1e-7)


def test_the_tokens_cost_the_entropy_rate_under_the_chain() -> None:
    chain = MarkovChain(CONFIG.num_symbols, seed=CONFIG.chain_seed, sharpness=CONFIG.sharpness)
    tokens = CONFIG.documents("train").tokens_DT
    first = -np.log(chain.stationary_V[tokens[:, 0]])
    later = -np.log(chain.transitions_VV[tokens[:, :-1], tokens[:, 1:]])
    nats = first + later.sum(axis=1)
    mean, error = nats.mean() / 50, nats.std() / 50 / np.sqrt(len(nats))
    assert abs(mean - CONFIG.entropy_rate()) < 5 * error
    assert error < 0.01


def test_tokens_follow_the_transitions() -> None:
    chain = MarkovChain(CONFIG.num_symbols, seed=CONFIG.chain_seed, sharpness=CONFIG.sharpness)
    tokens = CONFIG.documents("train").tokens_DT
    counts = np.zeros((12, 12))
    np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1)
    expected = counts.sum(axis=1, keepdims=True) * chain.transitions_VV
    assert counts[expected == 0].sum() == 0
    often = expected > 5
    chi_squared = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = often.sum() - 12
    assert chi_squared < freedom + 6 * np.sqrt(2 * freedom)


def test_sharper_is_more_predictable() -> None:
    rates = [MarkovConfig(kind="markov", sharpness=sharpness).entropy_rate() for sharpness in (0, 2, 4, 6)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < rates[0] < np.log(64)


def test_splits_share_the_chain_but_no_document() -> None:
    train, valid = CONFIG.documents("train").tokens_DT, CONFIG.documents("valid").tokens_DT
    assert train.shape == (2000, 50)
    assert valid.shape == (100, 50)
    assert not {tuple(row) for row in train} & {tuple(row) for row in valid}


def test_equal_fields_give_equal_tokens_and_others_others() -> None:
    again = MarkovConfig.model_validate(CONFIG.model_dump())
    other = CONFIG.model_copy(update={"chain_seed": 1})
    assert np.array_equal(CONFIG.documents("train").tokens_DT, again.documents("train").tokens_DT)
    assert CONFIG.fingerprint() == again.fingerprint() != other.fingerprint()
    assert not np.array_equal(CONFIG.documents("train").tokens_DT, other.documents("train").tokens_DT)


@pytest.mark.parametrize("reads", ["lanes", "samples"])
def test_streams_read_the_documents(reads: str) -> None:
    config = CONFIG.model_copy(update={"shuffle": False})
    stream = config.stream(reads=reads, length=20, micro_batches=2, rows=3, seed=0)
    flat = config.documents("train").tokens_DT.ravel()
    batch = stream.micro_batch(1, 1)
    starts = batch.sample_ids.numpy()[:, None]
    assert np.array_equal(batch.inputs.numpy(), flat[starts + np.arange(20)])
    assert np.array_equal(batch.age.numpy(), np.minimum((starts + np.arange(20)) % 50, batch.age.numpy()))
    assert int(batch.inputs.max()) < config.vocab_size()


def test_it_cannot_be_read_as_vectors_or_in_other_splits() -> None:
    with pytest.raises(BadInput, match="markov cannot be read as vectors, only as lanes or samples"):
        CONFIG.stream(reads="vectors", length=None, micro_batches=1, rows=1, seed=0)
    with pytest.raises(BadInput, match=r"split 'test'.*train, valid"):
        CONFIG.stream(reads="lanes", length=4, micro_batches=1, rows=1, seed=0, split="test")
    with pytest.raises(BadInput, match="length None"):
        CONFIG.stream(reads="lanes", length=None, micro_batches=1, rows=1, seed=0)
