"""How large a kernel's tiles are, how many warps compute one, and by which route backward goes.

As measured where `tuned/` has a file of the device's architecture (`python -m kernels.tune`); else tiles that compile
with few or no registers spilled (`python -m kernels.aot`), and the route that needs the least memory.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch

TUNED = Path(__file__).parent / "tuned"

Kernel = Literal["forward", "query_gradient", "key_gradient", "distance_gradient", "position"]
KERNELS: tuple[Kernel, ...] = get_args(Kernel)

Route = Literal["recomputed", "stored", "semi_fused"]
"""How the position term is differentiated, and computed.

`recomputed`: a kernel of its own sums the gradient of each distance: no matrix of scores, forward or backward.
`stored`: backward writes the scores' gradients in the order of distances, and plain products do the rest.
`semi_fused`: as `stored`, and forward reads a matrix of position terms that was computed before.
"""
ROUTES: tuple[Route, ...] = get_args(Route)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Of one kernel; tiles are square, a power of two of at least 16."""

    block: int = 64
    warps: int = 8
    stages: int = 2


def tiles_for(kernel: Kernel, width: int, dtype: torch.dtype, architecture: str) -> Tiles:
    """For heads of this width (a power of two) on an architecture such as `sm_90`."""
    tuned = _tuned(architecture).get("tiles", {}).get(shape_name(width, dtype), {}).get(kernel)
    return Tiles(**tuned) if tuned is not None else default_tiles(kernel, width, dtype, architecture)


def route_for(width: int, dtype: torch.dtype, architecture: str) -> Route:
    """For heads of this width (a power of two) on an architecture such as `sm_90`."""
    found: Route = _tuned(architecture).get("routes", {}).get(shape_name(width, dtype), "recomputed")
    return found


def shape_name(width: int, dtype: torch.dtype) -> str:
    """What is tuned apart."""
    return f"{width} {'float32' if dtype == torch.float32 else '16 bits'}"


def default_tiles(kernel: Kernel, width: int, dtype: torch.dtype, architecture: str) -> Tiles:
    """Where nothing was tuned: what `kernels.aot` compiles, and bounds."""
    if kernel == "position":
        return Tiles(block=64, warps=8, stages=1)
    wide_float32 = dtype == torch.float32 and width > 64
    if architecture.startswith("gfx"):
        return Tiles(block=(64 if kernel == "forward" else 32) // (2 if wide_float32 else 1), warps=4, stages=1)
    if dtype == torch.float32:  # its exact products have no matrix instruction, and keep whole tiles in registers
        return Tiles(block=16 if wide_float32 else 32, warps=8, stages=2 if kernel == "distance_gradient" else 1)
    if width > 64:
        return Tiles(block=32, warps=8, stages={"key_gradient": 1, "query_gradient": 3}.get(kernel, 2))
    before_hopper = architecture.startswith("sm_8")
    if kernel == "forward":
        return Tiles(block=32, warps=4, stages=2) if before_hopper else Tiles(block=64, warps=8, stages=2)
    return Tiles(block=32, warps=4 if kernel == "key_gradient" and not before_hopper else 8, stages=2)


@lru_cache
def _tuned(architecture: str) -> dict[str, Any]:
    """`tiles`: shape -> kernel -> tiles; `routes`: shape -> route."""
    path = TUNED / f"{architecture}.json"
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        for tiles in (Tiles(**given) for of_shape in found["tiles"].values() for given in of_shape.values()):
            if tiles.block < 16 or tiles.block & (tiles.block - 1):
                raise ValueError(f"block {tiles.block} is no power of two of at least 16")
        for route in found["routes"].values():
            if route not in ROUTES:
                raise ValueError(f"route {route!r} is none of {', '.join(ROUTES)}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: is not as `python -m kernels.tune` writes it: {error}") from error
    return found


def forget_tuned() -> None:
    """Read `tuned/` again when it is next asked for."""
    _tuned.cache_clear()


@lru_cache
def architecture_of(device: torch.device) -> str:
    """As `tuned/` names it; `cpu` for the interpreter."""
    if device.type != "cuda":
        return "cpu"
    properties = torch.cuda.get_device_properties(device)
    name: str | None = getattr(properties, "gcnArchName", None)
    if torch.version.hip is not None and name is not None:
        return name.partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"
