"""Plans of runs as lines and tables for a terminal of 80 columns."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from cluster.tables import bytes_text, table
from pretrain.plan import ClusterPlan, Plan, WorkerMemory
from pretrain.plan.cluster import DAY, Size, Stage

PARTS = ("weights", "gradients", "optimizer", "activations", "working", "carry", "communication", "saving", "total")
BROKEN = {
    "gradients": "gra-\ndients",
    "optimizer": "opti-\nmizer",
    "activations": "activa-\ntions",
    "communication": "commu-\nnication",
}
"""Names of parts that are wider than their numbers."""
UNITS = "K, M, G: 2^10, 2^20, 2^30 bytes"


def show_plan(plan: Plan, console: Console) -> None:
    """Its sums in lines, then the workers' memory as a table."""
    _say(console, plan_lines(plan))
    console.print(plan_table(plan))


def plan_lines(plan: Plan) -> list[str]:
    """What does not depend on the workers."""
    again = f" and {plan.recomputed_flops_per_step:.3g} again" if plan.recomputed_flops_per_step else ""
    return [
        f"{plan.name}: {plan.parameters:,} parameters ({plan.non_embedding_parameters:,} without embeddings)",
        f"{plan.count_per_step:,} {plan.unit}s a step, {plan.total_count:,} in all; "
        f"{plan.flops_per_step:.3g} FLOPs a step{again}, {plan.total_flops:.3g} in all",
        f"a checkpoint is {bytes_text(plan.checkpoint_bytes)}; the run needs {bytes_text(plan.disk_bytes)} of disk",
    ]


def plan_table(plan: Plan) -> Table:
    """Memory of one worker by part."""
    return _memory_table(
        f"memory of one worker, {plan.precision} ({UNITS})",
        "workers",
        ((place.workers, place.zero_stage, place.memory) for place in plan.placements),
    )


def show_cluster_plan(plan: ClusterPlan, console: Console) -> None:
    """What it is of, then the run, the memory of a worker and what it sends as tables, each under its title."""
    kind, precision = plan.accelerator, plan.run.precision
    _say(console, plan_lines(plan.run)[:2])
    _say(console, [f"the run on {kind.name} at {plan.utilisation:g} of {kind.peaks[precision]:.3g} FLOP/s ({UNITS})"])
    console.print(run_table(plan))
    _say(console, notes(plan))
    _say(console, [f"memory of one {kind.name} of {bytes_text(kind.memory)} in a step, {precision}"])
    rows = ((size.division.workers, size.zero_stage, size.stage.memory) for size in plan.sizes)
    console.print(_memory_table("", "accel.", rows))
    _say(console, ["at most, by ZeRO stage (!: does not fit; s: while it starts)"])
    console.print(stages_table(plan))
    _say(console, ["sent by a worker in a step, by ZeRO stage, and in what time"])
    console.print(traffic_table(plan))


def run_table(plan: ClusterPlan) -> Table:
    """How the run goes on each number of accelerators."""
    made = table(
        "", "accel.>", "nodes>", "micro-batches\nx rows>", "ZeRO>", "fits\nfrom>", "step>", f"{plan.run.unit}s/s>",
        "days>", "check-\npoint>", "in>", lines=False,
    )  # fmt: skip
    for size in plan.sizes:
        division = size.division
        made.add_row(
            f"{division.workers}",
            f"{size.nodes}",
            f"{division.micro_batches} x {division.rows}{MARKS[division.kind]}",
            f"{size.zero_stage}",
            "none" if size.fits_from is None else f"{size.fits_from}",
            seconds_text(size.step_seconds) + ("!" if is_bound_by_links(size) else " "),
            count_text(size.rate),
            days_text(size.days),
            short(size.checkpoint_bytes),
            seconds_text(plan.checkpoint_seconds(size)),
        )
    return made


MARKS = {"as given": " ", "other micro-batches": "*", "larger batch": "+"}


def is_bound_by_links(size: Size) -> bool:
    return size.stage.link_seconds > size.compute_seconds


def notes(plan: ClusterPlan) -> list[str]:
    """What the marks in the table mean, and what is known to go wrong."""
    kinds = {size.division.kind for size in plan.sizes}
    unit = plan.run.unit
    found = [
        f"checkpoints at {plan.storage_bandwidth / 1e9:g} GB/s over all workers, every {plan.checkpoint_every:,} steps "
        "while training goes on"
    ]
    if "other micro-batches" in kinds:
        found.append(
            f"* another run: the recipe's {plan.run.count_per_step:,} {unit}s a step in other micro-batches, so with "
            "other noise (batch.micro_batches, batch.rows)"
        )
    if "larger batch" in kinds:
        larger = [size for size in plan.sizes if size.division.kind == "larger batch"]
        counts = ", ".join(f"{size.division.workers:,}: {size.count_per_step:,}" for size in larger)
        found.append(
            f"+ another experiment: a larger batch, as the recipe's rows are too few or do not divide ({unit}s a step: "
            f"{counts}), for as many {unit}s in all; its learning rate is not the recipe's to give"
        )
    if any(is_bound_by_links(size) for size in plan.sizes):
        found.append("! the links take longer than the accelerators compute, and the step as long as the links")
    if any(size.fits_from is None for size in plan.sizes):
        found.append(f"none: {_remedy(plan)}")
    if any(plan.checkpoint_seconds(size) > plan.checkpoint_every * size.step_seconds for size in plan.sizes):
        found.append(
            "where a checkpoint takes longer than the steps between two, training waits for it: save less often "
            "(checkpoint.every), or to faster storage"
        )
    return found


def _remedy(plan: ClusterPlan) -> str:
    remedies = ["fewer batch.rows"]
    if not plan.run.activation_checkpointing:
        remedies.append("engine.activation_checkpointing=true where the model has blocks")
    if plan.sizes and len(plan.sizes[0].stages) == 1:
        remedies.append("engine.kind=deepspeed, which cuts optimizer, gradients and weights over the workers")
    return f"does not fit at any ZeRO stage that the experiment can run at; try {', or '.join(remedies)}"


def stages_table(plan: ClusterPlan) -> Table:
    """The memory of a worker by ZeRO stage, at its fullest in a step or while it starts."""
    stages = [stage.zero_stage for stage in plan.sizes[0].stages]
    made = table("", "accel.>", *(f"{stage}  >" for stage in stages), lines=False)
    for size in plan.sizes:
        made.add_row(f"{size.division.workers}", *map(_marked, size.stages))
    return made


def _marked(stage: Stage) -> str:
    return short(stage.most) + ("s" if stage.most > stage.memory.on_device else " ") + (" " if stage.fits else "!")


def traffic_table(plan: ClusterPlan) -> Table:
    """What a worker sends in a step by ZeRO stage, and how long the links take for it."""
    stages = [stage.zero_stage for stage in plan.sizes[0].stages]
    columns = (f"{stage}{name}>" for stage in stages for name in ("", ": in"))
    made = table("", "accel.>", *columns, lines=False)
    for size in plan.sizes:
        cells = (
            cell for stage in size.stages for cell in (short(stage.traffic.total), seconds_text(stage.link_seconds))
        )
        made.add_row(f"{size.division.workers}", *cells)
    return made


def _memory_table(title: str, first: str, rows: Iterable[tuple[int, int, WorkerMemory]]) -> Table:
    columns = [f"{BROKEN.get(part, part)}>" for part in PARTS]
    made = table(title, f"{first}>", "ZeRO>", *columns, lines=False)
    for number, stage, memory in rows:
        values = [short(getattr(memory, part)) for part in PARTS]
        made.add_row(str(number), str(stage), *values)
    return made


def short(count: float) -> str:
    """Bytes in a table whose title says the units."""
    return bytes_text(count).removesuffix("iB")


def seconds_text(seconds: float) -> str:
    """Three figures and a unit.

    >>> seconds_text(0.0123), seconds_text(75), seconds_text(9000)
    ('12.3 ms', '75 s', '2.5 h')
    """
    for size, unit in ((DAY, "d"), (3600.0, "h"), (1.0, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-5 or not seconds else "<0.01 ms"


def days_text(days: float) -> str:
    """
    >>> days_text(0.0213), days_text(3.456), days_text(12345.6)
    ('0.021', '3.5', '12,346')
    """
    return f"{days:,.0f}" if days >= 10 else f"{days:.2g}"


def count_text(rate: float) -> str:
    """Three figures and a decimal unit.

    >>> count_text(1234567), count_text(999)
    ('1.23M', '999')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.3g}{unit}"
    return f"{rate:.3g}"


def _say(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
