"""Fused kernels without a GPU and without numbers: their memory is asked for, and nothing is launched.

For plans: a model whose modules were told `impl="triton"` then runs on fake tensors of a CPU, and holds what it would
hold on a GPU. What the kernels would have written is not there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from kernels.choice import DRY

LAUNCHING = {
    "linear_cross_entropy": "kernels.linear_cross_entropy.triton",
    "relative_attention": "kernels.relative_attention.fused",
}
"""Operation -> the module that launches its kernels, under names of its own. That of the nearest code is not among
them: its result, which would not be there, chooses what is computed next."""


class Unlaunched:
    """In a kernel's place."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **constants: None


@contextmanager
def dry_run() -> Iterator[None]:
    """Within, in this process, no fused kernel is launched, and each can be chosen that supports the shapes."""
    kernels = [found for name in LAUNCHING.values() for found in kernels_of(import_module(name))]
    token = DRY.set(True)
    try:
        for module, name, _ in kernels:
            setattr(module, name, Unlaunched())
        yield
    finally:
        for module, name, kernel in kernels:
            setattr(module, name, kernel)
        DRY.reset(token)


def kernels_of(module: ModuleType) -> list[tuple[ModuleType, str, Any]]:
    """The module, each name by which it knows a kernel, and the kernel."""
    from triton.runtime.jit import KernelInterface

    return [(module, name, value) for name, value in vars(module).items() if isinstance(value, KernelInterface)]
