"""What the tests of models share."""

import secrets
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from data_pipeline.batch import TokenBatch


@pytest.fixture(autouse=True)
def fresh_seed() -> None:
    """Identities hold for any weights: draw some that nobody has seen; pytest prints the seed when a test fails."""
    seed = secrets.randbits(31)
    print(f"torch.manual_seed({seed})")
    torch.manual_seed(seed)


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """A model in float64 whose every parameter matters: none is zero or small."""

    def randomise(model: nn.Module) -> nn.Module:
        model.double().eval()
        with torch.no_grad():
            for module in model.modules():
                for name, parameter in module.named_parameters(recurse=False):
                    parameter.normal_(std=0.4)
                    if isinstance(module, nn.LayerNorm) and name == "weight":
                        parameter.add_(1.0)
        return model

    return randomise


@pytest.fixture
def token_batch() -> Callable[..., TokenBatch]:
    """A batch of these tokens; each position may look back to its row's beginning unless `age` says otherwise."""

    def build(tokens_BL: Tensor, labels_BL: Tensor | None = None, age_BL: Tensor | None = None) -> TokenBatch:
        if age_BL is None:
            age_BL = torch.arange(tokens_BL.shape[1]).expand_as(tokens_BL)
        labels_BL = tokens_BL.roll(-1, dims=1) if labels_BL is None else labels_BL
        return TokenBatch(tokens_BL, labels_BL, age_BL, torch.arange(len(tokens_BL)))

    return build
