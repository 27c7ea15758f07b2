"""The local engine: plain torch, the specification that every other engine is compared with.

Weights are replicated; gradients of all workers are summed in one flat float32 buffer. In bfloat16 the optimizer moves
float32 masters, gradients are accumulated in float32 over micro-batches, and the weights are rounded copies.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from data_pipeline.batch import Batch, to_device
from pretrain.checkpoint.piece import Piece, Reader
from pretrain.contract import Carry, Loss, Model
from pretrain.engines.engine import (
    DTYPES,
    EngineSettings,
    buffer_pieces,
    choose_device,
    enable_activation_checkpointing,
    freeze_others,
    restore_buffers,
)
from pretrain.group import Group
from pretrain.optim import MOMENTS, OptimizerConfig


class LocalEngineConfig(EngineSettings):
    """Plain torch, data parallel."""

    kind: Literal["local"]

    def build(
        self, model: Model, optimizers: dict[str, OptimizerConfig], group: Group, micro_batches: int
    ) -> "LocalEngine":
        return LocalEngine(self, model, optimizers, group)


class LocalEngine:
    """See `pretrain.engines.engine.Engine`."""

    def __init__(
        self, config: LocalEngineConfig, model: Model, optimizers: dict[str, OptimizerConfig], group: Group
    ) -> None:
        torch.set_num_threads(config.threads)
        self.device = choose_device(config.device, group)
        self.model, self.group = model.to(self.device), group
        if config.activation_checkpointing:
            enable_activation_checkpointing(model)
        self.names = {player: [name for name, _ in model.player_parameters(player)] for player in model.players}
        self.masters = self._masters(DTYPES[config.precision])
        weights = dict(model.named_parameters())
        self.rounded = [(m, weights[name]) for name, m in self.masters.items() if m is not weights[name]]
        """(float32 master, rounded weight) where they are two."""
        self.changes_weights = type(model).after_turn is not Model.after_turn
        self.clips = {player: optimizers[player].gradient_clip for player in model.players}
        self.optimizers = {
            player: optimizers[player].build(self.masters[name] for name in self.names[player])
            for player in model.players
        }

    def _masters(self, dtype: torch.dtype) -> dict[str, nn.Parameter]:
        """The float32 parameters: the model's own, or copies where the model computes in less."""
        own = dict(self.model.named_parameters())
        if dtype == torch.float32:
            return own
        masters = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in own.items()}
        for parameter in own.values():
            parameter.data = parameter.data.to(dtype)
        return masters

    def begin_turn(self, player: str) -> None:
        freeze_others(self.model, player)
        self.model.train()

    def accumulate(
        self, batch: Batch, carry: Carry | None, *, player: str, step: int, scale: float, last: bool
    ) -> Loss:
        loss = self.model(to_device(batch, self.device), carry, player=player, step=step)
        (loss.total * scale).backward()
        for master, weight in self.rounded:
            if weight.grad is not None:
                gradient = weight.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                weight.grad = None
        return loss

    def update(self, player: str, learning_rate: float) -> float:
        self._adopt()
        parameters = [self.masters[name] for name in self.names[player]]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._sum_over_workers([parameter.grad for parameter in parameters if parameter.grad is not None])
        clip = self.clips[player]
        norm = nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip)
        optimizer = self.optimizers[player]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        if norm.isfinite():
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._round()
        return float(norm)

    def _sum_over_workers(self, gradients: list[Tensor]) -> None:
        if self.group.world_size == 1:
            return
        flat = self.group.all_reduce_sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    @torch.no_grad()
    def _adopt(self) -> None:
        """Bring what the model itself has changed in its weights (`Model.after_turn`) into the masters."""
        for master, weight in self.rounded if self.changes_weights else ():
            master.copy_(torch.where(weight == master.to(weight.dtype), master, weight.float()))

    @torch.no_grad()
    def _round(self) -> None:
        for master, weight in self.rounded:
            weight.copy_(master)

    @torch.no_grad()
    def score(self, batch: Batch, carry: Carry | None, *, player: str, step: int) -> Loss:
        self.model.eval()
        return self.model(to_device(batch, self.device), carry, player=player, step=step)

    def pieces(self) -> list[Piece]:
        self._adopt()
        if not self.group.leads:
            return []
        found = [Piece(f"weights/{n}", tuple(p.shape), 0, p.detach().reshape(-1)) for n, p in self.masters.items()]
        for player, optimizer in self.optimizers.items():
            for name in self.names[player]:
                parameter = self.masters[name]
                state = optimizer.state.get(parameter) or {m: torch.zeros_like(parameter) for m in MOMENTS}
                found += [Piece(f"{m}/{name}", tuple(parameter.shape), 0, state[m].reshape(-1)) for m in MOMENTS]
        return found + buffer_pieces(self.model)

    @torch.no_grad()
    def restore(self, reader: Reader, updates: dict[str, int]) -> None:
        for player, optimizer in self.optimizers.items():
            for name in self.names[player]:
                parameter = self.masters[name]
                parameter.copy_(reader.read(f"weights/{name}", 0, parameter.numel()).view_as(parameter))
                if updates[player]:
                    moments = {m: reader.read(f"{m}/{name}", 0, parameter.numel()) for m in MOMENTS}
                    optimizer.state[parameter] = {
                        "step": torch.tensor(float(updates[player]), device=self.device),
                        **{m: value.view(parameter.shape).to(parameter) for m, value in moments.items()},
                    }
        restore_buffers(self.model, reader)
        self._round()
