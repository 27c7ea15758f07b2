"""Small runs for the engines' tests: a Transformer-XL on random tokens, a game of two players, a reader in memory."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline.batch import TokenBatch, VectorBatch
from data_pipeline.config import Corrupt
from pretrain.checkpoint.piece import Piece
from pretrain.contract import Carry, Loss, Model
from pretrain.engines.deepspeed import DeepSpeedEngineConfig
from pretrain.engines.local import LocalEngineConfig
from pretrain.group import Group
from pretrain.models.adversarial.gan import GANConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXL, TransformerXLConfig
from pretrain.optim import AdamWConfig, OptimizerConfig
from pretrain.rng import INITIAL_WEIGHTS, seed_at, seed_everything
from pretrain.trainer import Plan, Trainer

STAGES = (0, 1, 2, 3)
PRECISIONS = ("float32", "bfloat16")
SEED, MICRO_BATCHES, ROWS, LENGTH, VOCABULARY = 7, 4, 2, 8, 32


@dataclass(frozen=True)
class RandomTokens:
    """A stream whose tokens are a function of (draw, micro-batch), each token likely to follow from the one before."""

    micro_batches: int = MICRO_BATCHES

    def micro_batch(self, draw: int, micro_batch: int) -> TokenBatch:
        generator = torch.Generator().manual_seed(seed_at(SEED, draw, micro_batch))
        jumps = torch.randint(0, 3, (ROWS, LENGTH + 1), generator=generator)
        tokens = jumps.cumsum(1) % VOCABULARY
        age = (draw * LENGTH + torch.arange(LENGTH)).expand(ROWS, LENGTH)
        sample_ids = torch.arange(ROWS) + ROWS * (micro_batch + self.micro_batches * draw)
        return TokenBatch(tokens[:, :-1], tokens[:, 1:], age, sample_ids)


class RandomVectors:
    """Points on a noisy line."""

    def micro_batch(self, draw: int, micro_batch: int) -> VectorBatch:
        generator = torch.Generator().manual_seed(seed_at(SEED, draw, micro_batch))
        values = torch.rand(ROWS, 1, generator=generator) + 0.1 * torch.randn(ROWS, 4, generator=generator)
        return VectorBatch(values, torch.zeros(ROWS, dtype=torch.int64), torch.arange(ROWS) + ROWS * micro_batch)


class Clipped(Model):
    """A game with a penalty on the critic's slope (double backward), a buffer, and weights that `after_turn` clips."""

    players = ("critic", "generator")

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
        self.register_buffer("offset", torch.ones(4))

    def turns(self, step: int) -> tuple[str, ...]:
        return ("critic", "critic", "generator")

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        dtype = self.critic[0].weight.dtype
        fake = self.generator(torch.randn(batch.rows, 3, dtype=dtype)) + self.offset.to(dtype)
        if player == "generator":
            return Loss(-self.critic(fake).float().sum(), batch.rows)
        with torch.enable_grad():
            between = ((fake.detach() + batch.values.to(dtype)) / 2).requires_grad_()
            (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        penalty = (slope.float().square().sum(-1) - 1).square()
        distance = self.critic(fake.detach()).float() - self.critic(batch.values.to(dtype)).float()
        return Loss((distance[:, 0] + penalty).sum(), batch.rows, metrics={"penalty": penalty.detach().sum()})

    @torch.no_grad()
    def after_turn(self, player: str, step: int) -> None:
        for parameter in getattr(self, player).parameters():
            parameter.clamp_(-0.25, 0.25)


class Sometimes(Model):
    """Its second layer takes part in some steps alone, and there in the odd micro-batches alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        hidden = self.first(batch.values)
        if step % 3 != 1 and int(batch.sample_ids[0]) // ROWS % 2:
            hidden = self.second(hidden)
        return Loss(hidden.square().sum(), batch.rows)


def transformer_xl(**changes: Any) -> Model:
    """Two layers with dropout, memory, tied embeddings and shared biases."""
    small = {"vocab_size": VOCABULARY, "num_layers": 2, "width": 12, "num_heads": 2, "head_width": 6, "inner_width": 20}
    small |= {"segment_length": LENGTH, "memory_length": 6}
    noisy = {"dropout": 0.1, "attention_dropout": 0.1, "initial_std": 0.1}
    return TransformerXLConfig.model_validate({"kind": "transformer_xl", **small, **noisy, **changes}).build()


def wgan() -> Model:
    """The real game, small."""
    network, game = {"kind": "perceptron", "widths": (8,)}, {"kind": "wasserstein_penalty"}
    sizes = {"row_shape": (4,), "values": "unit", "latent_width": 3, "generator": network, "critic": network}
    return GANConfig.model_validate({"kind": "gan", **sizes, "game": game, "critic_steps": 2}).build()


def local(**fields: Any) -> LocalEngineConfig:
    return LocalEngineConfig(kind="local", **fields)


def zero(stage: int, **fields: Any) -> DeepSpeedEngineConfig:
    """Small buckets, and nothing whole at stage 3, so that a small model is cut as a large one would be."""
    return DeepSpeedEngineConfig(kind="deepspeed", zero_stage=stage, **{"bucket_size": 500, "whole_below": 0, **fields})


def engine(stage: int | None, precision: str) -> Any:
    """By ZeRO stage, None: local."""
    return local(precision=precision) if stage is None else zero(stage, precision=precision)


def trainer(
    engine: Any,
    group: Group,
    *,
    model: Callable[[], Model] = transformer_xl,
    clip: float = 0.5,
    optimizer: OptimizerConfig | None = None,
    micro_batches: int = MICRO_BATCHES,
) -> Trainer:
    """At step 0, by default with AdamW. The clip is low enough that it is often reached."""
    seed_everything(SEED, INITIAL_WEIGHTS)
    built = model()
    optimizer = optimizer or AdamWConfig(learning_rate=1e-2, weight_decay=0.1, gradient_clip=clip)
    return Trainer(
        engine=engine.build(built, dict.fromkeys(built.players, optimizer), group, micro_batches=micro_batches),
        stream=RandomTokens(micro_batches) if isinstance(built, TransformerXL) else RandomVectors(),
        plan=Plan(seed=SEED, total_steps=100, micro_batches=micro_batches, rows=ROWS),
        learning_rate=lambda player, step: 1e-2 * (0.9**step),
    )


class Memory:
    """A checkpoint in memory: whole tensors by name, made from every worker's pieces, which must tile them."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.tensors = {piece.name: torch.empty(piece.shape, dtype=piece.tensor.dtype) for piece in pieces}
        times = {name: torch.zeros(tensor.numel()) for name, tensor in self.tensors.items()}
        for piece in pieces:
            whole, covered = self.tensors[piece.name], slice(piece.start, piece.start + piece.tensor.numel())
            assert piece.shape == whole.shape, piece.name
            whole.view(-1)[covered] = piece.tensor
            times[piece.name][covered] += 1
        self.untiled = sorted(name for name, times in times.items() if not (times == 1).all())

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.tensors:
            raise Corrupt(f"no tensor {name!r}")
        return tuple(self.tensors[name].shape)

    def names(self) -> frozenset[str]:
        return frozenset(self.tensors)

    def read(self, name: str, start: int, count: int) -> Tensor:
        self.shape(name)
        return self.tensors[name].reshape(-1)[start : start + count].clone()


def copies(trained: Trainer) -> list[Piece]:
    """This worker's pieces as they are now."""
    return [Piece(p.name, p.shape, p.start, p.tensor.detach().clone()) for p in trained.pieces()]


@dataclass
class Run:
    """What a run left: numbers by step, and a checkpoint of its last step."""

    losses: list[float]
    norms: list[float]
    sample_ids: list[tuple[tuple[int, ...], ...]]
    memory: Memory
    counters: dict[str, int]
    probe: float
    likelihood: list[float]
    """-log p of a batch's rows, taken with whole weights in the middle of the run; empty where the model has none."""


def likelihood(trained: Trainer) -> list[float]:
    with getattr(trained.engine, "whole_weights", nullcontext)(), torch.no_grad():
        trained.engine.model.eval()
        score = getattr(trained.engine.model, "log_prob", None)
        return score(trained.stream.micro_batch(0, 0)).tolist() if score else []


def run(engine: Any, group: Group, steps: int, *, after: Run | None = None, **options: Any) -> Run:
    """`steps` steps from the beginning, or from the end of another run."""
    trained = trainer(engine, group, **options)
    if after is not None:
        trained.restore(after.memory, after.counters)
    reports = list(islice(trained.steps(), steps // 2))
    middle = likelihood(trained)
    reports += islice(trained.steps(), steps - steps // 2)
    turns = [turn for report in reports for turn in report.turns]
    left = Run(
        losses=[turn.loss for turn in turns],
        norms=[turn.gradient_norm for turn in turns],
        sample_ids=[turn.sample_ids for turn in turns],
        memory=Memory([piece for found in group.gather(copies(trained)) for piece in found]),
        counters=trained.counters(),
        probe=trained.probe(trained.stream.micro_batch(0, 0))[trained.engine.model.players[-1]],
        likelihood=middle,
    )
    if isinstance(engine, DeepSpeedEngineConfig):
        trained.engine.close()
    return left


def furthest(got: list[float], expected: list[float]) -> float:
    """The largest relative difference of two runs' numbers."""
    assert len(got) == len(expected) > 0
    return max(abs(a - b) / abs(b) for a, b in zip(got, expected, strict=True))
