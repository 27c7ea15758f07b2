"""Scores of a text against one forward pass over each whole document, in float64."""

import math
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from data_pipeline.batch import TokenBatch
from data_pipeline.config import BadInput
from evals.language_model import ALONE, TextScore, score_documents
from pretrain.contract import Carry, Loss
from pretrain.group import Group
from pretrain.models.autoregressive.gpt import GPTConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXL, TransformerXLConfig

VOCAB, END = 23, 3
LENGTHS = (1, 40, 7, 12, 12, 29, 5)


class Texts:
    """Random documents, three bytes a token."""

    def __init__(self, lengths: tuple[int, ...], seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.texts = [generator.integers(0, VOCAB, length).astype(np.uint16) for length in lengths]

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(text) for text in self.texts], dtype=np.int64)

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        found = [self.texts[number][offset] for number, offset in zip(documents.flat, offsets.flat, strict=True)]
        return np.array(found, dtype=np.int64).reshape(documents.shape)

    def document_bytes(self, number: int) -> int:
        return 3 * len(self.texts[number])


@pytest.fixture(scope="module")
def model() -> TransformerXL:
    torch.manual_seed(0)
    config = TransformerXLConfig(
        kind="transformer_xl", vocab_size=VOCAB, num_layers=2, width=16, num_heads=2, head_width=8, inner_width=32,
        segment_length=8, memory_length=8, initial_std=0.5,
    )  # fmt: skip
    return config.build().double().eval()


@torch.no_grad()
def whole_documents(model: TransformerXL, texts: Texts) -> float:
    """Nats with every document as a single segment, one at a time."""
    total = 0.0
    for text in texts.texts:
        labels = torch.from_numpy(text.astype(np.int64))[None]
        inputs = torch.cat([torch.tensor([[END]]), labels[:, :-1]], dim=1)
        batch = TokenBatch(inputs, labels, torch.arange(labels.shape[1])[None], torch.zeros(1, dtype=torch.int64))
        total -= float(model.log_prob(batch))
    return total


def scored(
    model: TransformerXL, texts: Texts, *, rows: int, segment: int, memory: int, group: Group = ALONE
) -> TextScore:
    @torch.no_grad()
    def score(batch: TokenBatch, carry: Carry | None) -> Loss:
        return model(batch, carry, player="model", step=0)

    return score_documents(
        score, texts, start_token=END, reads="lanes", segment_length=segment, rows=rows, group=group,
        new_carry=lambda rows: model.empty_memory(rows, memory),
    )  # fmt: skip


@pytest.mark.parametrize(("rows", "segment"), [(1, 40), (1, 5), (3, 5), (7, 11), (100, 1), (2, 64)])
def test_with_enough_memory_every_batch_and_segment_gives_the_score_of_whole_documents(
    model: TransformerXL, rows: int, segment: int
) -> None:
    texts = Texts(LENGTHS)
    found = scored(model, texts, rows=rows, segment=segment, memory=40)
    assert found.nats == pytest.approx(whole_documents(model, texts), rel=1e-12)
    assert (found.tokens, found.num_bytes, found.documents) == (sum(LENGTHS), 3 * sum(LENGTHS), len(LENGTHS))


def test_short_memory_changes_the_score_but_not_with_the_batch(model: TransformerXL) -> None:
    texts = Texts(LENGTHS)
    short = [scored(model, texts, rows=rows, segment=5, memory=4).nats for rows in (1, 2, 7)]
    assert short == pytest.approx([short[0]] * 3, rel=1e-12)
    off = scored(model, texts, rows=3, segment=5, memory=0).nats
    whole = whole_documents(model, texts)
    assert abs(short[0] - whole) > 1e-3
    assert abs(off - short[0]) > 1e-3


def test_documents_do_not_see_each_other(model: TransformerXL) -> None:
    apart = [scored(model, Texts((9,), seed=seed), rows=1, segment=4, memory=16).nats for seed in (1, 2)]
    both = Texts(())
    both.texts = [Texts((9,), seed=seed).texts[0] for seed in (1, 2)]
    assert scored(model, both, rows=2, segment=4, memory=16).nats == pytest.approx(sum(apart), rel=1e-12)


@dataclass(frozen=True)
class ThreadGroup(Group):
    """Workers that are threads."""

    sent: list[Tensor] = field(default_factory=list)
    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        self.sent.append(tensor)
        self.barrier.wait()
        return torch.stack(self.sent).sum(0)


@pytest.mark.parametrize("workers", [2, 3, 9])
def test_workers_share_the_documents_and_score_equally_often(model: TransformerXL, workers: int) -> None:
    texts = Texts(LENGTHS)
    sent: list[Tensor] = []
    barrier = threading.Barrier(workers)
    calls = [0] * workers
    found: dict[int, float] = {}

    def work(rank: int) -> None:
        class Counting:
            def __call__(self, *args: object, **kwargs: object) -> Loss:
                calls[rank] += 1
                with torch.no_grad():
                    return model(*args, **kwargs)

            def empty_memory(self, rows: int, length: int) -> Carry:
                return model.empty_memory(rows, length)

        group = ThreadGroup(rank=rank, world_size=workers, sent=sent, barrier=barrier)
        found[rank] = scored(Counting(), texts, rows=2, segment=6, memory=40, group=group).nats  # type: ignore[arg-type]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == pytest.approx([whole_documents(model, texts)] * workers, rel=1e-12)
    assert len(set(calls)) == 1
    assert calls[0] >= math.ceil(40 / 6)


def test_max_tokens_takes_whole_documents_from_the_beginning(model: TransformerXL) -> None:
    first, rest = LENGTHS[0] + LENGTHS[1], LENGTHS[2]
    limited = [score_uniform(Texts(LENGTHS), max_tokens=limit) for limit in (first, first + rest - 1, first + rest)]
    assert [found.tokens for found in limited] == [first, first, first + rest]
    assert [found.num_bytes for found in limited] == [3 * first, 3 * first, 3 * (first + rest)]
    assert not any(found.cut for found in limited)


def test_max_tokens_cuts_a_single_long_document_and_says_so() -> None:
    found = score_uniform(Texts((40,)), max_tokens=10)
    assert (found.tokens, found.num_bytes, found.documents, found.cut) == (10, 30, 1, True)


def score_uniform(
    texts: Texts, *, max_tokens: int | None = None, reads: str = "samples", segment: int = 6
) -> TextScore:
    """Under a model that gives every token the probability 1 / V."""

    def score(batch: TokenBatch, carry: Carry | None) -> Loss:
        count = int((batch.labels >= 0).sum())
        assert bool((batch.age[:, 0] == 0).all()) or reads == "lanes"
        twice = torch.tensor(2.0 * count)
        return Loss(total=torch.tensor(count * math.log(VOCAB)), count=count, metrics={"twice": twice})

    return score_documents(
        score, texts, start_token=END, reads=reads, segment_length=segment, rows=2, max_tokens=max_tokens
    )  # type: ignore[arg-type]


def test_units_of_a_uniform_model() -> None:
    found = score_uniform(Texts(LENGTHS))
    assert found.nats_per_token == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert found.perplexity == pytest.approx(VOCAB, rel=1e-6)
    assert found.bits_per_byte == pytest.approx(math.log2(VOCAB) / 3, rel=1e-6)
    assert found.metrics == {"twice": 2.0 * sum(LENGTHS)}


def test_samples_are_windows_each_starting_from_the_token_before() -> None:
    torch.manual_seed(1)
    config = GPTConfig(
        kind="gpt", vocab_size=VOCAB, num_layers=1, width=16, num_heads=2, inner_width=32, context_length=6,
        initial_std=0.5,
    )  # fmt: skip
    gpt, texts = config.build().double().eval(), Texts((14,))

    @torch.no_grad()
    def score(batch: TokenBatch, carry: Carry | None) -> Loss:
        return gpt(batch, carry, player="model", step=0)

    stream = torch.from_numpy(np.concatenate([[END], texts.texts[0]]).astype(np.int64))
    by_hand = 0.0
    for start, stop in ((0, 6), (6, 12), (12, 14)):
        age = torch.arange(stop - start)[None]
        batch = TokenBatch(stream[None, start:stop], stream[None, start + 1 : stop + 1], age, torch.zeros(1))
        by_hand += float(score(batch, None).total)
    for rows in (1, 2, 5):
        found = score_documents(score, texts, start_token=END, reads="samples", segment_length=6, rows=rows)
        assert found.nats == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(("rows", "segment"), [(0, 4), (4, 0)])
def test_sizes_must_be_positive(model: TransformerXL, rows: int, segment: int) -> None:
    with pytest.raises(BadInput, match="must be at least 1"):
        scored(model, Texts(LENGTHS), rows=rows, segment=segment, memory=0)


def test_an_empty_split_is_refused(model: TransformerXL) -> None:
    with pytest.raises(BadInput, match="no document"):
        scored(model, Texts(()), rows=1, segment=4, memory=0)
