"""What `data` is asked of: a prepared directory, a run, or a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import BadInput
from data_pipeline.data import DataConfig, prepared_directories
from data_pipeline.manifest import MANIFEST_FILE, read_manifest
from data_pipeline.markov import MarkovConfig
from data_pipeline.media.media_manifest import is_media
from data_pipeline.media.prepared_media import prepared_media
from data_pipeline.mixture import MixtureConfig
from data_pipeline.prepared_text import PreparedConfig, PreparedText
from pretrain.config import recipe_path
from pretrain.experiment import Experiment, load_experiment
from pretrain.run_directory import EXPERIMENT, read_experiment


@dataclass(frozen=True, slots=True)
class Target:
    """Data, and the experiment that reads them where it was one."""

    name: str
    data: DataConfig
    experiment: Experiment | None

    def directories(self) -> dict[str, Path]:
        """Of token shards or tars, by source; BadInput where the data have none."""
        found = prepared_directories(self.data)
        if not found:
            raise BadInput(
                f"{self.name}: data.kind {self.data.kind} has no directory of token shards or tars; give one, or a "
                "recipe or a run that reads one"
            )
        return found

    def sources(self) -> Mapping[str, DataConfig]:
        """By name; of data that are no mixture the only one, without a name."""
        return self.data.named() if isinstance(self.data, MixtureConfig) else {"": self.data}

    def documents_of(self) -> Mapping[str, PreparedText | MarkovConfig]:
        """The sources of tokenized documents; BadInput where there is none."""
        found = {
            name: source for name, source in self.sources().items() if isinstance(source, PreparedText | MarkovConfig)
        }
        if not found:
            raise BadInput(f"{self.name}: data.kind {self.data.kind} has no documents of tokens, and no prepared media")
        return found


def open_target(name: str, overrides: tuple[str, ...] = ()) -> Target:
    """By what is there: a directory with a manifest or with a run, else a recipe's name or file."""
    path = Path(name)
    if path.is_dir():
        if (path / EXPERIMENT).is_file():
            experiment = read_experiment(path, overrides)
            return Target(name, experiment.data, experiment)
        if overrides:
            raise BadInput(f"{overrides[0]}: changes are of recipes and runs, and {name} is a directory of data")
        if is_media(path):
            return Target(name, prepared_media(path), None)
        if not (path / MANIFEST_FILE).is_file():
            read_manifest(path)  # says what to do
        return Target(name, PreparedConfig(kind="prepared", directory=name), None)
    try:
        recipe_path(name)
    except BadInput as error:
        raise BadInput(f"{name}: is no directory of prepared data, and no run; as a {error}") from error
    experiment = load_experiment(name, overrides)
    return Target(name, experiment.data, experiment)
