"""Every model that can be trained: the union below is the registry."""

from typing import Annotated, get_args

from pydantic import Field

from pretrain.models.adversarial.wgan import WGANConfig
from pretrain.models.autoregressive.gpt import GPTConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXLConfig
from pretrain.models.energy.rbm import RBMConfig
from pretrain.models.flow.flow import FlowConfig
from pretrain.models.latent.vae import VAEConfig
from pretrain.models.latent.vq_vae import VQVAEConfig

ModelConfig = Annotated[
    TransformerXLConfig | GPTConfig | WGANConfig | RBMConfig | FlowConfig | VAEConfig | VQVAEConfig,
    Field(discriminator="kind"),
]
"""Any model's configuration, told apart by `kind`."""

MODEL_CONFIGS: dict[str, type[ModelConfig]] = {
    get_args(member.model_fields["kind"].annotation)[0]: member for member in get_args(get_args(ModelConfig)[0])
}
"""The members of the union by `kind`."""

__all__ = [
    "MODEL_CONFIGS",
    "FlowConfig",
    "GPTConfig",
    "ModelConfig",
    "RBMConfig",
    "TransformerXLConfig",
    "VAEConfig",
    "VQVAEConfig",
    "WGANConfig",
]
