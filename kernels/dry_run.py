"""Fused kernels without a GPU and without numbers: their memory is asked for, and nothing is launched.

For plans: a model whose modules were told `impl="triton"` then runs on fake tensors, and holds what it would hold on a
GPU. What the kernels would have written is not there.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

from kernels.choice import DRY

LAUNCHING = ("kernels.linear_cross_entropy.triton", "kernels.nearest_code.triton", "kernels.relative_attention.fused")
"""The modules that launch kernels, under names of their own."""


class Unlaunched:
    """In a kernel's place."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **constants: None


@contextmanager
def dry_run() -> Iterator[None]:
    """Within, in this process, no fused kernel is launched, and each can be chosen that supports the shapes."""
    modules = [import_module(name) for name in LAUNCHING]
    token = DRY.set(True)
    try:
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(patch.multiple(module, **{name: Unlaunched() for name in kernels_of(module)}))
            yield
    finally:
        DRY.reset(token)


def kernels_of(module: ModuleType) -> list[str]:
    """By which names the module knows kernels."""
    from triton.runtime.jit import KernelInterface

    return [name for name, value in vars(module).items() if isinstance(value, KernelInterface)]
