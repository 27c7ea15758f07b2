"""A directory of media as data, whatever it was made of."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from data_pipeline.config import Corrupt
from data_pipeline.media.audio_data import AudioConfig
from data_pipeline.media.image_data import ImagesConfig
from data_pipeline.media.media_manifest import read_media_manifest
from data_pipeline.media.music_data import MusicConfig
from data_pipeline.stored_files import first_problem

AnyMedia = ImagesConfig | AudioConfig | MusicConfig
READ = TypeAdapter[AnyMedia](Annotated[AnyMedia, Field(discriminator="kind")])


def prepared_media(directory: Path) -> AnyMedia:
    """As it was prepared, with rows of its own choice: audio in windows of a second, or of the shortest recording;
    music step by step. BadInput if the directory is not prepared; Corrupt where its record cannot be understood."""
    manifest = read_media_manifest(directory)
    try:
        corpus = {**manifest.config["corpus"], "directory": str(directory)}  # where it lay is not recorded
        values = {**manifest.config, "directory": str(directory), "corpus": corpus}
        if values["kind"] == "audio":
            values["window"] = values["rate"]
        data = READ.validate_python(values)
    except (KeyError, TypeError, ValidationError) as error:
        said = first_problem(error) if isinstance(error, ValidationError) else error
        raise Corrupt(f"{directory}: its record is of no data that Segue reads ({said}); prepare it anew") from error
    if isinstance(data, AudioConfig):
        shortest = min(int(data.shards(split).lengths.min()) for split in data.splits())
        data = data.model_copy(update={"window": min(data.window, shortest)})
    return data
