"""Which implementation of each kernel a run computes with: how it is computed, and not what."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from data_pipeline.config import BadInput, Config
from kernels.choice import IMPLEMENTATIONS, Implementation, no_triton


@runtime_checkable
class UsesKernel(Protocol):
    """A module that calls one of `kernels/` with the implementation that it was told."""

    kernel: str
    impl: Implementation

    def kernel_unsupported(self) -> str | None:
        """Why the fused kernel cannot compute what this module is made for, wherever it runs; or None."""


class KernelsConfig(Config):
    """`auto`: the fused kernel on a GPU where it supports the shapes, else the reference; or either by name."""

    default: Implementation = "auto"
    relative_attention: Implementation | None = None
    """None: as `default`; so for the others."""
    linear_cross_entropy: Implementation | None = None
    nearest_code: Implementation | None = None

    def of(self, kernel: str) -> Implementation:
        chosen: Implementation | None = getattr(self, kernel)
        return self.default if chosen is None else chosen

    def changed(self, choices: Sequence[str]) -> "KernelsConfig":
        """With choices such as `relative_attention=reference`; raises BadInput for one that cannot be."""
        changed = self.model_dump()
        for choice in choices:
            kernel, given, impl = choice.partition("=")
            if not given or kernel not in changed or impl not in IMPLEMENTATIONS:
                raise BadInput(
                    f"--kernel {choice}: must be NAME=CHOICE, NAME one of {', '.join(changed)}, CHOICE one of "
                    f"{', '.join(IMPLEMENTATIONS)}"
                )
            changed[kernel] = impl
        return KernelsConfig(**changed)

    def tell(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        """Set the modules of the model that use a kernel.

        Raises BadInput where the fused one is asked for by name and cannot run on this device in this dtype.
        """
        used = set()
        for module in model.modules():
            if isinstance(getattr(module, "kernel", None), str):
                assert isinstance(module, UsesKernel), f"{type(module).__name__} lacks what UsesKernel names"
                used.add(module.kernel)
                module.impl = self.of(module.kernel)
                reason = module.kernel_unsupported() or no_triton(device, dtype)
                if module.impl == "triton" and reason is not None:
                    key = "default" if getattr(self, module.kernel) is None else module.kernel
                    raise BadInput(
                        f"kernels.{key} is 'triton', which cannot run {module.kernel} here: {reason}; "
                        f"use kernels.{key}=reference, or auto (evaluate and sample: --kernel {key}=reference)"
                    )
        for kernel, impl in self.model_dump(exclude={"default"}).items():
            if impl == "triton" and kernel not in used:
                raise BadInput(f"kernels.{kernel} is 'triton', but no part of this model uses it; leave it out")
