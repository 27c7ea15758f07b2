"""Every engine against the local one: the same losses at any ZeRO stage and worker count, before and after a resume.

DeepSpeed starts slowly, so each kind of worker makes all its runs in one process, and the tests read what it left.
"""

import math
from itertools import islice
from typing import Any

import pytest
import torch

from data_pipeline.config import BadInput
from pretrain.group import Group
from tests.pretrain.engines.runs import (
    Clipped,
    Memory,
    Run,
    Sometimes,
    copies,
    furthest,
    local,
    run,
    trainer,
    transformer_xl,
    wgan,
    zero,
)
from tests.processes import run_workers

STEPS, HALF = 20, 10
STAGES = (0, 1, 2, 3)
Runs = dict[Any, Run]

VARIANTS: dict[str, dict[str, Any]] = {
    "pre": {"norm": "pre", "same_length": True},
    "untied": {"vocabulary": {"kind": "full", "tied": False}, "share_biases": False},
    "adaptive": {"vocabulary": {"kind": "adaptive", "cutoffs": (8, 20), "div_val": 2, "embedding_width": 12}},
    "no memory": {"memory_length": 0},
}


def engine(stage: int | None, precision: str) -> Any:
    return local(precision=precision) if stage is None else zero(stage, precision=precision)


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
    }


def together(group: Group, at_one: Runs) -> dict[str, Any]:
    """As `alone`, and the second half of each run that one worker began."""
    seconds = {
        (precision, stage): run(engine(stage, precision), group, HALF // 2, after=at_one[precision, stage, "first"])
        for precision in ("float32", "bfloat16")
        for stage in (None, *STAGES)
    }
    return {"matrix": matrix(group, HALF), "game": game(group), "chain": stages_in_turn(group), "grown": seconds}


def alone_again(group: Group, grown: Runs) -> Runs:
    """The last quarter of each run that went from one worker to two."""
    return {key: run(engine(key[1], key[0]), group, HALF // 2, after=after) for key, after in grown.items()}


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return run_workers(1, alone, timeout=500)[0]


@pytest.fixture(scope="module")
def two(one: dict[str, Any]) -> dict[str, Any]:
    return run_workers(2, together, one["matrix"], timeout=500)[0]


@pytest.fixture(scope="module")
def shrunk(two: dict[str, Any]) -> Runs:
    return run_workers(1, alone_again, two["grown"], timeout=500)[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", STAGES)
def test_equals_the_local_engine(one: dict[str, Any], precision: str, stage: int) -> None:
    got, expected = one["matrix"][precision, stage, "whole"], one["matrix"][precision, None, "whole"]
    # DeepSpeed's own linear at stage 3 may round a product to bfloat16 before it adds the bias.
    limit = 1e-3 if (precision, stage) == ("bfloat16", 3) else 1e-6
    assert furthest(got.losses, expected.losses) < limit
    assert furthest(got.norms, expected.norms) < 10 * limit
    assert furthest([got.probe, *got.likelihood], [expected.probe, *expected.likelihood]) < limit


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [None, *STAGES])
def test_does_not_depend_on_the_number_of_workers(
    one: dict[str, Any], two: dict[str, Any], precision: str, stage: int | None
) -> None:
    got, expected = two["matrix"][precision, stage, "whole"], one["matrix"][precision, stage, "whole"]
    assert got.sample_ids == expected.sample_ids[:HALF]
    assert furthest(got.losses, expected.losses[:HALF]) < 1e-5
    assert furthest(got.norms, expected.norms[:HALF]) < 1e-5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [None, *STAGES])
def test_resume_is_bit_exact_at_the_same_size(
    one: dict[str, Any], two: dict[str, Any], precision: str, stage: int | None
) -> None:
    for runs in (one["matrix"], two["matrix"]):
        whole, first, second = (runs[precision, stage, part] for part in ("whole", "first", "second"))
        assert first.losses + second.losses == whole.losses
        assert_same_bits(second, whole)


def assert_same_bits(got: Run, expected: Run) -> None:
    assert got.memory.names() == expected.memory.names()
    assert got.counters == expected.counters
    assert got.probe == expected.probe
    for name, tensor in expected.memory.tensors.items():
        assert torch.equal(got.memory.tensors[name], tensor), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [None, *STAGES])
def test_resumes_at_two_workers_and_again_at_one(
    one: dict[str, Any], two: dict[str, Any], shrunk: Runs, precision: str, stage: int | None
) -> None:
    whole, last = one["matrix"][precision, stage, "whole"], shrunk[precision, stage]
    parts = (one["matrix"][precision, stage, "first"], two["grown"][precision, stage], last)
    assert furthest([loss for part in parts for loss in part.losses], whole.losses) < 1e-5
    assert [ids for part in parts for ids in part.sample_ids] == whole.sample_ids
    assert last.counters == whole.counters
    carried = [name for name in whole.memory.names() if name.startswith("carry/")]
    assert carried
    for name in carried:  # of numbers near 1
        rounding = 1e-4 if precision == "float32" else 3e-2
        torch.testing.assert_close(last.memory.tensors[name], whole.memory.tensors[name], rtol=0, atol=rounding)


def test_changes_its_stage_in_the_middle(two: dict[str, Any]) -> None:
    losses = [loss for run in two["chain"] for loss in run.losses]
    assert furthest(losses, two["matrix"]["float32", 0, "whole"].losses) < 1e-5


@pytest.mark.parametrize("workers", [1, 2])
def test_pieces_tile_every_tensor_and_are_the_same_for_all_engines(
    one: dict[str, Any], two: dict[str, Any], workers: int
) -> None:
    runs = (one if workers == 1 else two)["matrix"]
    names = runs["float32", None, "whole"].memory.names()
    for key, left in runs.items():
        assert left.memory.untiled == [], key
        assert left.memory.names() == names, key
        assert all(t.dtype == torch.float32 for n, t in left.memory.tensors.items() if not n.startswith("carry")), key


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [None, *STAGES])
def test_learns(one: dict[str, Any], precision: str, stage: int | None) -> None:
    losses = one["matrix"][precision, stage, "whole"].losses
    assert losses[-1] < losses[0] - 0.4


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_game_equals_the_local_engine(one: dict[str, Any], two: dict[str, Any], stage: int) -> None:
    expected = one["game"][None, "whole"]
    for runs in (one["game"], two["game"]):
        assert furthest(runs[stage, "whole"].losses, expected.losses) < 1e-5
        assert furthest(runs[stage, "whole"].norms, expected.norms) < 1e-5
        assert_same_bits(runs[stage, "second"], runs[stage, "whole"])
        weights = [t for n, t in runs[stage, "whole"].memory.tensors.items() if n.startswith("weights/")]
        assert max(float(weight.abs().max()) for weight in weights) <= 0.25  # what after_turn clips them to


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_wgan_equals_the_local_engine(one: dict[str, Any], two: dict[str, Any], stage: int) -> None:
    for runs in (one["game"], two["game"]):
        assert furthest(runs[stage, "wgan"].losses, one["game"][None, "wgan"].losses) < 1e-5
        assert furthest(runs[stage, "wgan"].norms, one["game"][None, "wgan"].norms) < 1e-5


@pytest.mark.parametrize("player", ["critic", "generator"])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_turn_moves_its_player_alone(one: dict[str, Any], stage: int, player: str) -> None:
    assert one["movers"][stage, player] == {player}


@pytest.mark.parametrize("stage", STAGES)
def test_a_gradient_that_is_not_finite_moves_nothing(one: dict[str, Any], stage: int) -> None:
    norm, moved, loss = one["spoiled"][stage]
    assert not math.isfinite(norm)
    assert not moved
    assert math.isfinite(loss)


@pytest.mark.parametrize("stage", STAGES)
def test_weights_without_a_gradient_get_a_zero_one(one: dict[str, Any], stage: int) -> None:
    assert furthest(one["unused"][stage].losses, one["unused"][None].losses) < 1e-5
    assert furthest(one["unused"][stage].norms, one["unused"][None].norms) < 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_stage_3_trains_variants_and_recomputes_activations(one: dict[str, Any], name: str) -> None:
    got, expected = one["variants"][name, 3], one["variants"][name, None]
    assert furthest(got.losses, expected.losses) < 1e-6
    assert furthest(got.norms, expected.norms) < 1e-5


@pytest.mark.parametrize("model", [Clipped, wgan])
def test_stage_3_refuses_two_players(model: Any) -> None:
    with pytest.raises(BadInput, match="zero_stage=3 cuts every weight"):
        trainer(zero(3), Group(), model=model)
