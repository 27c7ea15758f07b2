"""How fast a kernel is, against what else computes the same: `python -m kernels.bench relative_attention`.

Needs a GPU; `--device cpu` compares small shapes in Triton's interpreter and times nothing. Every contender of a case
is first compared with float64; a case in which one is wrong is not printed. Times are medians of CUDA events, memory is
the allocator's peak above inputs and gradients. The table is kept as a dated file in `benchmarks/results/`.

The floor of a case is what the hardware needs at least for forward and backward: the products that the operation is
made of at the peak of its matrix units, or one pass over inputs, outputs and gradients at its bandwidth.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

OPERATIONS = ("relative_attention", "linear_cross_entropy")
"""Packages whose `contest` module says what is compared."""

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

PEAKS = {
    "NVIDIA A100-SXM4-80GB": (312e12, 2.04e12),
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),
    "NVIDIA H200": (989e12, 4.8e12),
    "AMD Instinct MI300X": (1307e12, 5.3e12),
}
"""Dense bfloat16 FLOP/s and bytes/s, by the makers' data sheets."""

ERROR = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-4}
"""Relative, of values and of each gradient, by norm; a contender beyond it is wrong."""

CYCLES_AHEAD = 100_000_000
"""Of the GPU's clock, some 50 ms: longer than a host takes to launch all repeats."""

Run = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Contender:
    """One way to compute the operation, or something like it."""

    name: str
    run: Run
    exact: Run
    """What it should give, differentiable, of inputs in float64."""
    flops: tuple[float, float] = (0.0, 0.0)
    """Forward, and forward with backward."""
    has_backward: bool = True


@dataclass(frozen=True)
class Contest:
    """A case and who takes part."""

    case: str
    inputs: Sequence[Tensor]
    """In the order in which `run` takes them; those of floating point are differentiated by."""
    contenders: Sequence[Contender]
    small: Callable[[Sequence[Tensor]], Sequence[Tensor]]
    """The inputs of a part of the rows, for the comparison with float64."""
    by_rows: Sequence[int]
    """Places of those inputs that have rows first, as the output has: their gradients are compared in whole, too."""


@dataclass(frozen=True)
class Timing:
    """Of one contender in one case; times in ms, None where nothing was timed or there is no backward."""

    case: str
    contender: str
    error: float
    """The largest relative one, of the values and of all gradients."""
    forward_ms: float | None = None
    backward_ms: float | None = None
    both_ms: float | None = None
    tflops: float | None = None
    """Of forward and backward, counting the products that the operation is made of."""
    forward_mib: float | None = None
    both_mib: float | None = None
    times_floor: float | None = None
    cannot_run: str | None = None


def measure(contest: Contest) -> list[Timing]:
    """All contenders; none of them where one is wrong, which is said on standard error."""
    errors, failed = {}, {}
    for contender in contest.contenders:
        try:
            errors[contender.name] = error_of(contest, contender)
        except Exception as problem:  # of a peer that this device or this torch has not, and of any compiler
            failed[contender.name] = str(problem).strip().partition("\n")[0][:200] or type(problem).__name__
    limit = ERROR[contest.inputs[0].dtype]
    wrong = {name: f"wrong (relative error {error:.1e})" for name, error in errors.items() if not error <= limit}
    own = [f"{name} {reason}" for name, reason in (wrong | failed).items() if name.startswith("ours")]
    if own:
        print(f"{contest.case}: not printed: {'; '.join(own)}; the limit is {limit:.0e}", file=sys.stderr)
        return []
    failed |= wrong
    return [
        Timing(contest.case, one.name, float("nan"), cannot_run=failed[one.name])
        if one.name in failed
        else _time(contest, one, errors[one.name])
        for one in contest.contenders
    ]


def error_of(contest: Contest, contender: Contender) -> float:
    """The largest relative error of values and gradients: of a few rows alone, and of the same rows among all."""
    few = contest.small(contest.inputs)
    exact = [x.double() if x.is_floating_point() else x for x in few]
    wanted, wanted_gradients = _values_and_gradients(contender.exact, exact, backward=contender.has_backward)
    found = []
    for inputs in (few, contest.inputs):
        got, gradients = _values_and_gradients(contender.run, inputs, backward=contender.has_backward)
        pairs = [(got[: len(wanted)], wanted)]
        for index, (one, other) in enumerate(zip(gradients, wanted_gradients, strict=True)):
            if inputs is few or index in contest.by_rows:
                pairs.append((one[: len(other)], other))
        found += [_relative(one, other) for one, other in pairs]
    return max(found)


def _relative(one: Tensor, other: Tensor) -> float:
    size = other.double().norm()
    return float((one.double() - other.double()).norm() / size) if size else float(one.double().norm())


def _values_and_gradients(run: Run, inputs: Sequence[Tensor], *, backward: bool) -> tuple[Tensor, list[Tensor]]:
    if not backward:
        with torch.no_grad():
            return run(inputs), []
    given = _differentiable(inputs)
    leaves = [x for x in given if x.requires_grad]
    out = run(given)
    gradients = torch.autograd.grad(out, leaves, _like(out), allow_unused=True)
    return out.detach(), [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]


def _differentiable(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]


def _like(out: Tensor) -> Tensor:
    """A gradient for the output: a row has the same numbers whatever the rows behind it."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(out.shape, generator=generator, dtype=torch.float32).to(out)


def _time(contest: Contest, contender: Contender, error: float) -> Timing:
    if not contest.inputs[0].is_cuda:
        return Timing(contest.case, contender.name, error)
    given = _differentiable(contest.inputs)
    leaves = [x for x in given if x.requires_grad]

    def forward() -> Tensor:
        with torch.no_grad():
            return contender.run(given)

    forward_ms, forward_mib, kept = milliseconds_of(forward), *_peak_mib(forward)
    if not contender.has_backward:
        return Timing(contest.case, contender.name, error, forward_ms, forward_mib=forward_mib - kept)
    out = contender.run(given)
    gradient = _like(out)

    def backward() -> None:
        torch.autograd.grad(out, leaves, gradient, retain_graph=True, allow_unused=True)

    def both() -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(contender.run(given), leaves, gradient, allow_unused=True)

    backward_ms, both_ms, (both_mib, gradients) = milliseconds_of(backward), milliseconds_of(both), _peak_mib(both)
    flops = contender.flops[1]
    num_bytes = 3 * sum(x.nbytes for x in leaves) + 3 * out.nbytes
    return Timing(
        contest.case, contender.name, error, forward_ms, backward_ms, both_ms, flops / both_ms / 1e9,
        forward_mib - kept, both_mib - gradients, _times_floor(both_ms, flops, num_bytes),
    )  # fmt: skip


def milliseconds_of(work: Callable[[], Any], *, warm: int = 5, repeats: int = 30) -> float:
    """The median, caches warm, after some that are not counted.

    The GPU sleeps while the host prepares the first ones, so that what is timed is not how fast the host launches.
    """
    for _ in range(warm):
        work()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize()
    torch.cuda._sleep(CYCLES_AHEAD)
    for begun, ended in events:
        begun.record()
        work()
        ended.record()
    torch.cuda.synchronize()
    return statistics.median(begun.elapsed_time(ended) for begun, ended in events)


def _peak_mib(work: Callable[[], Any]) -> tuple[float, float]:
    """Above what was held before: at the peak, and by the result."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = work()
    held = torch.cuda.memory_allocated() - before
    peak = torch.cuda.max_memory_allocated() - before
    del result
    return peak / 2**20, held / 2**20


def _times_floor(taken_ms: float, flops: float, num_bytes: int) -> float | None:
    peaks = PEAKS.get(torch.cuda.get_device_name())
    return None if peaks is None else taken_ms / 1e3 / max(flops / peaks[0], num_bytes / peaks[1])


COLUMNS = {
    "forward_ms": "forward ms",
    "backward_ms": "backward ms",
    "both_ms": "both ms",
    "tflops": "TFLOP/s",
    "forward_mib": "forward MiB",
    "both_mib": "both MiB",
    "times_floor": "x floor",
}


def lines(timings: Sequence[Timing]) -> Iterator[str]:
    """A table of all that was measured."""
    columns = [name for name in COLUMNS if any(getattr(one, name) is not None for one in timings)]
    yield " ".join([f"{'case':16} {'contender':14} {'error':>8}", *(f"{COLUMNS[name]:>11}" for name in columns)])
    for one in timings:
        head = f"{one.case:16} {one.contender:14}"
        if one.cannot_run is not None:
            yield f"{head} no figures: {one.cannot_run}"
            continue
        values = [getattr(one, name) for name in columns]
        numbers = (f"{'-':>11}" if value is None else f"{value:11.3f}" for value in values)
        yield " ".join([f"{head} {one.error:8.1e}", *numbers])


def main() -> int:
    """Compare, then time, the contenders; print a table and keep it. 1 where one of them was wrong."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench", description=main.__doc__)
    parser.add_argument("operation", choices=OPERATIONS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is defined
    elif not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu compares small shapes without timing them")
    module = import_module(f"kernels.{asked.operation}.contest")
    timings, wrong = [], 0
    for contest in module.contests(asked.device):
        found = measure(contest)
        timings += found
        wrong += not found or any(one.cannot_run is not None and "wrong" in one.cannot_run for one in found)
        if asked.device != "cpu":
            _keep(asked.operation, timings)
    for line in [*lines(timings), *module.goals(timings)]:
        print(line)
    if asked.device != "cpu":
        print(f"kept in {_keep(asked.operation, timings)}")
    return 1 if wrong else 0


def _keep(operation: str, timings: Sequence[Timing]) -> Path:
    from triton import __version__ as triton_version

    device = torch.cuda.get_device_name()
    record = {
        "device": device,
        "torch": torch.__version__,
        "triton": triton_version,
        "timings": [asdict(timing) for timing in timings],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{date.today()}-{operation}-{device.lower().replace(' ', '-')}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
