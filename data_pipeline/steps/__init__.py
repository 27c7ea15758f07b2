"""Cleaning steps: what becomes of a document between the corpus and the tokenizer."""

from typing import Annotated

from pydantic import Field

from data_pipeline.steps.c4_quality import C4QualityConfig
from data_pipeline.steps.decontaminate import DecontaminateConfig
from data_pipeline.steps.exact_duplicates import ExactDuplicatesConfig
from data_pipeline.steps.gopher_quality import GopherQualityConfig
from data_pipeline.steps.gopher_repetition import GopherRepetitionConfig
from data_pipeline.steps.language_heuristics import LanguageHeuristicsConfig
from data_pipeline.steps.near_duplicates import NearDuplicatesConfig
from data_pipeline.steps.normalise import NormaliseConfig
from data_pipeline.steps.redact import RedactConfig

Step = Annotated[
    NormaliseConfig
    | LanguageHeuristicsConfig
    | GopherQualityConfig
    | GopherRepetitionConfig
    | C4QualityConfig
    | ExactDuplicatesConfig
    | NearDuplicatesConfig
    | DecontaminateConfig
    | RedactConfig,
    Field(discriminator="kind"),
]
