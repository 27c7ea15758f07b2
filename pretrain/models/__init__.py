"""Every model that can be trained: the union below is the registry."""

from typing import Annotated, get_args

from pydantic import Field

from pretrain.models.adversarial.acai import ACAIConfig
from pretrain.models.adversarial.gan import GANConfig
from pretrain.models.autoregressive.gpt import GPTConfig
from pretrain.models.autoregressive.made import MADEConfig
from pretrain.models.autoregressive.nade import NADEConfig
from pretrain.models.autoregressive.pixelcnn import PixelCNNConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXLConfig
from pretrain.models.autoregressive.wavenet import WaveNetConfig
from pretrain.models.energy.energy_based import EnergyBasedConfig
from pretrain.models.energy.rbm import RBMConfig
from pretrain.models.flow.flow import FlowConfig
from pretrain.models.latent.vae import VAEConfig
from pretrain.models.latent.vq_vae import VQVAEConfig
from pretrain.models.seq2seq.encoder_decoder import Seq2SeqConfig

ModelConfig = Annotated[
    TransformerXLConfig
    | GPTConfig
    | MADEConfig
    | NADEConfig
    | PixelCNNConfig
    | WaveNetConfig
    | Seq2SeqConfig
    | FlowConfig
    | VAEConfig
    | VQVAEConfig
    | GANConfig
    | ACAIConfig
    | RBMConfig
    | EnergyBasedConfig,
    Field(discriminator="kind"),
]
"""Any model's configuration, told apart by `kind`."""

MODEL_CONFIGS: dict[str, type[ModelConfig]] = {
    get_args(member.model_fields["kind"].annotation)[0]: member for member in get_args(get_args(ModelConfig)[0])
}
"""The members of the union by `kind`."""

__all__ = [
    "MODEL_CONFIGS",
    "ACAIConfig",
    "EnergyBasedConfig",
    "FlowConfig",
    "GANConfig",
    "GPTConfig",
    "MADEConfig",
    "ModelConfig",
    "NADEConfig",
    "PixelCNNConfig",
    "RBMConfig",
    "Seq2SeqConfig",
    "TransformerXLConfig",
    "VAEConfig",
    "VQVAEConfig",
    "WaveNetConfig",
]
