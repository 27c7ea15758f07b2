"""Find the fastest tiles and route of relative attention on this GPU: `python -m kernels.tune`.

Each kernel is timed at every size of tile, number of warps and of stages, on the largest recipe of each width of heads;
then the routes of backward, with the tiles that were found. What does not compile, or gives other values than the
default tiles do, is passed over and said. The result is kept as `relative_attention/tuned/<architecture>.json`, which
`relative_attention/tiles.py` reads.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.bench import ERROR, milliseconds_of
from kernels.relative_attention import fused, tiles
from kernels.relative_attention.cases import RECIPES, Case
from kernels.relative_attention.tiles import KERNELS, Kernel, Route, Tiles

CANDIDATES = tuple(Tiles(*sizes) for sizes in itertools.product((32, 64, 128), (4, 8), (1, 2, 3)))
SHIPPED_ROUTES: tuple[Route, ...] = ("recomputed", "stored")
"""Those that hold no matrix of scores in forward."""

Measure = Callable[[Callable[[], Any]], float]
"""How many milliseconds a call takes."""
Passes = Callable[[fused.Settings], list[Tensor]]
"""The result and all gradients with these settings."""


@dataclass
class Tuned:
    """For one shape: the tiles of each kernel, the route, and the milliseconds of forward and backward with them."""

    tiles: dict[Kernel, Tiles]
    route: Route
    milliseconds: float
    default_milliseconds: float


def tune(case: Case, tensors: fused.Tensors, candidates: Iterable[Tiles], measure: Measure) -> Tuned:
    """The fastest of the candidates, one kernel after another, and of the routes."""
    compute = _passes(case, tensors)
    wanted = compute(fused.Settings(0.0, 0))
    default = measure(lambda: compute(fused.Settings(0.0, 0)))
    found: dict[Kernel, Tiles] = {}
    for kernel in KERNELS:
        route: Route = "semi_fused" if kernel == "position" else "recomputed"
        times: dict[Tiles, float] = {}
        for candidate in candidates:
            settings = fused.Settings(0.0, 0, tiles={**found, kernel: candidate}, route=route)
            taken = _timed(lambda settings=settings: compute(settings), wanted, measure)  # type: ignore[misc]
            if isinstance(taken, float):
                times[candidate] = taken
            else:
                print(f"{case.name}: {kernel} {candidate}: passed over: {taken}", file=sys.stderr)
        if times:
            found[kernel] = min(times, key=lambda candidate: times[candidate])
    routes = {
        route: measure(lambda route=route: compute(fused.Settings(0.0, 0, tiles=found, route=route)))  # type: ignore[misc]
        for route in SHIPPED_ROUTES
    }
    best = min(routes, key=lambda route: routes[route])
    return Tuned(found, best, routes[best], default)


def _passes(case: Case, tensors: fused.Tensors) -> Passes:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors[:6]]
    d_read_BLHD = torch.randn(tensors.q_BLHD.shape, generator=torch.Generator().manual_seed(1)).to(tensors.q_BLHD)

    def compute(settings: fused.Settings) -> list[Tensor]:
        read_BLHD = fused.relative_attention(fused.Tensors._make([*leaves, tensors.window_BL]), settings)
        return [read_BLHD.detach(), *torch.autograd.grad(read_BLHD, leaves, d_read_BLHD)]

    return compute


def _timed(compute: Callable[[], list[Tensor]], wanted: list[Tensor], measure: Measure) -> float | str:
    """Milliseconds, or why the candidate is none."""
    try:
        got = compute()
    except Exception as problem:  # of any of the compilers, or too little shared memory
        return f"{type(problem).__name__}: {str(problem).strip().partition(chr(10))[0][:120]}"
    for one, other in zip(got, wanted, strict=True):
        error = float((one.double() - other.double()).norm() / other.double().norm())
        if not error <= 2 * ERROR[other.dtype]:
            return f"differs from the default's values by {error:.1e}"
    return measure(compute)


def record(found: Mapping[str, Tuned]) -> dict[str, Any]:
    """As `tuned/` keeps it: by width and dtype."""
    return {
        "tiles": {name: {k: asdict(t) for k, t in one.tiles.items()} for name, one in found.items()},
        "routes": {name: one.route for name, one in found.items()},
        "milliseconds": {
            name: {"tuned": one.milliseconds, "default": one.default_milliseconds} for name, one in found.items()
        },
    }


def main() -> None:
    """Time the candidates on this GPU and keep the fastest."""
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=main.__doc__)
    parser.add_argument("operation", choices=("relative_attention",), nargs="?", default="relative_attention")
    parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here, and nothing but one can say what is fast on it")
    device = torch.device("cuda")
    found: dict[str, Tuned] = {}
    for case in RECIPES:
        name = tiles.shape_name(fused.padded(case.width), torch.bfloat16)
        if name not in found and case.memory == case.queries:
            found[name] = tune(case, case.tensors(torch.bfloat16, device), CANDIDATES, milliseconds_of)
            one = found[name]
            print(f"{case.name}: {one.milliseconds:.3f} ms, {one.default_milliseconds:.3f} by default: {one}")
    from triton import __version__ as triton_version

    path = tiles.TUNED / f"{tiles.architecture_of(device)}.json"
    kept = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton_version}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**kept, **record(found)}, indent=1) + "\n")
    tiles.forget_tuned()
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
