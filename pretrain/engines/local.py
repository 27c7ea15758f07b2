"""The local engine: plain torch, the specification that every other engine is compared with.

Weights are replicated; gradients of all workers are summed in one flat float32 buffer. In bfloat16 the optimizer moves
float32 masters, gradients are accumulated in float32 over micro-batches, and the weights are rounded copies.

With the canonical reduction the gradients of micro-batches are summed in a fixed tree (`tree_sum`), so that any number
of workers gives equal bits.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
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
    named_buffers,
    restore_buffers,
)
from pretrain.engines.rounding import adopt, round_weights
from pretrain.engines.tree_sum import CanonicalReduction
from pretrain.group import Group
from pretrain.optim import OptimizerConfig


class LocalEngineConfig(EngineSettings):
    """Plain torch, data parallel."""

    kind: Literal["local"]
    reduction: Literal["fast", "canonical"] = "fast"
    """How gradients are summed over micro-batches and workers. fast: as they come, then over the workers at once.
    canonical: in a tree over the micro-batches, the same for every number of workers; slower, for proofs."""

    def build(
        self, model: Model, optimizers: dict[str, OptimizerConfig], group: Group, micro_batches: int
    ) -> "LocalEngine":
        return LocalEngine(self, model, optimizers, group, micro_batches)


class LocalEngine:
    """See `pretrain.engines.engine.Engine`."""

    def __init__(
        self,
        config: LocalEngineConfig,
        model: Model,
        optimizers: dict[str, OptimizerConfig],
        group: Group,
        micro_batches: int,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.device = choose_device(config.device, group)
        self.model, self.group = model.to(self.device), group
        self.forward: Callable[[], AbstractContextManager[None]] = nullcontext
        if config.activation_checkpointing:
            enable_activation_checkpointing(model)
        self.names = {player: [name for name, _ in model.player_parameters(player)] for player in model.players}
        self.canonical = CanonicalReduction(micro_batches, group) if config.reduction == "canonical" else None
        weights = dict(model.named_parameters())
        self.masters = round_weights(weights, DTYPES[config.precision])
        self.rounded = [(m, weights[name]) for name, m in self.masters.items() if m is not weights[name]]
        """(float32 master, rounded weight) where they are two."""
        self.changes_weights = type(model).after_turn is not Model.after_turn
        self.clips = {player: optimizers[player].gradient_clip for player in model.players}
        self.moments = {player: optimizers[player].moments for player in model.players}
        self.optimizers = {
            player: optimizers[player].build(self.masters[name] for name in self.names[player])
            for player in model.players
        }

    def begin_turn(self, player: str) -> None:
        freeze_others(self.model, player)
        self.model.train()

    def accumulate(
        self, batch: Batch, carry: Carry | None, *, player: str, step: int, scale: float, last: bool
    ) -> Loss:
        with self.forward():
            loss = self.model(to_device(batch, self.device), carry, player=player, step=step)
        (loss.total * scale).backward()
        if self.canonical is not None:
            self.canonical.add(take_gradients(self._parameters(player)))
        return loss

    def update(self, player: str, learning_rate: float) -> float:
        self._adopt()
        parameters = self._parameters(player)
        self._reduce(parameters)
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

    def drop(self, player: str) -> None:
        self.optimizers[player].zero_grad(set_to_none=True)
        if self.canonical is not None:
            self.canonical.begin()

    def _parameters(self, player: str) -> list[nn.Parameter]:
        return [self.masters[name] for name in self.names[player]]

    def _reduce(self, parameters: list[nn.Parameter]) -> None:
        """Every parameter's gradient becomes the sum over all micro-batches."""
        if self.canonical is not None:
            set_gradients(parameters, self.canonical.total())
        elif self.group.world_size > 1:
            set_gradients(parameters, self.group.all_reduce_sum(take_gradients(parameters)))
        else:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _adopt(self) -> None:
        """Bring what the model itself has changed in its weights (`Model.after_turn`) into the masters."""
        for master, weight in self.rounded if self.changes_weights else ():
            adopt(master, weight)

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
                moments = self.moments[player]
                state = optimizer.state.get(parameter) or {m: torch.zeros_like(parameter) for m in moments}
                found += [Piece(f"{m}/{name}", tuple(parameter.shape), 0, state[m].reshape(-1)) for m in moments]
        return found + buffer_pieces(self.model)

    def replicas(self) -> Iterator[tuple[str, Tensor]]:
        weights = dict(self.model.named_parameters())
        for name, master in self.masters.items():
            yield f"weights/{name}", master.detach()
            if weights[name] is not master:
                yield f"computed/{name}", weights[name].detach()
        for player, optimizer in self.optimizers.items():
            for name, parameter in zip(self.names[player], self._parameters(player), strict=True):
                if parameter in optimizer.state:
                    yield from ((f"{m}/{name}", optimizer.state[parameter][m]) for m in self.moments[player])
        yield from named_buffers(self.model)

    @torch.no_grad()
    def restore(self, reader: Reader, updates: dict[str, int]) -> None:
        for player, optimizer in self.optimizers.items():
            for name in self.names[player]:
                parameter = self.masters[name]
                parameter.copy_(reader.read(f"weights/{name}", 0, parameter.numel()).view_as(parameter))
                optimizer.state.pop(parameter, None)  # of another course of the run
                if updates[player] and self.moments[player]:
                    moments = {m: reader.read(f"{m}/{name}", 0, parameter.numel()) for m in self.moments[player]}
                    optimizer.state[parameter] = {
                        "step": torch.tensor(float(updates[player]), device=self.device),
                        **{m: value.view(parameter.shape).to(parameter) for m, value in moments.items()},
                    }
        restore_buffers(self.model, reader)
        self._round()


def take_gradients(parameters: list[nn.Parameter]) -> Tensor:
    """[n] all gradients one after the other, zeros where a parameter has none; they are taken off the parameters."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def set_gradients(parameters: list[nn.Parameter], flat: Tensor) -> None:
    """The reverse of `take_gradients`: every gradient is a view of `flat` [n]."""
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = gradient.view_as(parameter)
