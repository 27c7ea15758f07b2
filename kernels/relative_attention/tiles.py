"""How large a kernel's tiles are and how many warps compute one; plain numbers, found by measurement where there is a
file of the device's architecture beside this one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tiles:
    """Of one kernel; tiles are square, a power of two of at least 16."""

    block: int = 64
    warps: int = 4
    stages: int = 2


def default(head_width: int) -> Tiles:
    """For what was not measured."""
    return Tiles(block=64, warps=4 if head_width <= 64 else 8)
