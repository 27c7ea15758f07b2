"""Every model that can be trained: the union below is the registry."""

from typing import Annotated, get_args

from pydantic import Field

from pretrain.models.adversarial.wgan import WGANConfig
from pretrain.models.autoregressive.gpt import GPTConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXLConfig
from pretrain.models.energy.rbm import RBMConfig

AnyModelConfig = TransformerXLConfig | GPTConfig | WGANConfig | RBMConfig
"""The members, for annotations of values."""

ModelConfig = Annotated[AnyModelConfig, Field(discriminator="kind")]
"""The same, told apart by `kind`, for fields of a configuration."""

MODEL_CONFIGS: dict[str, type[AnyModelConfig]] = {
    get_args(member.model_fields["kind"].annotation)[0]: member for member in get_args(AnyModelConfig)
}
"""The union's members by `kind`."""

__all__ = ["MODEL_CONFIGS", "AnyModelConfig", "GPTConfig", "ModelConfig", "RBMConfig", "TransformerXLConfig", "WGANConfig"]
