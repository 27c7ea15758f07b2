"""What our trainer costs: a step of it against bare loops of the same model, at the quickstart's size, in one process.

    python -m benchmarks.trainer_overhead

Four loops take turns in blocks of steps, each with its own copy of the model: our trainer on the local engine and a
bare PyTorch loop; our trainer on the DeepSpeed engine (ZeRO 1) and a bare DeepSpeed loop. All draw their batches from
the same stream, accumulate the same micro-batches and move the same AdamW. Compared are medians over blocks of the
processor time per step; and, so that they are loops of the same thing, their losses.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.table import Figure, conclude
from pretrain import config
from pretrain.contract import Carry, Model
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.rng import INITIAL_WEIGHTS, seed_everything

BLOCKS, STEPS = 14, 4
"""Each loop takes so many blocks of so many steps; the first block is not counted."""


def experiment(engine: str) -> Experiment:
    """The quickstart's, on tokens made in memory, without the schedule's warm-up."""
    recipe = config.load(
        Experiment,
        config.recipe_path("quickstart"),
        (
            "data={kind: markov, num_symbols: 4096, num_documents: 512, document_length: 1024}",
            f"steps={BLOCKS * STEPS + 8}",
            f"engine={{kind: {engine}, precision: bfloat16}}",
        ),
    )
    recipe.check_data()
    return recipe


def ours(engine: str) -> Iterator[float]:
    for report in experiment(engine).trainer(Group()).steps():
        yield report.loss


def fresh(recipe: Experiment) -> tuple[Model, list[Carry | None]]:
    """The model and carries that the trainer starts from."""
    seed_everything(recipe.seed, INITIAL_WEIGHTS)
    model = recipe.model.build()
    return model, [None] * recipe.batch.micro_batches


def bare_torch() -> Iterator[float]:
    """What one writes by hand for bfloat16 weights with float32 masters."""
    recipe = experiment("local")
    stream, rates = recipe.stream(), recipe.learning_rate()
    model, carries = fresh(recipe)
    masters = [nn.Parameter(p.detach().clone()) for p in model.parameters()]
    for p in model.parameters():
        p.data = p.data.to(torch.bfloat16)
    optimizer = recipe.optimizer.build(masters)
    weights = list(model.parameters())
    carries = [model.initial_carry(recipe.batch.rows) for _ in carries]
    model.train()
    for step in range(recipe.steps):
        batches = [stream.micro_batch(step, g) for g in range(recipe.batch.micro_batches)]
        count = sum(model.count(batch) for batch in batches)
        total = 0.0
        for g, batch in enumerate(batches):
            loss = model(batch, carries[g], player="model", step=step)
            (loss.total / count).backward()
            carries[g] = loss.carry
            total += float(loss.total.detach()) / count
            for master, weight in zip(masters, weights, strict=True):
                assert weight.grad is not None
                gradient = weight.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                weight.grad = None
        nn.utils.clip_grad_norm_(masters, recipe.optimizer.gradient_clip or float("inf"))
        for group in optimizer.param_groups:
            group["lr"] = rates("model", step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for master, weight in zip(masters, weights, strict=True):
                weight.copy_(master)
        yield total


def bare_deepspeed() -> Iterator[float]:
    """The loop of DeepSpeed's documentation, with its own accumulation and averaging."""
    import deepspeed

    recipe = experiment("deepspeed")
    stream, rates = recipe.stream(), recipe.learning_rate()
    model, _ = fresh(recipe)
    num_micro_batches = recipe.batch.micro_batches
    engine, optimizer, _, _ = deepspeed.initialize(
        model=model,
        optimizer=recipe.optimizer.build(model.parameters()),
        dist_init_required=False,
        config={
            "train_micro_batch_size_per_gpu": recipe.batch.rows,
            "gradient_accumulation_steps": num_micro_batches,
            "gradient_clipping": recipe.optimizer.gradient_clip or 0.0,
            "bf16": {"enabled": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "zero_optimization": {"stage": 1},
            "steps_per_print": 10**9,
        },
    )
    carries = [model.initial_carry(recipe.batch.rows) for _ in range(num_micro_batches)]
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = rates("model", step)
        mean = 0.0
        for g in range(num_micro_batches):
            loss = engine(stream.micro_batch(step, g), carries[g], player="model", step=step)
            carries[g] = loss.carry
            engine.backward(loss.total / loss.count)
            engine.step()
            mean += float(loss.total.detach()) / loss.count / num_micro_batches
        yield mean


def main() -> None:
    torch.set_num_threads(1)
    loops = {"ours, local": ours("local"), "bare PyTorch": bare_torch()}
    loops |= {"ours, deepspeed": ours("deepspeed"), "bare DeepSpeed": bare_deepspeed()}
    losses: dict[str, list[float]] = {name: [] for name in loops}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for block in range(BLOCKS):
        for name, loop in loops.items():
            start = time.process_time()
            losses[name] += [next(loop) for _ in range(STEPS)]
            if block:
                seconds[name].append((time.process_time() - start) / STEPS)
    ratio: Callable[[str, str], float] = lambda a, b: statistics.median(  # noqa: E731
        x / y for x, y in zip(seconds[a], seconds[b], strict=True)
    )
    conclude(
        "trainer_overhead",
        [
            Figure("our step / bare PyTorch, local engine", ratio("ours, local", "bare PyTorch"), 1.05),
            Figure("our step / bare DeepSpeed, ZeRO 1", ratio("ours, deepspeed", "bare DeepSpeed"), 1.05),
        ],
        same=_same(losses["ours, local"], losses["bare PyTorch"], 1e-6)
        and _same(losses["ours, deepspeed"], losses["bare DeepSpeed"], 5e-3),
        notes=[
            f"{name}: {1e3 * statistics.median(times):.1f} ms of processor time, last loss {losses[name][-1]:.5f}"
            for name, times in seconds.items()
        ]
        + ["Local losses agree to 1e-6; DeepSpeed's own scaling rounds bfloat16 gradients elsewhere: 5e-3."],
    )


def _same(a: list[float], b: list[float], tolerance: float) -> bool:
    return all(abs(x - y) <= tolerance * abs(y) for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main()
