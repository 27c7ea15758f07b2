"""How fast the kernels are, against what else computes the same: `python -m kernels.bench relative_attention`.

Needs a GPU; `--device cpu` compares small shapes in Triton's interpreter and times nothing. Every contender of a case
is first compared with the reference in float64; a case in which one is wrong is not printed. Times are medians of
CUDA events; the result is kept as `results/<device>-<operation>.json` beside this file.

Contenders: ours; `twin`, ours without the position term; `flash`, torch's attention without one; `flex`,
FlexAttention with the position term computed before and added to its scores; `eager`, the reference.

The floor of a case is what the hardware needs at least: the products of the visible pairs (3 forward, 8 backward, a
fused pass; 2 and 5 without the position term) at its peak, or one pass over inputs and outputs at its bandwidth.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results"

PEAKS = {
    "NVIDIA H100 80GB HBM3": (989e12, 3.35e12),
    "NVIDIA H200": (989e12, 4.8e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 2.0e12),
}
"""Dense bfloat16 FLOP/s and bytes/s, by the makers' data sheets."""

ERROR = {"bfloat16": 3e-2, "float16": 4e-3, "float32": 1e-4}
"""Relative, of values and of each gradient, by norm; a contender beyond it is wrong."""

Pass = Callable[[], Tensor]


@dataclass(frozen=True)
class Timing:
    """Of one contender in one case."""

    case: str
    contender: str
    forward_ms: float | None
    both_ms: float | None
    """Forward and backward; None where it has no backward."""
    tflops: float | None
    """Of forward and backward, counting the products that the operation needs."""
    extra_mib: float
    """Memory at the peak of both, above the inputs and the gradients."""
    times_floor: float | None


def relative_attention(device: str) -> list[Timing]:
    """All cases of recipes on a GPU; small ones on a CPU, untimed."""
    from kernels.relative_attention.cases import RAGGED, RECIPES

    if device == "cpu":
        return [timing for case in RAGGED[:4] for timing in _measure(case, torch.float32, device)]
    return [timing for case in RECIPES for timing in _measure(case, torch.bfloat16, device)]


def _measure(case: Any, dtype: torch.dtype, device: str) -> list[Timing]:
    tensors = case.tensors(dtype, device)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors[:6]]
    contenders = _contenders(leaves, tensors.window_BL, on_gpu=device != "cpu")
    d_read = torch.randn(tensors.q_BLHD.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    wrong = _wrong(
        {name: c for name, c in contenders.items() if name not in ("twin", "flash")}, leaves, d_read, tensors
    )
    if wrong:
        print(f"{case.name}: not printed, for these are wrong: {'; '.join(wrong)}", file=sys.stderr)
        return []
    return [_time(case, name, contender, leaves, d_read) for name, contender in contenders.items()]


def _contenders(leaves: list[Tensor], window_BL: Tensor, *, on_gpu: bool) -> dict[str, Pass]:
    from kernels.relative_attention import fused, reference

    tensors = fused.Tensors._make([*leaves, window_BL])

    def fused(*, relative: bool) -> Tensor:
        return fused.relative_attention(tensors, fused.Settings(0.0, 0, relative=relative))

    found: dict[str, Pass] = {
        "ours": lambda: fused(relative=True),
        "twin": lambda: fused(relative=False),
        "eager": lambda: reference.relative_attention(*leaves, window_BL=window_BL),
    }
    if on_gpu:
        found |= {"flash": _flash(leaves), "flex": _flex(leaves)}
    return found


def _flash(leaves: list[Tensor]) -> Pass:
    """Causal attention of the last L of K positions, by the content alone."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right

    q, k, v = leaves[:3]
    seen = causal_lower_right(q.shape[1], k.shape[1])

    def attend() -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            read = torch.nn.functional.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=seen
            )
        return read.transpose(1, 2)

    return attend


def _flex(leaves: list[Tensor]) -> Pass:
    """The position term as a matrix, in distance order, looked up by FlexAttention."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v, r, u, w = leaves
    queries, keys = q.shape[1], k.shape[1]
    memory = keys - queries
    mask = create_block_mask(lambda b, h, i, j: j <= i + memory, None, None, queries, keys, device=str(q.device))
    compiled = torch.compile(flex_attention)

    def attend() -> Tensor:
        position_BHLT = (q + w).transpose(1, 2) @ r.permute(1, 2, 0) / q.shape[-1] ** 0.5

        def add_position(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return score + position_BHLT[b, h, i, (i + memory - j).clamp(0, r.shape[0] - 1)]

        given = ((q + u).transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return compiled(*given, score_mod=add_position, block_mask=mask).transpose(1, 2)

    return attend


def _wrong(contenders: dict[str, Pass], leaves: list[Tensor], d_read: Tensor, tensors: Any) -> list[str]:
    """Those whose values or gradients are too far from float64's."""
    from kernels.relative_attention import reference

    exact = [leaf.detach()[:1].double() if i < 3 else leaf.detach().double() for i, leaf in enumerate(leaves)]
    exact = [leaf.requires_grad_() for leaf in exact]
    read = reference.relative_attention(*exact, window_BL=tensors.window_BL[:1])
    wanted = [read, *torch.autograd.grad(read, exact[:3], d_read[:1].double())]
    limit, found = ERROR[str(d_read.dtype).removeprefix("torch.")], []
    for name, contender in contenders.items():
        got = contender()
        values = [got, *torch.autograd.grad(got, leaves[:3], d_read)]
        errors = [((a[:1].double() - b).norm() / b.norm()).item() for a, b in zip(values, wanted, strict=True)]
        if not all(error <= limit for error in errors):
            found.append(f"{name} (relative errors {', '.join(f'{error:.1e}' for error in errors)})")
    return found


def _time(case: Any, name: str, contender: Pass, leaves: list[Tensor], d_read: Tensor) -> Timing:
    relative = name not in ("twin", "flash")
    flops = 2.0 * case.visible_pairs * case.width * (11 if relative else 7)
    if not d_read.is_cuda:
        return Timing(case.name, name, None, None, None, 0.0, None)

    def both() -> None:
        torch.autograd.grad(contender(), leaves, d_read, allow_unused=True)

    with torch.no_grad():
        forward_ms = _milliseconds(contender)
    both_ms = _milliseconds(both)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both()
    gradients = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    extra = (torch.cuda.max_memory_allocated() - before - gradients) / 2**20
    floor = _floor_ms(flops, 3 * gradients)
    return Timing(
        case.name, name, forward_ms, both_ms, flops / both_ms / 1e9, extra, None if floor is None else both_ms / floor
    )


def _milliseconds(work: Callable[[], Any], *, repeats: int = 30) -> float:
    """The median, caches warm, after some that are not counted."""
    for _ in range(5):
        work()
    taken = []
    for _ in range(repeats):
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        work()
        ended.record()
        torch.cuda.synchronize()
        taken.append(begun.elapsed_time(ended))
    return statistics.median(taken)


def _floor_ms(flops: float, num_bytes: int) -> float | None:
    peaks = PEAKS.get(torch.cuda.get_device_name())
    return None if peaks is None else 1e3 * max(flops / peaks[0], num_bytes / peaks[1])


def lines(timings: list[Timing]) -> list[str]:
    """A table, each contender with its ratio to ours."""
    ours = {timing.case: timing for timing in timings if timing.contender == "ours"}
    found = [
        f"{'case':16} {'contender':10} {'forward':>9} {'both':>9} {'TFLOP/s':>8} {'MiB':>8} {'floor':>6} {'/ ours':>7}"
    ]
    for timing in timings:
        own = ours[timing.case].both_ms
        ratio = timing.both_ms / own if timing.both_ms is not None and own else None
        numbers = [
            _text(timing.forward_ms, 9, 3), _text(timing.both_ms, 9, 3), _text(timing.tflops, 8, 1),
            _text(timing.extra_mib, 8, 1), _text(timing.times_floor, 6, 1), _text(ratio, 7, 2),
        ]  # fmt: skip
        found.append(" ".join([f"{timing.case:16} {timing.contender:10}", *numbers]))
    return found


def _text(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


OPERATIONS = {"relative_attention": relative_attention}


def main() -> None:
    """Compare, then time, the contenders; print a table and keep it."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench", description=main.__doc__)
    parser.add_argument("operation", choices=sorted(OPERATIONS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu compares small shapes without timing them")
    timings = OPERATIONS[asked.operation](asked.device)
    for line in lines(timings):
        print(line)
    if asked.device != "cpu":
        name = torch.cuda.get_device_name()
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name.lower().replace(' ', '-')}-{asked.operation}.json"
        record = {"device": name, "torch": torch.__version__, "timings": [asdict(timing) for timing in timings]}
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"kept in {path}")


if __name__ == "__main__":
    main()
