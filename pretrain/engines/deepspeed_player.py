"""One player's parameters under DeepSpeed: its objective, optimizer, gradients and float32 masters."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_pipeline.batch import Batch
from pretrain.contract import Carry, Loss, Model
from pretrain.engines.deepspeed_shards import (
    Shard,
    across_parameters,
    forget_gradients,
    refresh_sharded_weights,
    sharded_gradients,
    whole,
    within_parameters,
)
from pretrain.engines.rounding import adopt, round_weights
from pretrain.group import Group
from pretrain.optim import OptimizerConfig


class Objective(nn.Module):
    """What DeepSpeed takes for the model: a tensor comes out of it, and it has the parameters of one player alone.

    Stage 3 hooks every submodule, and wants tensors in their outputs. So there `owned` is the model, but its `forward`
    is called without its hooks: parameters that it uses itself (tied embeddings, shared biases) become external
    parameters of this module, whole from the beginning of forward to the end of backward.
    """

    def __init__(self, model: Model, owned: Model | Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.owned = owned if isinstance(owned, nn.Module) else nn.ParameterList(owned)
        self.call = model.forward if owned is model else model.__call__
        self.loss: Loss | None = None

    def forward(self, *, batch: Batch, carry: Carry | None, player: str, step: int) -> Tensor:
        self.loss = self.call(batch, carry, player=player, step=step)
        return self.loss.total

    def take(self) -> Loss:
        """The last loss, which is kept no longer."""
        loss, self.loss = self.loss, None
        assert loss is not None
        return loss


class DeepSpeedPlayer:
    """A DeepSpeed engine and what it needs beside it; `settings` is DeepSpeed's own configuration."""

    def __init__(
        self,
        model: Model,
        player: str,
        optimizer: OptimizerConfig,
        group: Group,
        *,
        stage: int,
        dtype: torch.dtype,
        settings: dict[str, Any],
    ) -> None:
        self.player, self.group, self.stage = player, group, stage
        self.clip, self.moments = optimizer.gradient_clip, optimizer.moments
        self.weights = dict(model.player_parameters(player))
        rounds = dtype != torch.float32
        initial = {name: w.detach().clone() for name, w in self.weights.items()} if rounds and stage > 0 else {}
        moved = round_weights(self.weights, dtype) if stage == 0 else self.weights
        self.linear = functional.linear
        self.objective = Objective(model, model if stage == 3 else moved.values())
        self.optimizer = optimizer.build(moved.values())
        self.engine = self._initialize(settings)
        self.shards = list(self._shards(moved))
        self.masters_differ = rounds or stage > 0
        for shard in self.shards if initial else ():  # DeepSpeed has made its masters from rounded weights
            shard.of(shard.moved).copy_(initial[shard.name].view(-1)[shard.start : shard.start + shard.count])

    def _initialize(self, settings: dict[str, Any]) -> Any:
        import deepspeed

        return deepspeed.initialize(
            model=self.objective, optimizer=self.optimizer, config=settings, dist_init_required=False
        )[0]

    def _shards(self, moved: dict[str, nn.Parameter]) -> Iterable[Shard]:
        if self.stage == 0:
            return whole(moved.items())
        if self.stage == 3:
            return within_parameters(self.weights.items(), self.engine.optimizer, self.group.rank)
        return across_parameters(self.weights.items(), self.engine.optimizer)

    def forward(self, batch: Batch, carry: Carry | None, *, step: int, last: bool) -> Tensor:
        """The objective of one micro-batch; stage 3 communicates. `last`: of this worker's share."""
        self.engine.set_gradient_accumulation_boundary(last)
        total: Tensor = self.engine(batch=batch, carry=carry, player=self.player, step=step)
        return total

    def backward(self, total: Tensor) -> Loss:
        """Of the last forward's objective, scaled; communicates after the last one (stages 2 and 3: after each)."""
        self.engine.backward(total, scale_wrt_gas=False)
        return self.objective.take()

    def score(self, batch: Batch, carry: Carry | None, *, step: int) -> Loss:
        """The objective alone, through DeepSpeed's hooks where they gather the weights."""
        forward = self.engine if self.stage == 3 else self.objective.forward
        forward(batch=batch, carry=carry, player=self.player, step=step)
        return self.objective.take()

    def update(self, learning_rate: float) -> float:
        """One step of the optimizer; nothing moves where a gradient is not finite. Returns the norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.stage == 0:
            return self._update_replicated()
        if self.stage == 3 and self.group.world_size > 1:
            sharded_gradients(self.engine.optimizer).mul_(self.group.world_size)
        self.engine.step()
        if self.stage == 3:
            sharded_gradients(self.engine.optimizer).zero_()
        return float(self.engine.get_global_grad_norm())

    def _update_replicated(self) -> float:
        parameters = [shard.moved for shard in self.shards]
        norm = nn.utils.clip_grad_norm_(parameters, float("inf") if self.clip is None else self.clip)
        if norm.isfinite():
            self.engine.step()
        else:
            self.engine.zero_grad()
        self.refresh_weights()
        return float(norm)

    def drop(self) -> None:
        """In place of `update`: forget the gradients; collective."""
        if self.stage == 0:
            self.engine.zero_grad()
        else:
            forget_gradients(self.engine.optimizer, self.stage)

    def replicas(self) -> Iterator[tuple[str, Tensor]]:
        """What is whole on this worker, by name; see `pretrain.engines.engine.Engine.replicas`."""
        for shard in self.shards if self.stage == 0 else ():
            yield f"weights/{shard.name}", shard.moved.detach()
            if state := self.optimizer.state.get(shard.moved):
                yield from ((f"{moment}/{shard.name}", state[moment]) for moment in self.moments)
        for name, weight in self.weights.items() if self.masters_differ else ():
            if self.stage < 3 or weight.ds_persist:  # type: ignore[attr-defined]
                yield f"computed/{name}", weight.detach()

    @torch.no_grad()
    def refresh_weights(self) -> None:
        """Make the weights that the model computes with anew from the masters; collective."""
        if self.stage == 3:
            refresh_sharded_weights(self.engine.optimizer)
        elif self.stage > 0:
            self.engine.optimizer.update_lp_params()
        elif self.masters_differ:
            for shard in self.shards:
                self.weights[shard.name].copy_(shard.moved)

    def whole_weights(self) -> AbstractContextManager[Any]:
        """Within, the model has its whole weights and no hooks; collective."""
        from deepspeed import zero

        return zero.unwrap_model_for_generation(self.engine) if self.stage == 3 else nullcontext()

    def close(self) -> None:
        """Take DeepSpeed's hooks off the parameters; stage 3 put its own `linear` in torch's place."""
        self.engine.destroy()
        functional.linear = self.linear

    def adopt_weights(self) -> None:
        """Bring what the model itself has changed in its weights (`Model.after_turn`) into the masters."""
        for shard in self.shards if self.masters_differ else ():
            weight = self.weights[shard.name].view(-1)[shard.start : shard.start + shard.count]
            adopt(shard.of(shard.moved), weight)

    def moment(self, shard: Shard, name: str) -> Tensor:
        """[count] elements of a moment: zeros before the first update."""
        state = self.optimizer.state.get(shard.moved)
        return shard.of(state[name]) if state else torch.zeros(shard.count, device=shard.moved.device)

    def forget_moments(self, shard: Shard) -> None:
        """Of another course of the run, where there was one: as before the first update."""
        if self.optimizer.state.get(shard.moved):
            self.restore_moments(shard, {name: torch.zeros(shard.count) for name in self.moments}, 0)

    def restore_moments(self, shard: Shard, moments: dict[str, Tensor], updates: int) -> None:
        """Set a shard's moments, and how many updates they have had; nothing where its optimizer has none."""
        if not moments:
            return
        state = self.optimizer.state[shard.moved]
        for name, moment in moments.items():
            if name not in state:
                state[name] = torch.zeros_like(shard.moved, requires_grad=False)
            shard.of(state[name]).copy_(moment)
        state["step"] = torch.tensor(float(updates), device=shard.moved.device)
