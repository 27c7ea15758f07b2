"""Tokenizers: text to ids and back."""

from typing import Annotated

from pydantic import Field

from data_pipeline.tokenizers.byte import ByteConfig
from data_pipeline.tokenizers.byte_pairs import BytePairConfig, TokenizerFileConfig
from data_pipeline.tokenizers.word import WordConfig

TokenizerConfig = Annotated[BytePairConfig | WordConfig | ByteConfig | TokenizerFileConfig, Field(discriminator="kind")]
