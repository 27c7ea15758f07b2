"""An experiment's model without numbers, and what is counted on it."""

from functools import cached_property

import torch
from torch import Tensor

from data_pipeline.batch import Batch
from pretrain.engines import DeepSpeedEngineConfig, EngineConfig, LocalEngineConfig
from pretrain.engines.engine import buffer_pieces
from pretrain.experiment import Experiment
from pretrain.models.vectors import VectorModelConfig
from pretrain.plan.division import Division
from pretrain.plan.gathering import NOTHING, Gathering, gathering
from pretrain.plan.memory import WorkerMemory, fullest, starting
from pretrain.plan.moments import FLOAT32_BYTES, Place, Player
from pretrain.plan.passes import Passes, batch_tensors, fake_model, typical_batch
from pretrain.plan.traffic import Traffic, turn_traffic

EMBEDDINGS = {"vocabulary", "positions"}
"""Parts of language models that hold them."""


class Subject:
    """Passes are made once for each number of rows, when they are asked for; `on_gpu`: with the kernels of a GPU."""

    def __init__(self, experiment: Experiment, *, on_gpu: bool = False) -> None:
        self.experiment, self.engine = experiment, experiment.engine
        self.model = fake_model(experiment, on_gpu=on_gpu)
        self.passes = Passes(self.model, experiment.model, on_gpu=on_gpu)
        self.sizes = [parameter.numel() for parameter in self.model.parameters()]
        self._players: dict[int, tuple[Player, ...]] = {}

    @cached_property
    def parameters(self) -> int:
        return sum(self.sizes)

    @property
    def embedding_parameters(self) -> int:
        return sum(p.numel() for name, p in self.model.named_parameters() if name.split(".")[0] in EMBEDDINGS)

    @cached_property
    def moments(self) -> int:
        """Elements of all players' optimizer states together."""
        kept = {player: len(optimizer.moments) for player, optimizer in self.experiment.optimizers().items()}
        return sum(kept[player] * sum(sizes) for player, sizes in self.sizes_of_players.items())

    @cached_property
    def sizes_of_players(self) -> dict[str, list[int]]:
        """Elements of each weight, in the model's order."""
        return {
            player: [weight.numel() for _, weight in self.model.player_parameters(player)]
            for player in self.model.players
        }

    @cached_property
    def gathering(self) -> Gathering:
        """Of ZeRO stage 3, where the experiment could run at it."""
        if not isinstance(self.engine, DeepSpeedEngineConfig) or 3 not in self.stages():
            return NOTHING
        sizes = {name: weight.numel() for name, weight in self.model.named_parameters()}
        return gathering(sizes, self.passes.calls(), self.engine)

    def stages(self) -> tuple[int, ...]:
        """The ZeRO stages at which the experiment could run."""
        if isinstance(self.engine, LocalEngineConfig):
            return (0,)
        config = self.experiment.model
        whole = config.reads_whole_weights if isinstance(config, VectorModelConfig) else None
        return (0, 1, 2, 3) if len(self.model.players) == 1 and whole is None else (0, 1, 2)

    def starting(self, division: Division, zero_stage: int) -> int:
        """Bytes of one worker before the first step."""
        return starting(self._place(division, zero_stage), self.parameters)

    def memory(self, division: Division, zero_stage: int) -> WorkerMemory:
        """Of one worker in a step."""
        place = self._place(division, zero_stage)
        carry = 2 * division.each * self._carry_bytes(division.rows)
        saving = self.worker_checkpoint_bytes(division, zero_stage) if self.experiment.checkpoint.background else 0
        resting = WorkerMemory(
            weights=place.itemsize * resident_elements(self.sizes, self.engine, zero_stage, division.workers),
            gradients=0,
            optimizer=FLOAT32_BYTES * self._optimizer_elements(place),
            activations=0,
            working=0,
            carry=carry,
            communication=0,
            saving=saving,
        )
        return fullest(resting, place, self._players_of(division.rows))

    def traffic(self, division: Division, zero_stage: int) -> Traffic:
        """Of one worker in a step."""
        place = (self.engine, zero_stage, division.workers, division.micro_batches)
        sizes = self.sizes_of_players
        found = [turn_traffic(sum(sizes[player]), *place, self.gathering) for player in self.model.turns(0)]
        return Traffic(sum(turn.gradients for turn in found), sum(turn.weights for turn in found))

    def count_per_step(self, division: Division) -> int:
        """Over all micro-batches and turns."""
        return division.micro_batches * division.rows * self._count_of_row * len(self.model.turns(0))

    @cached_property
    def _count_of_row(self) -> int:
        return self.model.count(self._row)

    @cached_property
    def _row(self) -> Batch:
        """A micro-batch of one."""
        with torch.random.fork_rng():
            return typical_batch(self.experiment.model, 1)

    def checkpoint_bytes(self, division: Division) -> int:
        """On disk: float32 weights and moments, buffers, the carry of all micro-batches, the probe's micro-batch."""
        carries = division.micro_batches * self._carry_bytes(division.rows)
        return FLOAT32_BYTES * (self.parameters + self.moments) + carries + self._leader_bytes(division.rows)

    def worker_checkpoint_bytes(self, division: Division, zero_stage: int) -> int:
        """What the leader writes: as much as any worker, and buffers and the probe."""
        cut = division.workers if zero_stage else 1
        owned = -(-self.parameters // cut) + -(-self.moments // cut)
        return (
            FLOAT32_BYTES * owned + division.each * self._carry_bytes(division.rows) + self._leader_bytes(division.rows)
        )

    def _place(self, division: Division, zero_stage: int) -> Place:
        return Place(self.engine, zero_stage, division.workers, division.micro_batches)

    def _leader_bytes(self, rows: int) -> int:
        return self._buffer_bytes + rows * sum(map(_bytes, batch_tensors(self._row)))

    @cached_property
    def _buffer_bytes(self) -> int:
        return sum(_bytes(piece.tensor) for piece in buffer_pieces(self.model))

    def _carry_bytes(self, rows: int) -> int:
        return rows * self._carry_of_row

    @cached_property
    def _carry_of_row(self) -> int:
        """Bytes."""
        return sum(map(_bytes, (self.model.initial_carry(1) or {}).values()))

    def _optimizer_elements(self, place: Place) -> int:
        masters = self.parameters if self.engine.precision != "float32" or place.zero_stage else 0
        return place.share(masters) + place.share(self.moments) if place.zero_stage else masters + self.moments

    def _players_of(self, rows: int) -> tuple[Player, ...]:
        if rows not in self._players:
            optimizers = self.experiment.optimizers()
            self._players[rows] = tuple(
                Player(
                    in_order=tuple(self.sizes_of_players[player]),
                    groups=tuple(
                        tuple(weight.numel() for weight in group["params"])
                        for group in optimizers[player].groups(w for _, w in self.model.player_parameters(player))
                    ),
                    passes=self.passes.of(rows, player),
                    gathering=self.gathering,
                )
                for player in self.model.players
            )
        return self._players[rows]


def resident_elements(sizes: list[int], engine: EngineConfig, zero_stage: int, workers: int) -> int:
    """Of the weights that a worker keeps between steps."""
    if zero_stage < 3:
        return sum(sizes)
    whole_below = engine.whole_below if isinstance(engine, DeepSpeedEngineConfig) else 0
    return sum(size if size <= whole_below else -(-size // workers) for size in sizes)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
