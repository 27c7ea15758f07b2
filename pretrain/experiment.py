"""Experiment: the frozen value that a run depends on, and nothing else.

Which workers compute it, with which engine and how often it logs or saves, may change from one start to the next;
`identity` is what may not.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from data_pipeline.config import BadInput, Config
from data_pipeline.data import DataConfig
from data_pipeline.pair_data import PairData
from data_pipeline.streams import Stream
from data_pipeline.vector_data import VectorData
from pretrain import config
from pretrain.engines import EngineConfig
from pretrain.group import Group, check_divides
from pretrain.kernels_config import KernelsConfig
from pretrain.models import ModelConfig, Seq2SeqConfig
from pretrain.models.vectors import VectorModelConfig
from pretrain.optim import OptimizerConfig
from pretrain.rng import INITIAL_WEIGHTS, seed_everything
from pretrain.schedules import ScheduleConfig
from pretrain.trainer import Plan, Trainer
from pretrain.trouble import TroubleConfig

EXECUTION_KEYS = (
    "name",
    "engine",
    "kernels",
    "checkpoint",
    "evaluate",
    "log",
    "supervision",
    "data.directory",
    "data.corpus.directory",
    "data.verify",
    "data.sources.*.directory",
    "data.sources.*.corpus.directory",
    "data.sources.*.verify",
)
"""Keys whose change makes no other run of it: how it is computed and watched, not what is computed."""


MOST_MINUTES = 100_000.0
"""Ten weeks; what waits longer waits for ever."""


class BatchConfig(Config):
    """The atoms of a step: the same whatever the number of workers."""

    micro_batches: int = Field(gt=0)
    """G: each with its own noise and carry; the worker count must divide it."""
    rows: int = Field(gt=0)
    """Of one micro-batch."""


class CheckpointConfig(Config):
    """When to save, and what to keep."""

    every: int = Field(default=1000, gt=0)
    """Steps between two permanent ones; the last step is always saved."""
    keep: int | None = Field(default=3, ge=1)
    """The newest permanent ones; older ones are removed once a newer one is complete. None: all."""
    minutes: float | None = Field(default=None, gt=0, le=MOST_MINUTES)
    """Between two temporary ones, by the leader's clock; only the newest is kept, until a newer checkpoint is there."""
    background: bool = True
    """Copy the state, then write it while training goes on."""
    on_failure: Literal["stop", "go_on"] = "stop"
    """When a save fails, as on a full disk; the checkpoints before it are untouched."""
    timeout_minutes: float = Field(default=10.0, gt=0, le=MOST_MINUTES)
    """A save that takes longer is given up: its storage hangs."""

    def most(self, steps: int) -> int:
        """How many there are at one time in a run of so many steps, the one that is being written included."""
        permanent = -(-steps // self.every)
        return (permanent if self.keep is None else min(permanent, self.keep + 1)) + (self.minutes is not None)


class SupervisionConfig(Config):
    """How a run is watched while it is computed."""

    hang_minutes: float = Field(default=15.0, gt=0, le=MOST_MINUTES)
    """A worker that gets on with nothing for so long is taken for hung; longer than the longest phase."""
    straggler_factor: float = Field(default=1.5, gt=1.0)
    """A worker whose own work takes so many times the median of all workers' is reported."""
    replica_check_every: int | None = Field(default=100, gt=0)
    """Steps between two comparisons of what every worker holds alike; also before every save. None: only then."""
    max_failures: int = Field(default=3, ge=1)
    """In a row, without a checkpoint further on between them, after which a run gives up."""
    wait_minutes: float = Field(default=0.0, ge=0, le=MOST_MINUTES)
    """So long a start waits for room that others use, or that was lost with a node. After a loss, the run then goes on
    with as many workers as there is room for; 0: at once."""


class EvaluateConfig(Config):
    """Held-out scores while training."""

    every: int | None = Field(default=None, gt=0)
    """Steps between two; None: only when asked."""
    split: str = "valid"
    max_tokens: int | None = Field(default=None, gt=0)
    """Of the split's beginning; None: all of it."""
    tasks: tuple[str, ...] = ()
    """Benchmark tasks (`evaluate --list`) that are scored as well, by all workers."""
    tasks_directory: str | None = None
    """Files of the tasks, a folder each; None: the hub."""
    tasks_limit: int | None = Field(default=None, gt=0)
    """The first examples of each task; None: all."""

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if self.tasks and self.every is None:
            raise ValueError(
                f"evaluate.tasks=[{', '.join(self.tasks)}] with evaluate.every=null would never be scored; "
                "set evaluate.every to the steps between two scores, or leave evaluate.tasks empty"
            )
        return self


class LogConfig(Config):
    """What is written about a run."""

    every: int = Field(default=10, gt=0)
    """Steps between two lines on the screen; metrics.jsonl has every step."""
    tensorboard: bool = True


class Experiment(Config):
    """A run as a value; a recipe is one of these in YAML."""

    name: str
    seed: int = Field(default=0, ge=0)
    steps: int = Field(gt=0)
    model: ModelConfig
    data: DataConfig
    batch: BatchConfig
    optimizer: OptimizerConfig
    player_optimizers: dict[str, OptimizerConfig] = Field(default_factory=dict)
    """Settings of single players, where they differ from `optimizer`."""
    schedule: ScheduleConfig
    engine: Annotated[EngineConfig, Field(discriminator="kind")]
    kernels: KernelsConfig = KernelsConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    log: LogConfig = LogConfig()
    trouble: TroubleConfig = TroubleConfig()
    supervision: SupervisionConfig = SupervisionConfig()

    @model_validator(mode="after")
    def _check(self) -> "Experiment":
        players = self.model.players
        unknown = [player for player in self.player_optimizers if player not in players]
        if unknown:
            raise ValueError(
                f"player_optimizers.{unknown[0]}: model.kind={self.model.kind} has the players {', '.join(players)}"
            )
        for player, optimizer in self.optimizers().items():
            problem = (
                self.model.optimizer_problem(player, optimizer) if isinstance(self.model, VectorModelConfig) else None
            )
            if problem is not None:
                given = f"player_optimizers.{player}" if player in self.player_optimizers else "optimizer"
                raise ValueError(f"{given}.{problem}")
        fewest = self.model.fewest_rows if isinstance(self.model, VectorModelConfig) else 1
        if self.batch.rows < fewest:
            raise ValueError(
                f"batch.rows={self.batch.rows} is too few: model.kind={self.model.kind} takes the rows of a "
                f"micro-batch together; set batch.rows to {fewest} or more"
            )
        stage = getattr(self.engine, "zero_stage", 0)
        if stage == 3 and len(players) > 1:
            raise ValueError(
                f"engine.zero_stage=3 cuts one model's parameters, but model.kind={self.model.kind} has the players "
                f"{', '.join(players)}; use engine.zero_stage 0, 1 or 2"
            )
        whole = self.model.reads_whole_weights if isinstance(self.model, VectorModelConfig) else None
        if stage == 3 and whole is not None:
            raise ValueError(
                f"engine.zero_stage=3 leaves no worker a whole weight outside of its layer, which model.{whole} reads; "
                f"use engine.zero_stage 0, 1 or 2, or set model.{whole}=0"
            )
        if stage == 3 and self.evaluate.tasks:
            raise ValueError(
                "evaluate.tasks needs all weights on each worker, which engine.zero_stage=3 does not give; "
                "use engine.zero_stage 0, 1 or 2, or `evaluate --tasks` on the checkpoints"
            )
        if self.checkpoint.timeout_minutes >= self.supervision.hang_minutes:
            raise ValueError(
                f"checkpoint.timeout_minutes={self.checkpoint.timeout_minutes:g} is not below "
                f"supervision.hang_minutes={self.supervision.hang_minutes:g}: a worker that waits for a slow save "
                "would be taken for hung; make one smaller or the other larger"
            )
        most, window = self.checkpoint.keep, self.trouble.window
        if self.trouble.rolls_back and most is not None and (most - 1) * self.checkpoint.every < window:
            raise ValueError(
                f"checkpoint.keep={most} with checkpoint.every={self.checkpoint.every} may leave no checkpoint from "
                f"before the trouble.window={window} turns that a roll-back leaves out; keep more, or save less often"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """All that the run's numbers depend on, as plain JSON values."""
        values = self.model_dump(mode="json")
        for key in EXECUTION_KEYS:
            _leave_out(values, key.split("."))
        return values | {"precision": self.engine.precision}

    def optimizers(self) -> dict[str, OptimizerConfig]:
        """By player."""
        return {player: self.player_optimizers.get(player, self.optimizer) for player in self.model.players}

    def learning_rate(self) -> Callable[[str, int], float]:
        """(player, step) -> rate."""
        peaks = {player: optimizer.learning_rate for player, optimizer in self.optimizers().items()}
        return lambda player, step: peaks[player] * self.schedule.factor(step, self.steps)

    def plan(self) -> Plan:
        return Plan(self.seed, self.steps, self.batch.micro_batches, self.batch.rows, self.trouble)

    def check_data(self) -> None:
        """Raise BadInput unless the model can read the data: a row for every token, vectors of its shape, pairs
        of its vocabulary."""
        if isinstance(self.model, VectorModelConfig) and isinstance(self.data, VectorData):
            problem = self.model.problem(self.data)
            if problem is not None:
                raise BadInput(f"model.kind {self.model.kind} with data.kind {self.data.kind}: {problem}")
        if isinstance(self.model, Seq2SeqConfig) and isinstance(self.data, PairData):
            problem = self.model.problem(self.data)
            if problem is not None:
                raise BadInput(f"model.kind {self.model.kind} with data.kind {self.data.kind}: {problem}")
        needed, has = self.data.vocab_size(), self.model.vocabulary_size
        if needed is not None and has is not None and needed != has:
            raise BadInput(
                f"model.vocab_size is {has}, but the data has {needed} tokens; set model.vocab_size={needed}"
            )

    def stream(self, split: str = "train") -> Stream:
        """The batches of a split, by draw and micro-batch."""
        return self.data.stream(
            reads=self.model.reads,
            length=self.model.length,
            micro_batches=self.batch.micro_batches,
            rows=self.batch.rows,
            seed=self.seed,
            split=split,
        )

    def trainer(self, group: Group) -> Trainer:
        """A trainer at step 0: initial weights and carry drawn from the run's seed."""
        check_divides(group.world_size, self.batch.micro_batches)
        self.check_data()
        seed_everything(self.seed, INITIAL_WEIGHTS)
        engine = self.engine.build(self.model.build(), self.optimizers(), group, micro_batches=self.batch.micro_batches)
        self.kernels.tell(engine.model, engine.device, getattr(torch, self.engine.precision))
        return Trainer(engine=engine, stream=self.stream(), plan=self.plan(), learning_rate=self.learning_rate())


def _leave_out(values: dict[str, Any], path: Sequence[str]) -> None:
    """Remove what lies at a path of keys; `*` stands for every key."""
    first, *rest = path
    if not rest:
        values.pop(first, None)
        return
    for name in list(values) if first == "*" else [first]:
        inside = values.get(name)
        if isinstance(inside, dict):
            _leave_out(inside, rest)


def load_experiment(recipe: str, overrides: Iterable[str] = ()) -> Experiment:
    """The experiment of a recipe (a name or a YAML file), with the overrides of the command line."""
    return config.load(Experiment, config.recipe_path(recipe), tuple(overrides))
