"""Energy-based models whose log Z is known or can be summed."""

import torch

from pretrain.models import EnergyBasedConfig
from pretrain.models.energy.energy_based import EnergyBased


def points_model(*, reference_std: float | None, clamp: bool = False, strength: float = 0.0) -> EnergyBased:
    """Of points of the plane; `strength` 0 leaves nothing of the network."""
    config = EnergyBasedConfig.model_validate(
        {
            "kind": "energy_based",
            "row_shape": [2],
            "network": {"kind": "perceptron", "widths": [16, 16], "activation": "silu"},
            "reference_std": reference_std,
            "chains": {"low": -3.0, "high": 2.0, "clamp": clamp, "steps": 1, "step_size": 0.1},
        }
    )
    torch.manual_seed(0)
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(strength * torch.randn_like(parameter))
    return model
