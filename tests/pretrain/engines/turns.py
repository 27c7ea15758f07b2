"""What workers do to prove two promises of an engine: a dropped turn leaves nothing behind, and replicas are alike."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pretrain.contract import Model
from pretrain.engines.deepspeed import DeepSpeedEngineConfig
from pretrain.group import Group
from pretrain.trainer import Trainer
from tests.pretrain.engines.runs import (
    PRECISIONS,
    STAGES,
    Clipped,
    Memory,
    Sometimes,
    copies,
    engine,
    local,
    trainer,
    transformer_xl,
    zero,
)

OTHER_DRAW = 50
SCALES = {"finite": 1.0, "not a number": float("nan"), "infinite": float("inf")}
Key = tuple[str, str]


def engines(precision: str) -> dict[str, Any]:
    """By name."""
    found = {"local": local(precision=precision), "canonical": local(precision=precision, reduction="canonical")}
    return found | {f"zero {stage}": engine(stage, precision) for stage in STAGES}


def dropped(group: Group) -> dict[tuple[str, str, str], list[str]]:
    """By (model, engine, precision): what differs from a run without, in a run with turns that were dropped."""
    left = {}
    for precision in PRECISIONS:
        for name, chosen in engines(precision).items():
            left["transformer_xl", name, precision] = _traces(chosen, group, transformer_xl)
    for name, chosen in engines("float32").items():
        left["sometimes", name, "float32"] = _traces(chosen, group, Sometimes)
        if name != "zero 3":
            left["game", name, "float32"] = _traces(chosen, group, Clipped)
    return left


def _traces(chosen: Any, group: Group, model: Callable[[], Model]) -> list[str]:
    """A step, turns that are dropped, and another step; against two steps and nothing between them."""
    calm, disturbed = (_state(chosen, group, model, disturb=disturb) for disturb in (False, True))
    assert all(bool(tensor.isfinite().all()) for tensor in calm.values())
    return [name for name in calm if _bits(calm[name]) != _bits(disturbed[name])]


def _state(chosen: Any, group: Group, model: Callable[[], Model], *, disturb: bool) -> dict[str, Tensor]:
    """All that a run leaves: weights, moments, carry and the probe that its weights compute."""
    trained = trainer(chosen, group, model=model)
    next(trained.steps())
    for scale in SCALES.values() if disturb else ():
        for player in trained.engine.model.players:
            drop(trained, player, scale)
    next(trained.steps())
    left = Memory([piece for found in group.gather(copies(trained)) for piece in found]).tensors
    left["probe"] = torch.tensor(list(trained.probe(trained.stream.micro_batch(0, 0)).values()))
    if isinstance(chosen, DeepSpeedEngineConfig):
        trained.engine.close()
    return left


def drop(trained: Trainer, player: str, scale: float) -> None:
    """A whole turn on other data, dropped; only the first worker's last micro-batch is scaled."""
    trained.engine.begin_turn(player)
    for index, micro_batch in enumerate(trained.share):
        last = micro_batch == trained.share[-1]
        trained.engine.accumulate(
            trained.stream.micro_batch(OTHER_DRAW, micro_batch),
            trained.carries[index],
            player=player,
            step=0,
            scale=scale if last and trained.engine.group.leads else 1.0,
            last=last,
        )
    trained.engine.drop(player)


def replicas(group: Group) -> dict[Key, tuple[list[str], list[str], list[str]]]:
    """By (engine, precision): names of replicas; which differ after three steps; which after one bit was flipped."""
    left = {}
    for precision in PRECISIONS:
        for name, chosen in engines(precision).items():
            if name == "zero 3":  # where only small parameters stay whole
                chosen = zero(3, precision=precision, whole_below=100)
            left[name, precision] = _replicas(chosen, group, transformer_xl)
            if name != "zero 3":
                left[f"game, {name}", precision] = _replicas(chosen, group, Clipped)
    return left


def _replicas(chosen: Any, group: Group, model: Callable[[], Model]) -> tuple[list[str], list[str], list[str]]:
    trained = trainer(chosen, group, model=model)
    list(islice(trained.steps(), 3))
    names, before = [name for name, _ in trained.engine.replicas()], differing(trained)
    if not group.leads:
        first = next(tensor for _, tensor in trained.engine.replicas())
        first.view(-1).view(torch.uint8)[0] ^= 1
    after = differing(trained)
    if isinstance(chosen, DeepSpeedEngineConfig):
        trained.engine.close()
    return names, before, after


def differing(trained: Trainer) -> list[str]:
    """Names of replicas that have not the same bits on every worker."""
    mine = {name: _bits(tensor) for name, tensor in trained.engine.replicas()}
    everyone = trained.engine.group.gather(mine)
    assert all(list(other) == list(mine) for other in everyone)
    return [name for name, bits in mine.items() if any(other[name] != bits for other in everyone)]


def _bits(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
