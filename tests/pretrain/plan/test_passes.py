"""Passes of models of many blocks, continued from few: nothing changes but the time that they take."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from kernels.dry_run import LAUNCHING
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.plan.ledger import Held, Ledger, Pass
from pretrain.plan.passes import FEW_BLOCKS, Passes, block_between, continued, fake_model, trace

MANY = f"model.num_layers={2 * FEW_BLOCKS[-1] + 2}"

VARIANTS = {
    "gpt": ("tiny_gpt", MANY),
    "gpt recomputed": ("tiny_gpt", MANY, "engine.activation_checkpointing=true"),
    "gpt in bfloat16": ("tiny_gpt", MANY, "engine.precision=bfloat16"),
    "transformer_xl": ("tiny_transformer_xl", MANY),
    "transformer_xl recomputed": ("tiny_transformer_xl", MANY, "engine.activation_checkpointing=true"),
    "transformer_xl without memory": ("tiny_transformer_xl", MANY, "model.memory_length=0"),
    "transformer_xl with norms before": ("tiny_transformer_xl", MANY, "model.norm=pre", "model.share_biases=false"),
    "transformer_xl with keys and values": ("tiny_transformer_xl", MANY, "model.memory_of=keys_and_values"),
}


def experiment(variant: str) -> Experiment:
    recipe, *overrides = VARIANTS[variant]
    return config.load(Experiment, config.recipe_path(recipe), tuple(overrides))


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pass_is_continued_exactly(variant: str, on_gpu: bool) -> None:
    made = experiment(variant)
    model = fake_model(made, on_gpu=on_gpu)
    passes = Passes(model, made.model, on_gpu=on_gpu)
    blocks, run_of_few, asked = model.blocks, passes._of_few, []
    passes._of_few = lambda count, *arguments: asked.append(count) or run_of_few(count, *arguments)  # type: ignore[method-assign]
    for rows, runs in ((3, {3, 4}), (1, {3})):
        asked.clear()
        found = passes.of(rows, "model")
        assert sorted(asked) == sorted(runs)
        with passes.running():
            assert found == trace(model, made.model, rows, "model")
    assert passes.are_alike == {"model": True}
    assert model.blocks is blocks


def test_blocks_that_are_not_alike_are_all_run() -> None:
    made = experiment("gpt")
    model = fake_model(made)
    blocks = model.blocks
    assert isinstance(blocks, nn.ModuleList)
    wider = fake_model(made.model_copy(update={"model": made.model.model_copy(update={"inner_width": 80})}))
    blocks[2].feed_forward = wider.blocks[2].feed_forward
    passes = Passes(model, made.model)
    assert passes.of(2, "model") == trace(model, made.model, 2, "model")
    assert passes.are_alike == {"model": False}


@pytest.mark.parametrize("recompute", ["false", "true"])
def test_a_forward_that_is_fullest_before_the_blocks_is_continued_too(recompute: str) -> None:
    """The positions' encoding, which does not grow with the rows, decides where there are few; not with many blocks."""
    sizes = ("width=512", "memory_length=1000", "segment_length=2", "num_heads=1", "head_width=4", "inner_width=4")
    changes = (*(f"model.{size}" for size in sizes), "model.memory_of=keys_and_values", MANY)
    recipe = config.recipe_path("tiny_transformer_xl")
    made = config.load(Experiment, recipe, (*changes, f"engine.activation_checkpointing={recompute}"))
    model = fake_model(made)
    passes = Passes(model, made.model)
    found = {rows: passes.of(rows, "model") for rows in (64, 1, 4)}
    assert found == {rows: trace(model, made.model, rows, "model") for rows in found}
    assert found[1].early > found[1].late
    assert found[64].early < found[64].late


def by_hand(blocks: int, *, kept: int = 100, peak: int = 100) -> Pass:
    """Blocks of 10 elements that keep so many bytes each, of two gradients; a head of 5 elements, a tail of 7."""
    head, tail = [Held(30, 0), Held(20, 5)], [Held(4, 12 + 10 * blocks)]
    inside = []
    for number in range(blocks):
        below, done = kept * (blocks - number), 5 + 10 * number
        inside += [Held(below + 9, done + 4), Held(below, done + 10)]
    front = [Held(held.total + kept * blocks, held.complete) for held in head]
    return Pass(7 + kept * blocks, 500, 11 + peak * blocks, (*front, *inside, *tail))


@pytest.mark.parametrize("peak", [100, 130])
def test_continued_by_hand(peak: int) -> None:
    block = block_between(by_hand(2, peak=peak), by_hand(3, peak=peak), 10)
    assert continued(by_hand(3, peak=peak), block, blocks=0) == by_hand(3, peak=peak)
    assert continued(by_hand(3, peak=peak), block, blocks=4) == by_hand(7, peak=peak)


def test_one_pass_tells_what_a_block_keeps() -> None:
    block = block_between(by_hand(2), by_hand(3), 10)
    assert block.within(by_hand(3)) == block
    assert block.within(by_hand(3, kept=60, peak=60)) == block_between(
        by_hand(2, kept=60, peak=60), by_hand(3, kept=60, peak=60), 10
    )


def test_one_pass_does_not_tell_where_blocks_differ_or_forward_is_fullest_elsewhere() -> None:
    wide = by_hand(3)
    odd = replace(wide, backward=(*wide.backward[:4], Held(999, wide.backward[4].complete), *wide.backward[5:]))
    assert block_between(by_hand(2), wide, 10).within(odd) is None
    uneven = replace(wide, backward=(*wide.backward[:4], Held(wide.backward[4].total, 20), *wide.backward[5:]))
    assert block_between(by_hand(2), wide, 10).within(uneven) is None
    assert block_between(by_hand(2, peak=130), by_hand(3, peak=130), 10).within(by_hand(3, peak=130)) is None
    assert block_between(by_hand(2), wide, 10).within(replace(wide, backward=wide.backward[:5])) is None


@pytest.mark.parametrize("variant", ["gpt", "transformer_xl"])
def test_calls_of_many_blocks_are_those_of_one(variant: str) -> None:
    made = experiment(variant)
    passes = Passes(fake_model(made), made.model)
    assert passes.calls() == passes._calls()
    assert "blocks.9.feed_forward.inner" in passes.calls()


def test_a_ledger_counts_storages_and_not_tensors() -> None:
    given = torch.zeros(100)
    ledger = Ledger()
    ledger.leave_out([given])
    with ledger:
        doubled = given * 2
        view = doubled[:50].view(5, 10)
        given.add_(1.0)
        assert ledger.total == 400
        del doubled
        assert ledger.total == 400, "its view is still there"
        del view
        assert ledger.total == 0
        (torch.zeros(300) + torch.zeros(300)).sum()
    assert max(ledger.most.values()) == 3 * 1200


def test_without_numbers_nothing_is_computed_by_chance() -> None:
    """What an operation makes from nothing has floating point without numbers too."""
    weight = fake_model(experiment("gpt")).vocabulary.embedding
    with Ledger(weight.fake_mode):
        made, counted = torch.empty(3), torch.zeros(3, dtype=torch.int64)
    assert type(made) is type(weight.data)
    assert type(counted) is torch.Tensor


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run in the interpreter only where there is no GPU")
@pytest.mark.parametrize("vocabulary", ["full", "adaptive"])
def test_kernels_that_are_not_launched_hold_what_they_hold_when_they_are(vocabulary: str) -> None:
    """Against Triton's interpreter, which launches them on the CPU."""
    adaptive = "{kind: adaptive, cutoffs: [16, 40], div_val: 2, embedding_width: 32, tied: true}"
    overrides = ("model.dropout=0", "model.attention_dropout=0", "model.segment_length=8", "model.memory_length=8")
    if vocabulary == "adaptive":
        overrides += (f"model.vocabulary={adaptive}",)
    made = config.load(Experiment, config.recipe_path("tiny_transformer_xl"), overrides)
    real = made.model.build()
    for module in real.modules():
        if getattr(module, "kernel", None) in LAUNCHING:
            module.impl = "triton"  # type: ignore[assignment]
    found = trace(real, made.model, 2, "model")
    planned = Passes(fake_model(made, on_gpu=True), made.model, on_gpu=True).of(2, "model")
    assert (planned.kept, planned.forward) == (found.kept, found.forward)
    assert planned.backward[0].total == pytest.approx(found.backward[0].total, rel=0.01)
    for ours, theirs in zip(planned.backward, found.backward, strict=True):  # the interpreter lets go of things late
        assert ours.complete == theirs.complete
        assert ours.total <= 1.01 * theirs.total
    assert planned.kept < trace(fake_model(made), made.model, 2, "model").kept
