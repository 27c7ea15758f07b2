"""What the trainer asks of an engine: gradients of micro-batches, updates of players, and named pieces of its state."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from data_pipeline.batch import Batch
from data_pipeline.config import BadInput, Config
from pretrain.checkpoint.piece import Piece, Reader
from pretrain.contract import Carry, Loss, Model
from pretrain.group import Group

Precision = Literal["float32", "bfloat16"]
"""Of weights and activations; masters and moments are float32 always."""

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EngineSettings(Config):
    """What every engine can be told; no part of a run's identity but for the precision."""

    precision: Precision = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    activation_checkpointing: bool = False
    """Recompute the activations of each block in backward rather than keep them."""
    threads: int = Field(default=1, ge=1)
    """Of each worker on the CPU; a different number may round sums differently."""


class Engine(Protocol):
    """Computes what the trainer decides; holds parameters and optimizer state, wherever and however they are cut."""

    model: Model
    group: Group
    device: torch.device
    forward: Callable[[], AbstractContextManager[None]]
    """Entered around the forward pass of each micro-batch that is accumulated; the trainer's, to time it."""

    def begin_turn(self, player: str) -> None:
        """From here to `update` or `drop`, only `player`'s parameters receive gradients."""

    def accumulate(
        self, batch: Batch, carry: Carry | None, *, player: str, step: int, scale: float, last: bool
    ) -> Loss:
        """Forward and backward of one micro-batch; adds `scale` times its gradient. `last`: of this worker's share."""

    def update(self, player: str, learning_rate: float) -> float:
        """Sum gradients over workers, clip, move the player's parameters; returns the norm before clipping.

        Where that is not finite nothing moves.
        """

    def drop(self, player: str) -> None:
        """Instead of `update`: forget the gradients since `begin_turn`, finite or not, and move nothing; collective.

        What follows is the same in every bit as if the turn had never begun. The carries are the caller's to put back.
        """

    def score(self, batch: Batch, carry: Carry | None, *, player: str, step: int) -> Loss:
        """The objective alone, in evaluation mode; collective: every worker calls it alike."""

    def pieces(self) -> list[Piece]:
        """The state that this worker owns: over all workers, every tensor is covered once."""

    def replicas(self) -> Iterator[tuple[str, Tensor]]:
        """What every worker must hold with equal bits between two turns, by name; the tensors themselves, no copies.

        `weights/` and the optimizer's moments (`exp_avg/`, `exp_avg_sq/`; plain gradient descent has none) where whole;
        `computed/`: weights that the model computes with, where they are others; `buffers/`. The same names in the same
        order on every worker.
        """

    def restore(self, reader: Reader, updates: dict[str, int]) -> None:
        """Read back what this worker needs; `updates` counts the updates that each player has had."""


def choose_device(name: str, group: Group) -> torch.device:
    """`auto`: this worker's accelerator where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise BadInput("engine.device is 'cuda', but torch sees no CUDA device here; use 'auto' or 'cpu'")
        torch.cuda.set_device(group.local_rank)
        return torch.device("cuda", group.local_rank)
    return torch.device(name)


def enable_activation_checkpointing(model: Model) -> None:
    """Recompute the activations of each block in backward rather than keep them."""
    if not hasattr(model, "checkpoint_activations"):
        raise BadInput(
            f"engine.activation_checkpointing: {type(model).__name__} has no blocks to recompute; turn it off"
        )
    model.checkpoint_activations = True  # type: ignore[assignment]


def freeze_others(model: Model, player: str) -> None:
    """Let only `player`'s parameters require gradients."""
    if len(model.players) == 1:
        return
    for other in model.players:
        for _, parameter in model.player_parameters(other):
            parameter.requires_grad_(other == player)


def buffer_pieces(model: nn.Module) -> list[Piece]:
    """The model's persistent buffers, which are the same on every worker."""
    persistent = model.state_dict(keep_vars=True)
    return [
        Piece(f"buffers/{name}", tuple(buffer.shape), 0, buffer.reshape(-1))
        for name, buffer in model.named_buffers()
        if name in persistent
    ]


def restore_buffers(model: nn.Module, reader: Reader) -> None:
    """Copy the saved buffers in place."""
    for piece in buffer_pieces(model):
        piece.tensor.copy_(reader.read(piece.name, 0, piece.tensor.numel()))


def named_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All buffers as replicas, those that are not saved too."""
    return ((f"buffers/{name}", buffer) for name, buffer in model.named_buffers())
