"""An experiment's model without numbers, and what is counted on it."""

from functools import cached_property

import torch
from torch import Tensor

from pretrain.engines import DeepSpeedEngineConfig, EngineConfig, LocalEngineConfig
from pretrain.engines.engine import buffer_pieces
from pretrain.experiment import Experiment
from pretrain.models.vectors import VectorModelConfig
from pretrain.plan.division import Division
from pretrain.plan.memory import FLOAT32_BYTES, Place, Player, WorkerMemory, fullest
from pretrain.plan.passes import Passes, batch_tensors, fake_model, typical_batch
from pretrain.plan.traffic import Traffic, turn_traffic


class Subject:
    """Passes are made once for each number of rows, when they are asked for."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.engine = experiment, experiment.engine
        self.model = fake_model(experiment)
        self.passes = Passes(self.model, experiment.model)
        self.sizes = [parameter.numel() for parameter in self.model.parameters()]
        self._players: dict[int, tuple[Player, ...]] = {}

    @property
    def parameters(self) -> int:
        return sum(self.sizes)

    @property
    def embedding_parameters(self) -> int:
        return sum(p.numel() for name, p in self.model.named_parameters() if name.split(".")[0] in EMBEDDINGS)

    @cached_property
    def moments(self) -> int:
        """Elements of all players' optimizer states together."""
        kept = {player: len(optimizer.moments) for player, optimizer in self.experiment.optimizers().items()}
        return sum(kept[player] * sum(sizes) for player, sizes in self.sizes_of_players().items())

    def sizes_of_players(self) -> dict[str, list[int]]:
        """Elements of each weight, in the model's order."""
        return {
            player: [weight.numel() for _, weight in self.model.player_parameters(player)]
            for player in self.model.players
        }

    def stages(self) -> tuple[int, ...]:
        """The ZeRO stages at which the experiment could run."""
        if isinstance(self.engine, LocalEngineConfig):
            return (0,)
        config = self.experiment.model
        whole = config.reads_whole_weights if isinstance(config, VectorModelConfig) else None
        return (0, 1, 2, 3) if len(self.model.players) == 1 and whole is None else (0, 1, 2)

    def memory(self, division: Division, zero_stage: int) -> WorkerMemory:
        """Of one worker."""
        place = Place(self.engine, zero_stage, division.workers, division.micro_batches)
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
        turns, sizes = self.model.turns(0), self.sizes_of_players()
        found = [
            turn_traffic(sizes[player], self.engine, zero_stage, division.workers, division.micro_batches)
            for player in turns
        ]
        return Traffic(sum(turn.gradients for turn in found), sum(turn.weights for turn in found))

    def count_per_step(self, division: Division) -> int:
        """Over all micro-batches and turns."""
        batch = _drawn(self.experiment, self.experiment.batch.rows)
        in_all = division.micro_batches * division.rows
        return in_all * self.model.count(batch) // self.experiment.batch.rows * len(self.model.turns(0))

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

    def _leader_bytes(self, rows: int) -> int:
        buffers = sum(_bytes(piece.tensor) for piece in buffer_pieces(self.model))
        return buffers + sum(map(_bytes, batch_tensors(_drawn(self.experiment, rows))))

    def _carry_bytes(self, rows: int) -> int:
        return sum(map(_bytes, (self.model.initial_carry(rows) or {}).values()))

    def _optimizer_elements(self, place: Place) -> int:
        masters = self.parameters if self.engine.precision != "float32" or place.zero_stage else 0
        return place.share(masters) + place.share(self.moments) if place.zero_stage else masters + self.moments

    def _players_of(self, rows: int) -> tuple[Player, ...]:
        if rows not in self._players:
            optimizers = self.experiment.optimizers()
            self._players[rows] = tuple(
                Player(
                    tuple(
                        tuple(weight.numel() for weight in group["params"])
                        for group in optimizers[player].groups(w for _, w in self.model.player_parameters(player))
                    ),
                    self.passes.of(rows, player),
                )
                for player in self.model.players
            )
        return self._players[rows]


EMBEDDINGS = {"vocabulary", "positions"}


def resident_elements(sizes: list[int], engine: EngineConfig, zero_stage: int, workers: int) -> int:
    """Of the weights that a worker keeps between steps."""
    if zero_stage < 3:
        return sum(sizes)
    whole_below = engine.whole_below if isinstance(engine, DeepSpeedEngineConfig) else 0
    return sum(size if size <= whole_below else -(-size // workers) for size in sizes)


def _drawn(experiment: Experiment, rows: int):
    with torch.random.fork_rng():
        return typical_batch(experiment.model, rows)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
