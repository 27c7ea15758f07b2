"""Held-out scores of a run from one of its checkpoints, on one process, with the record of how they were measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from data_pipeline.batch import TokenBatch, VectorBatch, to_device
from data_pipeline.config import BadInput
from data_pipeline.pair_data import PairData
from data_pipeline.vector_data import VectorData
from evals.abilities import mode_metrics, probe_metrics
from evals.checkpointed import checkpoint_hash, load_model, open_checkpoint
from evals.density import density_metrics
from evals.held_out import HeldOut, open_split
from evals.language_model import Score, TextScore, score_documents
from evals.metric import Metric
from evals.pairs import open_pairs, score_pairs
from evals.result import MEMORY, NO_MEMORY, WINDOWS, EvaluationResult
from evals.translation import Translator, longest_output, streaming_nats, translate_pairs, translation_metrics
from evals.vectors import open_vectors, score_vectors
from pretrain import config
from pretrain.checkpoint import CheckpointReader
from pretrain.contract import BoundedLikelihood, Carry, Loss, Model
from pretrain.engines.engine import DTYPES, choose_device
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.models import MODEL_CONFIGS, ModelConfig
from pretrain.models.vectors import VectorModelConfig
from pretrain.run_directory import read_experiment
from pretrain.units import LN2

ROWS = 16
SAMPLES = 50
"""Of the latents of a row, for a bound of its log p."""


class ScoresTokens(Protocol):
    """What language models have besides the contract."""

    def token_nats(self, batch: TokenBatch, carry: Carry | None) -> tuple[Tensor, Carry | None]: ...


def evaluate_run(
    directory: Path,
    *,
    split: str = "valid",
    checkpoint: int | None = None,
    memory_length: int | None = None,
    segment_length: int | None = None,
    clamp_length: int | None = None,
    same_length: bool | None = None,
    rows: int = ROWS,
    max_tokens: int | None = None,
    samples: int | None = None,
    kernels: Sequence[str] = (),
) -> EvaluationResult:
    """Scores with the newest good checkpoint, or that of step `checkpoint`, in the run's precision.

    Lengths that are not given are those of training; models that carry memory are scored with memory and with memory
    off. Models of images and other vectors get what they say of log p(x) too, a bound of `samples` (50) draws of a
    row's latents; how their samples cover modes that are known; and what one layer reads from their latents.
    `memory_length`, `clamp_length` and `same_length` are the paper's settings for evaluation. `kernels` are other
    choices of kernels than the run's. BadInput or Corrupt where run, checkpoint, split or data cannot be used.
    """
    experiment = read_experiment(directory)
    reader = open_checkpoint(directory, checkpoint)
    saved = config.parse(Experiment, dict(reader.manifest.experiment), source=str(reader.path))
    changed = {"model": saved.model, "kernels": experiment.kernels.changed(kernels)}  # data may have moved, not these
    experiment = experiment.model_copy(update=changed)
    experiment.check_data()
    asked = {"memory_length": memory_length, "clamp_length": clamp_length, "same_length": same_length}
    overrides = {name: value for name, value in asked.items() if value is not None}
    protocol: dict[str, Any] = {
        "run": experiment.name,
        "split": split,
        "data": experiment.data.kind,
        "model": experiment.model.kind,
        "checkpoint": {"step": reader.step, "hash": checkpoint_hash(reader)},
        "dtype": experiment.engine.precision,
        "rows": rows,
    }
    if experiment.model.reads == "vectors":
        if overrides or segment_length or max_tokens:
            raise BadInput(
                f"{directory}: model.kind {experiment.model.kind} reads no text, so lengths mean nothing to it"
            )
        return _evaluate_vectors(experiment, reader, protocol, samples)
    if samples is not None:
        raise BadInput(f"{directory}: model.kind {experiment.model.kind} has no latents; leave samples out")
    if experiment.model.reads == "pairs":
        if overrides or segment_length or max_tokens:
            raise BadInput(f"{directory}: model.kind {experiment.model.kind} reads no running text, but whole pairs")
        return _evaluate_pairs(experiment, reader, protocol)
    held_out = open_split(experiment.data, split)
    length = segment_length or experiment.model.length or 1
    scores: dict[str, TextScore] = {}
    metrics: list[Metric] = []
    for name, model_config in _ways(experiment.model, overrides).items():
        scores[name] = _score_text(experiment, reader, model_config, held_out, length, rows, max_tokens)
        details = protocol | _text_protocol(held_out, scores[name], model_config, length)
        metrics += text_metrics(name, scores[name], details)
    return EvaluationResult(protocol, tuple(metrics), scores)


def _ways(model: ModelConfig, overrides: Mapping[str, Any]) -> dict[str, ModelConfig]:
    """The model's configuration by how it reads: memory off sees all of the segment so far, and nothing before it."""
    if model.reads == "samples":
        if overrides:
            raise BadInput(
                f"{next(iter(overrides))}: model.kind {model.kind} has no memory; use segment_length for its windows"
            )
        return {WINDOWS: model}
    without = {NO_MEMORY: changed_model(model, dict(overrides) | {"memory_length": 0, "same_length": False})}
    if overrides.get("memory_length", getattr(model, "memory_length", 0)) == 0:
        return without
    return {MEMORY: changed_model(model, overrides)} | without


def changed_model(model: ModelConfig, overrides: Mapping[str, Any]) -> ModelConfig:
    """With other settings; BadInput where the model has no such setting."""
    values = model.model_dump() | dict(overrides)
    unknown = [name for name in overrides if name not in type(model).model_fields]
    if unknown:
        raise BadInput(f"{unknown[0]}: model.kind {model.kind} has no such setting")
    return config.parse(MODEL_CONFIGS[model.kind], values, source="evaluation")


@torch.no_grad()
def _score_text(
    experiment: Experiment,
    reader: CheckpointReader,
    model_config: ModelConfig,
    held_out: HeldOut,
    segment_length: int,
    rows: int,
    max_tokens: int | None,
) -> TextScore:
    device = choose_device("auto", Group())
    model = _load(experiment, reader, model_config, device)
    return score_documents(
        token_score(model, device),
        held_out.documents,
        start_token=held_out.start_token,
        reads="lanes" if model_config.reads == "lanes" else "samples",
        segment_length=segment_length,
        rows=rows,
        new_carry=model.initial_carry,
        max_tokens=max_tokens,
    )


def _load(experiment: Experiment, reader: CheckpointReader, config: ModelConfig, device: torch.device) -> Model:
    dtype = DTYPES[experiment.engine.precision]
    return load_model(reader, config, dtype=dtype, device=device, kernels=experiment.kernels)


def token_score(model: Model, device: torch.device) -> Score:
    """Sums in float64, with those of squares for the standard error."""
    scorer = cast(ScoresTokens, model)

    def score(batch: TokenBatch, carry: Carry | None) -> Loss:
        nats_RL, following = scorer.token_nats(cast(TokenBatch, to_device(batch, device)), carry)
        nats_RL = nats_RL.double()
        return Loss(nats_RL.sum(), model.count(batch), following, {"squared_nats": nats_RL.square().sum()})

    return score


def _text_protocol(held_out: HeldOut, score: TextScore, model: ModelConfig, segment_length: int) -> dict[str, Any]:
    memory = {
        name: getattr(model, name) for name in ("memory_length", "clamp_length", "same_length") if hasattr(model, name)
    }
    return {
        "documents": score.documents,
        "tokens": score.tokens,
        "bytes": score.num_bytes,
        "bytes_estimated": score.cut,
        "documents_joined": held_out.joined,
        "lanes": "one per document" if model.reads == "lanes" else f"one per window of {segment_length} tokens",
        "lane_starts_from": held_out.starts_from,
        "tokens_dropped": 0,
        "segment_length": segment_length,
        **memory,
        "tokenizer_hash": held_out.tokenizer,
        "data_fingerprint": held_out.fingerprint,
    }


def text_metrics(name: str, score: TextScore, protocol: dict[str, Any]) -> list[Metric]:
    """Nats per token, perplexity, and bits per byte where the tokens were made of text."""
    n, mean = score.tokens, score.nats_per_token
    spread = score.metrics["squared_nats"] / n - mean**2
    stderr = math.sqrt(max(spread, 0.0) / max(n - 1, 1))

    def metric(what: str, value: float, unit: str, stderr: float) -> Metric:
        return Metric(f"{name}/{what}", value, unit, "lower", n, stderr, protocol)

    found = [
        metric("nats_per_token", mean, "nats/token", stderr),
        metric("perplexity", score.perplexity, "per token", score.perplexity * stderr),
    ]
    if score.num_bytes:
        found.append(metric("bits_per_byte", score.bits_per_byte, "bits/byte", stderr * n / LN2 / score.num_bytes))
    return found


def _evaluate_vectors(
    experiment: Experiment, reader: CheckpointReader, protocol: dict[str, Any], samples: int | None
) -> EvaluationResult:
    vectors = open_vectors(experiment.data, protocol["split"])
    protocol |= {"data_fingerprint": vectors.fingerprint, "seed": experiment.seed, "carry": "fresh in every batch"}
    device = choose_device("auto", Group())
    model = _load(experiment, reader, experiment.model, device)
    assert isinstance(experiment.data, VectorData), "open_vectors refuses any other"
    if samples is not None and not isinstance(model, BoundedLikelihood):
        raise BadInput(
            f"samples is {samples}: model.kind {experiment.model.kind} has no bound of log p(x) over latents; "
            "leave samples (--samples) out"
        )
    settings: dict[str, Any] = {"seed": experiment.seed, "device": device, "protocol": protocol}
    levels = experiment.model.num_levels if isinstance(experiment.model, VectorModelConfig) else None
    metrics = density_metrics(
        model, experiment.data, vectors, rows=protocol["rows"], samples=samples or SAMPLES, levels=levels, **settings
    )
    metrics += mode_metrics(model, experiment.data, **settings)
    metrics += probe_metrics(model, experiment.data, vectors, rows=protocol["rows"], **settings)
    for player in model.players:
        found = score_vectors(
            vector_score(model, player, reader.step, device),
            vectors,
            rows=protocol["rows"],
            seed=experiment.seed,
            new_carry=model.initial_carry,
        )
        unit = f"per {model.unit}"
        metrics += [
            Metric(
                f"{player}/{name}",
                value,
                unit,
                "lower" if name in model.lower_is_better else None,
                found.count,
                None,
                protocol,
            )
            for name, value in found.means.items()
            if model.objective_has_value or name != "objective"
        ]
    return EvaluationResult(protocol, tuple(metrics), {})


def _evaluate_pairs(experiment: Experiment, reader: CheckpointReader, protocol: dict[str, Any]) -> EvaluationResult:
    data = experiment.data
    pairs = open_pairs(data, protocol["split"])
    assert isinstance(data, PairData), "open_pairs refuses any other"
    device = choose_device("auto", Group())
    model = _load(experiment, reader, experiment.model, device)
    with torch.no_grad():
        found = score_pairs(
            lambda batch: model(to_device(batch, device), None, player=model.players[-1], step=reader.step),
            pairs,
            rows=protocol["rows"],
            seed=experiment.seed,
        )
    protocol |= {"data_fingerprint": pairs.fingerprint, "pairs": found.pairs, "mean": "over target tokens with the end"}
    if left_out := data.left_out(protocol["split"]):
        protocol["split_read"] = left_out
    unit = {"nats_per_token": "nats/token", "lag": "source tokens"}
    metrics = [
        Metric(name, value, unit.get(name, "per token"), "lower", found.tokens, None, protocol)
        for name, value in found.means.items()
    ]
    if isinstance(model, Translator):
        metrics.append(streaming_nats(model, pairs, rows=protocol["rows"], device=device, protocol=protocol))
        metrics += translation_metrics(
            translate_pairs(model, pairs, max_tokens=longest_output(pairs)),
            tokens=f"of data.kind {data.kind}",
            text=data.text,
            references=data.references(protocol["split"]),
            unknown=data.unknown(),
            protocol=protocol,
        )
    return EvaluationResult(protocol, tuple(metrics), {})


def vector_score(
    model: Model, player: str, step: int, device: torch.device
) -> Callable[[VectorBatch, Carry | None], Loss]:
    """The objective of one player."""

    @torch.no_grad()
    def score(batch: VectorBatch, carry: Carry | None) -> Loss:
        return cast(Loss, model(to_device(batch, device), carry, player=player, step=step))

    return score
