"""Translations of a split, read as a stream, and what they are worth: how many are right, and how late they are.

token_accuracy   places at which output and reference have the same token, of the places that either has
exact_match      outputs equal to their references
empty_outputs    outputs without a token, which have no latency
bleu             of the text against the references as they were before any tokenizer, by sacrebleu

What stands in a reference for a word that the vocabulary has not got is right for nobody.

AP, AL, LAAL, DAL, mean arcs     see `evals.metrics.latency`
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from data_pipeline.batch import to_device
from data_pipeline.config import BadInput
from data_pipeline.streams.pairs import Pairs
from evals.metric import Metric
from evals.metrics.average import average
from evals.metrics.bleu import corpus_bleu
from evals.metrics.latency import ReadPath, latency


class Output(Protocol):
    """What a translator gives for one source."""

    @property
    def tokens(self) -> tuple[int, ...]: ...

    @property
    def reads(self) -> tuple[int, ...]: ...


@runtime_checkable
class Translator(Protocol):
    """What streaming models have besides the contract."""

    def translate(self, source: Iterable[int], *, max_tokens: int) -> Output: ...

    def log_prob(self, batch: Any) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Translated:
    """One pair of the split, and the output for its source."""

    source: tuple[int, ...]
    reference: tuple[int, ...]
    output: tuple[int, ...]
    reads: tuple[int, ...]
    """g(i) of each token of the output."""

    def path(self) -> ReadPath:
        return ReadPath(self.reads, len(self.source), max(len(self.reference), 1))


def translate_pairs(model: Translator, pairs: Pairs, *, max_tokens: int, limit: int | None = None) -> list[Translated]:
    """The first `limit` sources of a split (all, if None), one at a time; targets end after `max_tokens` at last."""
    if limit is not None and limit < 1:
        raise BadInput(f"limit {limit}: must be at least 1")
    found = []
    for number in range(len(pairs) if limit is None else min(limit, len(pairs))):
        source, reference = (tuple(side[number].tolist()) for side in (pairs.sources, pairs.targets))
        output = model.translate(source, max_tokens=max_tokens)
        found.append(Translated(source, reference, output.tokens, output.reads))
    return found


def longest_output(pairs: Pairs) -> int:
    """Tokens at which an output is cut off: twice the longest reference, and ten more."""
    return 2 * int(np.diff(pairs.targets.ends, prepend=0).max()) + 10


def translation_metrics(
    found: Sequence[Translated],
    *,
    tokens: str,
    text: Callable[[Sequence[int]], str],
    references: Sequence[str] | None,
    unknown: int | None = None,
    protocol: Mapping[str, Any],
) -> tuple[Metric, ...]:
    """Accuracies, BLEU of what `text` makes of an output against the text of its reference (`references` begin with
    those of `found`; None: no BLEU), and latency, which is left out where no output has a token.

    `tokens` says what a token is, as in `evals.metrics.latency`; `unknown` is never right. Raises BadInput where there
    is nothing to score.
    """
    same = [float(a == b != unknown) for one in found for a, b in zip_longest(one.output, one.reference)]
    whole = [float(one.output == one.reference and unknown not in one.reference) for one in found]
    empty = [float(not one.output) for one in found]
    known = {**protocol, "tokens": tokens, "decoding": "greedy, as a stream"}

    def share(name: str, values: list[float], unit: str, better: Literal["lower", "higher"] = "higher") -> Metric:
        return average(name, torch.tensor(values).double(), unit=unit, better=better, protocol=known)

    metrics = [
        share("token_accuracy", same, "of tokens"),
        share("exact_match", whole, "of outputs"),
        share("empty_outputs", empty, "of outputs", "lower"),
    ]
    if references is not None:
        given = [[reference] for reference in references[: len(found)]]
        metrics.append(corpus_bleu([text(one.output) for one in found], given, protocol=known))
    return (*metrics, *latency([one.path() for one in found], tokens=tokens, protocol=known))


@torch.no_grad()
def streaming_nats(
    model: Translator, pairs: Pairs, *, rows: int, device: torch.device, protocol: Mapping[str, Any]
) -> Metric:
    """-log p(y | x) per target token, the end of each target included, of the model reading as a stream."""
    nats, count = 0.0, 0
    for start in range(0, len(pairs), rows):
        batch = pairs.batch(np.arange(start, min(start + rows, len(pairs))))
        nats -= float(model.log_prob(to_device(batch, device)).double().sum())
        count += sum(len(pairs.targets[int(number)]) + 1 for number in batch.sample_ids)
    return Metric("streaming_nats_per_token", nats / count, "nats/token", "lower", count, None, dict(protocol))
