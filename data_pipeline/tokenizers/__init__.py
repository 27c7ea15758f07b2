"""Tokenizers: text to ids and back."""

from typing import Annotated

from pydantic import Field

from data_pipeline.tokenizers.byte import ByteConfig
from data_pipeline.tokenizers.byte_pairs import BytePairConfig, TokenizerFileConfig
from data_pipeline.tokenizers.characters import CharacterConfig
from data_pipeline.tokenizers.gpt2 import GPT2Config
from data_pipeline.tokenizers.unigram import UnigramConfig
from data_pipeline.tokenizers.word import WordConfig

TokenizerConfig = Annotated[
    BytePairConfig | UnigramConfig | GPT2Config | WordConfig | CharacterConfig | ByteConfig | TokenizerFileConfig,
    Field(discriminator="kind"),
]
