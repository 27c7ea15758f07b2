"""Sources: where documents come from."""

from typing import Annotated

from pydantic import Field

from data_pipeline.sources.files import FilesConfig
from data_pipeline.sources.hub import HubConfig
from data_pipeline.sources.standard_library import StandardLibraryConfig

Corpus = Annotated[StandardLibraryConfig | FilesConfig | HubConfig, Field(discriminator="kind")]
