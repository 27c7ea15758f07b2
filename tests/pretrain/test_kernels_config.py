"""The choice of a kernel reaches the modules that call it, and one that cannot run is refused with its reason."""

import pytest
import torch
from torch import nn

from data_pipeline.config import BadInput
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.kernels_config import KernelsConfig, UsesKernel

CPU = torch.device("cpu")


def tiny_model() -> nn.Module:
    return config.load(Experiment, config.recipe_path("tiny_transformer_xl")).model.build()


def implementations(model: nn.Module) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module in model.modules():
        if isinstance(module, UsesKernel):
            found.setdefault(module.kernel, set()).add(module.impl)
    return found


def test_each_kernel_is_told_its_own_and_the_others_the_default() -> None:
    model = tiny_model()
    KernelsConfig(default="reference", relative_attention="auto").tell(model, CPU, torch.float32)
    assert implementations(model) == {"relative_attention": {"auto"}, "linear_cross_entropy": {"reference"}}


@pytest.mark.parametrize(
    ("chosen", "key"),
    [({"default": "triton"}, "kernels.default"), ({"relative_attention": "triton"}, "kernels.relative_attention")],
)
def test_one_that_cannot_run_is_refused(chosen: dict[str, str], key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    chosen_config = config.parse(KernelsConfig, chosen, source="test")
    with pytest.raises(BadInput, match=rf"{key} is 'triton', which cannot run .*TRITON_INTERPRET=1.*{key}=reference"):
        chosen_config.tell(tiny_model(), CPU, torch.float32)


def test_heads_too_wide_for_it_are_refused_before_the_first_step() -> None:
    wide = config.load(Experiment, config.recipe_path("tiny_transformer_xl"), ["model.head_width=144"]).model.build()
    with pytest.raises(
        BadInput, match=r"kernels.relative_attention is 'triton', .*: heads are 144 wide, it holds 128 at most"
    ):
        KernelsConfig(relative_attention="triton").tell(wide, CPU, torch.float32)
    KernelsConfig().tell(wide, CPU, torch.float32)


@pytest.mark.parametrize("recipe", ["tiny_transformer_xl", "tiny_gan"])
def test_one_asked_for_by_name_that_the_model_has_not(recipe: str) -> None:
    model = config.load(Experiment, config.recipe_path(recipe)).model.build()
    with pytest.raises(BadInput, match=r"kernels.nearest_code is 'triton', but no part of this model uses it"):
        KernelsConfig(nearest_code="triton").tell(model, CPU, torch.float32)
    KernelsConfig(nearest_code="reference").tell(model, CPU, torch.float32)


def test_a_module_that_cannot_be_told_is_noticed() -> None:
    class Forgetful(nn.Module):
        kernel = "nearest_code"
        impl = "auto"

    with pytest.raises(AssertionError, match="Forgetful lacks what UsesKernel names"):
        KernelsConfig().tell(Forgetful(), CPU, torch.float32)


def test_choices_on_the_command_line() -> None:
    changed = KernelsConfig(default="reference").changed(["relative_attention=triton", "default=auto"])
    assert (changed.of("relative_attention"), changed.of("nearest_code")) == ("triton", "auto")
    for bad in ("relative_attention", "attention=triton", "default=fast", "default=None"):
        with pytest.raises(BadInput, match=f"--kernel {bad}: must be NAME=CHOICE, NAME one of default, relative_att"):
            KernelsConfig().changed([bad])
