"""Every model that can be trained: the union below is the registry."""

from typing import Annotated, get_args

from pydantic import Field

from pretrain.models.adversarial.wgan import WGANConfig
from pretrain.models.autoregressive.gpt import GPTConfig
from pretrain.models.autoregressive.made import MADEConfig
from pretrain.models.autoregressive.nade import NADEConfig
from pretrain.models.autoregressive.pixelcnn import PixelCNNConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXLConfig
from pretrain.models.autoregressive.wavenet import WaveNetConfig
from pretrain.models.energy.rbm import RBMConfig

ModelConfig = Annotated[
    TransformerXLConfig | GPTConfig | WGANConfig | RBMConfig | MADEConfig | NADEConfig | PixelCNNConfig | WaveNetConfig,
    Field(discriminator="kind"),
]
"""Any model's configuration, told apart by `kind`."""

MODEL_CONFIGS: dict[str, type[ModelConfig]] = {
    get_args(member.model_fields["kind"].annotation)[0]: member for member in get_args(get_args(ModelConfig)[0])
}
"""The members of the union by `kind`."""

__all__ = [
    "MODEL_CONFIGS",
    "GPTConfig",
    "MADEConfig",
    "ModelConfig",
    "NADEConfig",
    "PixelCNNConfig",
    "RBMConfig",
    "TransformerXLConfig",
    "WGANConfig",
    "WaveNetConfig",
]
