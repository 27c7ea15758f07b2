"""Engines: `local` is the specification, `deepspeed` shards and scales it."""

from pretrain.engines.deepspeed import DeepSpeedEngineConfig
from pretrain.engines.local import LocalEngineConfig

EngineConfig = LocalEngineConfig | DeepSpeedEngineConfig

__all__ = ["DeepSpeedEngineConfig", "EngineConfig", "LocalEngineConfig"]
