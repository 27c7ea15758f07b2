"""Sources: where documents come from."""

from typing import Annotated

from pydantic import Field

from data_pipeline.sources.files import FilesConfig
from data_pipeline.sources.hub import HubConfig
from data_pipeline.sources.jsonl import JsonlConfig
from data_pipeline.sources.parquet import ParquetConfig
from data_pipeline.sources.standard_library import StandardLibraryConfig
from data_pipeline.sources.warc import WarcConfig
from data_pipeline.sources.webdataset import WebDatasetConfig

Corpus = Annotated[
    StandardLibraryConfig | FilesConfig | JsonlConfig | ParquetConfig | HubConfig | WebDatasetConfig | WarcConfig,
    Field(discriminator="kind"),
]
