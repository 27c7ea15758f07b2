"""Find the fastest tiles and route of relative attention on this GPU: `python -m kernels.tune`.

Each kernel is timed at every size of tile, number of warps and of stages, on a recipe for each padded width of heads;
then the routes of backward, with the tiles that were found. What does not compile, or gives other values than the
default tiles do, is passed over and said. The result is kept as `relative_attention/tuned/<architecture>.json`, which
`relative_attention/tiles.py` reads: after every kernel, so that a tuner that is cut off goes on where it was.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kernels.bench import ERROR, milliseconds_of
from kernels.relative_attention import fused, tiles
from kernels.relative_attention.cases import RECIPES, Case
from kernels.relative_attention.tiles import KERNELS, Kernel, Route, Tiles


def candidates_for(kernel: Kernel, width: int) -> list[Tiles]:
    """Sizes that registers and shared memory may hold: of larger ones every compilation takes a minute and fails."""
    blocks = (32, 64, 128) if kernel == "forward" and width <= 64 else (32, 64)
    return [Tiles(*sizes) for sizes in itertools.product(blocks, (4, 8), (1, 2, 3))]


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


def tune(
    case: Case,
    tensors: fused.Tensors,
    candidates: Callable[[Kernel, int], Iterable[Tiles]],
    measure: Measure,
    *,
    known: Mapping[Kernel, Tiles] | None = None,
    keep: Callable[[Mapping[Kernel, Tiles]], None] = lambda _: None,
) -> Tuned:
    """The fastest of the candidates, one kernel after another, and of the routes.

    What is `known` is not timed again; `keep` is given all that is known after each kernel.
    """
    compute = _passes(case, tensors)
    width, q = fused.padded(case.width), tensors.q_BLHD
    architecture = tiles.architecture_of(q.device)
    usual = {kernel: tiles.default_tiles(kernel, width, q.dtype, architecture) for kernel in KERNELS}
    untuned = fused.Settings(0.0, 0, tiles=usual, route="recomputed")
    wanted = compute(untuned)
    default = measure(lambda: compute(untuned))
    found: dict[Kernel, Tiles] = dict(known or {})
    for kernel in (kernel for kernel in KERNELS if kernel not in found):
        route: Route = "semi_fused" if kernel == "position" else "recomputed"
        times: dict[Tiles, float] = {}
        for candidate in candidates(kernel, width):
            settings = fused.Settings(0.0, 0, tiles={**usual, **found, kernel: candidate}, route=route)
            taken = _timed(lambda settings=settings: compute(settings), wanted, measure)  # type: ignore[misc]
            if isinstance(taken, float):
                times[candidate] = taken
            else:
                print(f"{case.name}: {kernel} {candidate}: passed over: {taken}", file=sys.stderr)
        if times:
            found[kernel] = min(times, key=lambda candidate: times[candidate])
            keep(found)
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


class Kept:
    """The file of an architecture, written anew whenever something is found."""

    def __init__(self, path: Path, by: Mapping[str, str]) -> None:
        """What is there is gone on with where it was found by the same device, torch and Triton (`by`)."""
        there = json.loads(path.read_text()) if path.is_file() else {}
        same = all(there.get(name) == value for name, value in by.items())
        self.path = path
        self.content: dict[str, Any] = {**by, "tiles": {}, "routes": {}, "milliseconds": {}}
        if there and same:
            self.content = there

    def tiles_of(self, shape: str) -> dict[Kernel, Tiles]:
        return {kernel: Tiles(**given) for kernel, given in self.content["tiles"].get(shape, {}).items()}

    def add(self, shape: str, found: Mapping[Kernel, Tiles]) -> None:
        self.content["tiles"][shape] = {kernel: asdict(chosen) for kernel, chosen in found.items()}
        self._write()

    def conclude(self, shape: str, tuned: Tuned) -> None:
        self.content["routes"][shape] = tuned.route
        self.content["milliseconds"][shape] = {"tuned": tuned.milliseconds, "default": tuned.default_milliseconds}
        self.add(shape, tuned.tiles)

    def _write(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        draft = self.path.with_suffix(".partial")
        draft.write_text(json.dumps(self.content, indent=1) + "\n")
        draft.replace(self.path)
        tiles.forget_tuned()


def main() -> None:
    """Time the candidates on this GPU and keep the fastest."""
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=main.__doc__)
    parser.add_argument("operation", choices=("relative_attention",), nargs="?", default="relative_attention")
    parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here, and nothing but one can say what is fast on it")
    from triton import __version__ as triton_version

    device = torch.device("cuda")
    by = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton_version}
    kept = Kept(tiles.TUNED / f"{tiles.architecture_of(device)}.json", by)
    for case in RECIPES:
        name = tiles.shape_name(fused.padded(case.width), torch.bfloat16)
        if case.memory != case.queries or name in kept.content["routes"]:
            continue
        tensors = case.tensors(torch.bfloat16, device)
        one = tune(
            case, tensors, candidates_for, milliseconds_of, known=kept.tiles_of(name), keep=partial(kept.add, name)
        )
        kept.conclude(name, one)
        print(f"{case.name}: {one.milliseconds:.3f} ms, {one.default_milliseconds:.3f} by default: {one}")
    print(f"kept in {kept.path}; remove it to tune anew")


if __name__ == "__main__":
    main()
