"""What the worker processes of the engines' tests do; `conftest.py` starts them, the tests read what they left.

DeepSpeed starts slowly, so each kind of worker makes all its runs in one process.
"""

from itertools import islice
from typing import Any

import torch

from pretrain.group import Group
from tests.pretrain.engines.runs import (
    STAGES,
    Clipped,
    Memory,
    Run,
    Sometimes,
    copies,
    engine,
    run,
    trainer,
    transformer_xl,
    wgan,
    zero,
)
from tests.pretrain.engines.turns import dropped, replicas

STEPS, HALF = 20, 10
Runs = dict[Any, Run]

VARIANTS: dict[str, dict[str, Any]] = {
    "pre": {"norm": "pre", "same_length": True},
    "untied": {"vocabulary": {"kind": "full", "tied": False}, "share_biases": False},
    "adaptive": {"vocabulary": {"kind": "adaptive", "cutoffs": (8, 20), "div_val": 2, "embedding_width": 12}},
    "no memory": {"memory_length": 0},
}


def matrix(group: Group, steps: int) -> Runs:
    """By (precision, stage; None: local): a whole run, its first half, and the second half resumed from there."""
    left: Runs = {}
    for precision in ("float32", "bfloat16"):
        for stage in (None, *STAGES):
            chosen = engine(stage, precision)
            left[precision, stage, "whole"] = run(chosen, group, steps)
            left[precision, stage, "first"] = first = run(chosen, group, steps // 2)
            left[precision, stage, "second"] = run(chosen, group, steps // 2, after=first)
    return left


def game(group: Group) -> Runs:
    """By stage (None: local): a run of the game whose weights are clipped after each turn, and its resumed halves."""
    left: Runs = {}
    for stage in (None, 0, 1, 2):
        chosen = engine(stage, "float32")
        left[stage, "whole"] = run(chosen, group, HALF, model=Clipped)
        left[stage, "first"] = first = run(chosen, group, HALF // 2, model=Clipped)
        left[stage, "second"] = run(chosen, group, HALF // 2, model=Clipped, after=first)
        left[stage, "wgan"] = run(chosen, group, HALF // 2, model=wgan)
    return left


def movers(group: Group) -> dict[tuple[int, str], set[str]]:
    """By (stage, player): whose weights one turn of the player moved."""
    left = {}
    for stage in (0, 1, 2):
        trained = trainer(zero(stage), group, model=Clipped)
        for player in ("critic", "generator", "critic"):
            before = Memory(copies(trained)).tensors
            trained.engine.begin_turn(player)
            batch = trained.stream.micro_batch(0, 0)
            trained.engine.accumulate(batch, None, player=player, step=0, scale=1.0, last=True)
            trained.engine.update(player, 1e-2)
            after = Memory(copies(trained)).tensors
            moved = [n for n in before if n.startswith("weights/") and not torch.equal(before[n], after[n])]
            left[stage, player] = {name.split("/")[1].split(".")[0] for name in moved}
        trained.engine.close()
    return left


def variants(group: Group) -> Runs:
    """By (variant, stage; None: local): short runs of other Transformer-XLs, with their activations recomputed."""
    left: Runs = {}
    for name, changes in VARIANTS.items():
        for stage in (None, 3):
            chosen = engine(stage, "float32").model_copy(update={"activation_checkpointing": True})
            left[name, stage] = run(chosen, group, 5, model=lambda changes=changes: transformer_xl(**changes))
    return left


def unused(group: Group) -> Runs:
    """By stage (None: local): a model in which some weights get no gradient in some micro-batches and steps."""
    return {stage: run(engine(stage, "float32"), group, 8, model=Sometimes) for stage in (None, *STAGES)}


def spoiled(group: Group) -> dict[int, tuple[float, bool, float]]:
    """By stage: the norm of a gradient that is not a number, whether any weight moved, and the next loss."""
    left = {}
    for stage in STAGES:
        trained = trainer(zero(stage), group)
        list(islice(trained.steps(), 2))
        before = Memory(copies(trained))
        batch = trained.stream.micro_batch(0, 0)
        trained.engine.begin_turn("model")
        trained.engine.accumulate(batch, trained.carries[0], player="model", step=2, scale=float("nan"), last=True)
        norm = trained.engine.update("model", 1e-2)
        after = Memory(copies(trained))
        moved = any(not torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
        left[stage] = (norm, moved, next(trained.steps()).loss)
        trained.engine.close()
    return left


def stages_in_turn(group: Group) -> list[Run]:
    """One run whose stage changes at every quarter."""
    runs = [run(zero(0), group, HALF // 5)]
    for stage in (1, 2, 3, 0):  # at stage 3 the small parameters stay whole, the others do not
        runs.append(run(zero(stage, whole_below=100), group, HALF // 5, after=runs[-1]))
    return runs


def alone(group: Group) -> dict[str, Any]:
    return {
        "matrix": matrix(group, STEPS),
        "game": game(group),
        "variants": variants(group),
        "spoiled": spoiled(group),
        "unused": unused(group),
        "movers": movers(group),
        "dropped": dropped(group),
        "replicas": replicas(group),
    }


def together(group: Group, at_one: Runs) -> dict[str, Any]:
    """As `alone`, and the second half of each run that one worker began."""
    seconds = {
        (precision, stage): run(engine(stage, precision), group, HALF // 2, after=at_one[precision, stage, "first"])
        for precision in ("float32", "bfloat16")
        for stage in (None, *STAGES)
    }
    return {
        "matrix": matrix(group, HALF),
        "game": game(group),
        "chain": stages_in_turn(group),
        "grown": seconds,
        "dropped": dropped(group),
        "replicas": replicas(group),
    }


def alone_again(group: Group, grown: Runs) -> Runs:
    """The last quarter of each run that went from one worker to two."""
    return {key: run(engine(key[1], key[0]), group, HALF // 2, after=after) for key, after in grown.items()}
