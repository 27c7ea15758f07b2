"""How large a kernel's tiles are and how many warps compute one: as measured where `tuned/` has a file of the device's
architecture, else what compiles without spilling (`python -m kernels.aot`)."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import torch

TUNED = Path(__file__).parent / "tuned"

Kernel = Literal["forward", "query_gradient", "key_gradient", "distance_gradient"]
KERNELS: tuple[Kernel, ...] = get_args(Kernel)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Of one kernel; tiles are square, a power of two of at least 16."""

    block: int = 64
    warps: int = 8
    stages: int = 2


def tiles_for(kernel: Kernel, width: int, architecture: str) -> Tiles:
    """For heads of this width (a power of two) on an architecture such as `sm_90`."""
    tuned = _tuned(architecture).get(kernel, {}).get(str(width))
    return Tiles(**tuned) if tuned is not None else _default(kernel, width, architecture)


def _default(kernel: Kernel, width: int, architecture: str) -> Tiles:
    if architecture.startswith("gfx"):
        return Tiles(block=64 if kernel == "forward" else 32, warps=4, stages=1)
    if width > 64:
        return Tiles(block=32, warps=8, stages=1 if kernel == "key_gradient" else 2)
    if kernel == "forward":
        return Tiles(block=32, warps=4, stages=2) if architecture == "sm_80" else Tiles(block=64, warps=8, stages=2)
    return Tiles(block=32, warps=4 if kernel == "key_gradient" else 8, stages=2)


@lru_cache
def _tuned(architecture: str) -> dict[str, dict[str, dict[str, int]]]:
    """Kernel -> width -> tiles."""
    path = TUNED / f"{architecture}.json"
    found: dict[str, dict[str, dict[str, int]]] = json.loads(path.read_text())["tiles"] if path.is_file() else {}
    return found


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
