"""What a run will need, without allocating it: parameters, operations, memory of a worker by part, disk.

The model is built of fake tensors (shape and dtype, no storage) and its forward is run on them, so that what backward
keeps is counted, not estimated: the sum of all storages that autograd saves, each once, weights left out. The batch is
real, since models branch on it; its tokens follow Zipf's law, as adaptive softmaxes need less for rare tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from data_pipeline.batch import Batch, PairBatch, TokenBatch, VectorBatch
from pretrain.contract import Carry, Model
from pretrain.engines import DeepSpeedEngineConfig, EngineConfig, LocalEngineConfig
from pretrain.engines.engine import DTYPES, buffer_pieces, enable_activation_checkpointing, freeze_others
from pretrain.experiment import Experiment
from pretrain.group import check_divides
from pretrain.models import ModelConfig, Seq2SeqConfig
from pretrain.models.vectors import VectorModelConfig

FLOAT32_BYTES = 4
TYPICAL_LENGTH = 32
"""Of sources and targets, whose configuration gives no length: a guess, on which count, operations and activations
depend."""


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Bytes of one worker between the forward and the backward of a micro-batch, by part."""

    weights: int
    """ZeRO stage 3: at rest; the layers in use are whole."""
    gradients: int
    """Accumulated over micro-batches, in float32; those of the layer in hand come on top."""
    optimizer: int
    """Moments, and float32 masters where there are any."""
    activations: int
    """Kept by one micro-batch's forward for its backward, of the player that keeps most; what an operation needs only
    while it runs, and a block's recomputation under activation checkpointing, come on top."""
    carry: int
    """Of all the worker's micro-batches, before and after a turn."""
    saving: int
    """The leader's copy of what it saves, in the memory of the host, where saves go on in the background."""
    communication: int
    """Buffers in which gradients travel, at most."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True, slots=True)
class Placement:
    """One way to compute the run."""

    workers: int
    zero_stage: int
    micro_batches_per_worker: int
    memory: WorkerMemory


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will need."""

    name: str
    parameters: int
    embedding_parameters: int
    """Of the vocabulary (embedding, output layer where it has its own, biases) and learned positions."""
    unit: str
    """What counts are of: token, image or row."""
    count_per_step: int
    """Over all micro-batches and turns."""
    total_count: int
    flops_per_step: float
    """Matrix products of forward and backward, backward counted as twice the forward; no recomputation."""
    total_flops: float
    precision: str
    zero_stage: int
    """The experiment's own."""
    activation_checkpointing: bool
    placements: tuple[Placement, ...]
    checkpoint_bytes: int
    """On disk: float32 weights and moments, buffers, the carry of all micro-batches, the probe's micro-batch."""
    disk_bytes: int
    """All checkpoints that are kept, and the one being written."""

    @property
    def non_embedding_parameters(self) -> int:
        return self.parameters - self.embedding_parameters

    def placement(self, workers: int, zero_stage: int | None = None) -> Placement:
        """That of so many workers, at the experiment's own stage unless another is given."""
        stage = self.zero_stage if zero_stage is None else zero_stage
        return next(p for p in self.placements if (p.workers, p.zero_stage) == (workers, stage))

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the sums."""
        values = asdict(self) | {"non_embedding_parameters": self.non_embedding_parameters}
        for placed, placement in zip(values["placements"], self.placements, strict=True):
            placed["memory"]["total"] = placement.memory.total
        return values


def plan(experiment: Experiment, workers: Sequence[int] | None = None) -> Plan:
    """For these numbers of workers, or for all that divide the micro-batches; BadInput for one that does not."""
    micro_batches, rows = experiment.batch.micro_batches, experiment.batch.rows
    if workers is None:
        workers = [number for number in range(1, micro_batches + 1) if micro_batches % number == 0]
    for number in workers:
        check_divides(number, micro_batches)
    model = fake_model(experiment)
    carry_bytes = _carry_bytes(model.initial_carry(rows))
    activations = max(activation_bytes(model, experiment.model, rows, player) for player in model.players)
    sizes = [parameter.numel() for parameter in model.parameters()]
    moments = moment_elements(model, experiment)

    buffers = sum(_bytes(piece.tensor) for piece in buffer_pieces(model))
    with torch.random.fork_rng():
        batch = typical_batch(experiment.model, rows)
    probe = sum(_bytes(getattr(batch, field.name)) for field in fields(batch))

    def placement(workers: int, stage: int) -> Placement:
        each = micro_batches // workers
        state = state_bytes(sizes, experiment.engine, stage, workers, moments=moments)
        owned = _share(sum(sizes), stage, workers) + _share(moments, stage, workers)
        saved = FLOAT32_BYTES * owned + buffers + each * carry_bytes + probe
        memory = WorkerMemory(
            **state,
            activations=activations,
            carry=2 * each * carry_bytes,
            saving=saved if experiment.checkpoint.background else 0,
        )
        return Placement(workers, stage, each, memory)

    count = micro_batches * model.count(batch) * len(model.turns(0))
    flops = 3.0 * model.flops_per_count() * count
    checkpoint_bytes = FLOAT32_BYTES * (sum(sizes) + moments) + buffers + micro_batches * carry_bytes + probe
    return Plan(
        name=experiment.name,
        parameters=sum(sizes),
        embedding_parameters=sum(p.numel() for name, p in model.named_parameters() if _is_embedding(name)),
        unit=model.unit,
        count_per_step=count,
        total_count=count * experiment.steps,
        flops_per_step=flops,
        total_flops=flops * experiment.steps,
        precision=experiment.engine.precision,
        zero_stage=getattr(experiment.engine, "zero_stage", 0),
        activation_checkpointing=experiment.engine.activation_checkpointing,
        placements=tuple(placement(number, stage) for number in workers for stage in _stages(experiment)),
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=checkpoint_bytes * experiment.checkpoint.most(experiment.steps),
    )


def fake_model(experiment: Experiment) -> Model:
    """The experiment's model in its precision, without storage."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = experiment.model.build()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(DTYPES[experiment.engine.precision])
    if experiment.engine.activation_checkpointing:
        enable_activation_checkpointing(model)
    return model


def activation_bytes(model: Model, config: ModelConfig, rows: int, player: str) -> int:
    """What the forward of one micro-batch keeps for its backward; the same for a fake model as for a real one."""
    weights = {_storage(parameter) for parameter in model.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in weights:
            kept[_storage(tensor)] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    model.train()
    freeze_others(model, player)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        batch, carry = typical_batch(config, rows), model.initial_carry(rows)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            model(batch, carry, player=player, step=0)
    return sum(size for _, size in kept.values())


def typical_batch(config: ModelConfig, rows: int) -> Batch:
    """A micro-batch as the model reads it, with made-up contents from torch's default generator."""
    ids_R = torch.zeros(rows, dtype=torch.int64)
    if isinstance(config, VectorModelConfig):
        return VectorBatch(torch.rand(rows, math.prod(config.shape)).round(), ids_R, ids_R)
    if isinstance(config, Seq2SeqConfig):
        tokens_RL = torch.randint(config.vocab_size, (rows, TYPICAL_LENGTH))
        return PairBatch(tokens_RL, ids_R + TYPICAL_LENGTH, tokens_RL.clone(), tokens_RL.clone(), ids_R.clone())
    length = config.length or 1
    tokens_RL = (config.vocab_size ** torch.rand(rows, length + 1)).long() - 1
    age_RL = torch.arange(length).expand(rows, -1)
    return TokenBatch(tokens_RL[:, :-1].contiguous(), tokens_RL[:, 1:].contiguous(), age_RL, ids_R)


def moment_elements(model: Model, experiment: Experiment) -> int:
    """Of all players' optimizer states together."""
    kept = {player: len(optimizer.moments) for player, optimizer in experiment.optimizers().items()}
    return sum(kept[player] * p.numel() for player in model.players for _, p in model.player_parameters(player))


def _share(elements: int, zero_stage: int, workers: int) -> int:
    """Of what ZeRO cuts from stage 1 on."""
    return -(-elements // workers) if zero_stage else elements


def state_bytes(
    sizes: Sequence[int], engine: EngineConfig, zero_stage: int, workers: int, *, moments: int
) -> dict[str, int]:
    """Weights, gradients, optimizer state and buffers of one worker, for parameters of so many elements each and
    moments of so many in all."""
    count = sum(sizes)
    masters = count if engine.precision != "float32" or zero_stage >= 1 else 0
    return {
        "weights": DTYPES[engine.precision].itemsize * _resident(sizes, engine, zero_stage, workers),
        "gradients": FLOAT32_BYTES * (_share(count, zero_stage, workers) if zero_stage >= 2 else count),
        "optimizer": FLOAT32_BYTES * (_share(masters, zero_stage, workers) + _share(moments, zero_stage, workers)),
        "communication": FLOAT32_BYTES * _bucket(count, engine, workers),
    }


def _resident(sizes: Sequence[int], engine: EngineConfig, zero_stage: int, workers: int) -> int:
    """Elements of the weights that a worker keeps between steps."""
    if zero_stage < 3:
        return sum(sizes)
    whole_below = engine.whole_below if isinstance(engine, DeepSpeedEngineConfig) else 0
    return sum(size if size <= whole_below else -(-size // workers) for size in sizes)


def _bucket(count: int, engine: EngineConfig, workers: int) -> int:
    """Elements that travel at a time."""
    if isinstance(engine, DeepSpeedEngineConfig):
        return min(engine.bucket_size, count)
    return count if workers > 1 else 0


def _stages(experiment: Experiment) -> tuple[int, ...]:
    """The ZeRO stages at which the experiment could run."""
    if isinstance(experiment.engine, LocalEngineConfig):
        return (0,)
    model = experiment.model
    whole = model.reads_whole_weights if isinstance(model, VectorModelConfig) else None
    return (0, 1, 2, 3) if len(model.players) == 1 and whole is None else (0, 1, 2)


def _is_embedding(name: str) -> bool:
    return name.split(".")[0] in {"vocabulary", "positions"}


def _carry_bytes(carry: Carry | None) -> int:
    return sum(_bytes(value) for value in (carry or {}).values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _storage(tensor: Tensor) -> int:
    """Equal for tensors that share memory, whether or not there is any."""
    return tensor.untyped_storage()._cdata
