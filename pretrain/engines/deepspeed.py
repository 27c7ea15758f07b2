"""The DeepSpeed engine: weights, gradients and optimizer state cut over the workers by ZeRO stage.

Rajbhandari et al. 2020 (https://arxiv.org/abs/1910.02054): stage 0 replicates all, 1 cuts the optimizer's state, 2 the
gradients as well, 3 the weights as well. Each player has a DeepSpeed engine of its own over the one model. The numbers
are those of the local engine up to the order of a sum: gradients of micro-batches and workers are added up in float32
and never averaged, optimizer and clipping are the same, and masters and moments are float32.

Only `pretrain.engines.deepspeed_*` import `deepspeed`, and only when an engine is built.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from data_pipeline.batch import Batch, to_device
from data_pipeline.config import BadInput, Corrupt
from pretrain.checkpoint.piece import Piece, Reader
from pretrain.contract import Carry, Loss, Model
from pretrain.engines.deepspeed_player import DeepSpeedPlayer
from pretrain.engines.deepspeed_start import start
from pretrain.engines.engine import (
    DTYPES,
    EngineSettings,
    buffer_pieces,
    choose_device,
    enable_activation_checkpointing,
    freeze_others,
    named_buffers,
    restore_buffers,
)
from pretrain.group import Group
from pretrain.optim import OptimizerConfig

REUSE_DISTANCE = 1_000_000_000
"""Stage 3: a weight stays whole where fewer elements of others are used before its next use; DeepSpeed's default."""


class DeepSpeedEngineConfig(EngineSettings):
    """ZeRO data parallelism."""

    kind: Literal["deepspeed"]
    zero_stage: Literal[0, 1, 2, 3] = 1
    bucket_size: int = Field(default=100_000_000, ge=2)
    """Gradients or weights that travel at a time."""
    whole_below: int = Field(default=100_000, ge=0)
    """Stage 3: parameters of no more elements stay whole on every worker between steps."""

    def build(
        self, model: Model, optimizers: dict[str, OptimizerConfig], group: Group, micro_batches: int
    ) -> "DeepSpeedEngine":
        return DeepSpeedEngine(self, model, optimizers, group)

    def settings(self, optimizer: OptimizerConfig, num_parameters: int) -> dict[str, Any]:
        """DeepSpeed's own configuration for one player."""
        bucket = 2 * -(-min(self.bucket_size, num_parameters) // 2)
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "steps_per_print": None,
            "gradient_clipping": (optimizer.gradient_clip or 0.0) if self.zero_stage else 0.0,
            "zero_allow_untested_optimizer": True,
            "gradient_allreduce_op": "mean" if self.zero_stage == 3 else "sum",
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            "bf16": {
                "enabled": self.precision == "bfloat16" and self.zero_stage > 0,
                "immediate_grad_update": True,
            },
            "zero_optimization": {
                "stage": self.zero_stage,
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": bucket,
                "stage3_prefetch_bucket_size": bucket,
                "stage3_param_persistence_threshold": self.whole_below,
                "stage3_max_reuse_distance": REUSE_DISTANCE,
            },
        }


class DeepSpeedEngine:
    """See `pretrain.engines.engine.Engine`."""

    def __init__(
        self, config: DeepSpeedEngineConfig, model: Model, optimizers: dict[str, OptimizerConfig], group: Group
    ) -> None:
        check_can_cut(model, config.zero_stage)
        torch.set_num_threads(config.threads)
        self.device = choose_device(config.device, group)
        self.model, self.group, self.stage = model.to(self.device), group, config.zero_stage
        self.forward: Callable[[], AbstractContextManager[None]] = nullcontext
        if config.activation_checkpointing:
            enable_activation_checkpointing(model)
        start(group, self.device)
        self.players = {
            player: DeepSpeedPlayer(
                model,
                player,
                optimizers[player],
                group,
                stage=config.zero_stage,
                dtype=DTYPES[config.precision],
                settings=config.settings(
                    optimizers[player], sum(p.numel() for _, p in model.player_parameters(player))
                ),
            )
            for player in model.players
        }
        self.changes_weights = type(model).after_turn is not Model.after_turn

    def begin_turn(self, player: str) -> None:
        freeze_others(self.model, player)
        self.model.train()

    def accumulate(
        self, batch: Batch, carry: Carry | None, *, player: str, step: int, scale: float, last: bool
    ) -> Loss:
        batch = to_device(batch, self.device)
        with self.forward():
            total = self.players[player].forward(batch, carry, step=step, last=last)
        return self.players[player].backward(total * scale)

    def update(self, player: str, learning_rate: float) -> float:
        if self.changes_weights:
            self.players[player].adopt_weights()
        return self.players[player].update(learning_rate)

    def drop(self, player: str) -> None:
        self.players[player].drop()

    @torch.no_grad()
    def score(self, batch: Batch, carry: Carry | None, *, player: str, step: int) -> Loss:
        self.model.eval()
        return self.players[player].score(to_device(batch, self.device), carry, step=step)

    def pieces(self) -> list[Piece]:
        found: list[Piece] = []
        for player in self.players.values():
            if self.changes_weights:
                player.adopt_weights()
            for shard in player.shards if self.stage or self.group.leads else ():
                parts = {"weights": shard.of(shard.moved)} | {m: player.moment(shard, m) for m in player.moments}
                found += [Piece(f"{k}/{shard.name}", shard.shape, shard.start, part) for k, part in parts.items()]
        return found + (buffer_pieces(self.model) if self.group.leads else [])

    def replicas(self) -> Iterator[tuple[str, Tensor]]:
        for player in self.players.values():
            yield from player.replicas()
        yield from named_buffers(self.model)

    @torch.no_grad()
    def restore(self, reader: Reader, updates: dict[str, int]) -> None:
        damage = None
        try:
            for name, player in self.players.items():
                self._restore_own(player, reader, updates[name])
            restore_buffers(self.model, reader)
        except Corrupt as error:  # perhaps on this worker alone, and the others are about to exchange weights
            damage = error
        damages = self.group.agree(damage)
        if damages:
            raise Corrupt("; ".join(damages)) from damage
        for player in self.players.values():
            player.refresh_weights()

    def _restore_own(self, player: DeepSpeedPlayer, reader: Reader, updates: int) -> None:
        """What this worker holds of one player's state."""
        for shard in player.shards:
            shard.of(shard.moved).copy_(reader.read(f"weights/{shard.name}", shard.start, shard.count))
            if updates:
                moments = {m: reader.read(f"{m}/{shard.name}", shard.start, shard.count) for m in player.moments}
                player.restore_moments(shard, moments, updates)
            else:
                player.forget_moments(shard)

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Within, every worker may call any method of the model, alike or not; entered and left by all together."""
        with ExitStack() as stack:
            for player in self.players.values():
                stack.enter_context(player.whole_weights())
            yield

    def close(self) -> None:
        """Take DeepSpeed off the model, so that another engine may be built in this process."""
        for player in self.players.values():
            player.close()


def check_can_cut(model: Model, stage: int) -> None:
    """Raise BadInput where stage 3, which leaves no worker with whole weights between steps, cannot train the model."""
    if stage < 3:
        return
    rule = f"engine.zero_stage=3 cuts every weight of {type(model).__name__} between steps"
    if len(model.players) > 1:
        raise BadInput(f"{rule}, but it has the players {', '.join(model.players)}; use engine.zero_stage 0, 1 or 2")
    if type(model).after_turn is not Model.after_turn:
        raise BadInput(f"{rule}, but its after_turn changes them whole; use engine.zero_stage 0, 1 or 2")
