"""Samples of a run: its newest good checkpoint's weights, on one process.

Shape legend: N rows, D values of one, T tokens written, or samples of a wave.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster.terminal import refuse_options
from data_pipeline.config import BadInput
from data_pipeline.data import DataConfig
from data_pipeline.mixture import MixtureConfig
from data_pipeline.parallel_text import ParallelTextConfig
from data_pipeline.prepared_text import PreparedText
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.vector_data import VectorData
from evals.checkpointed import load_model, open_checkpoint
from evals.pictures.images import grid_of, images_of, write_png
from evals.pictures.points import write_points
from evals.pictures.waves import write_spectrograms, write_wav
from pretrain import config
from pretrain.contract import ConditionalSampler, LanguageModel, Model, Sampler
from pretrain.engines.engine import choose_device
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.models.vectors import VectorModelConfig
from pretrain.rng import seed_everything
from pretrain.run_directory import TOKENIZER
from pretrain.samplers.tokens import generate

MOST_SEEN = 16
"""Waves in a picture of spectrograms."""


def keep_tokenizer(experiment: Experiment, directory: Path) -> None:
    """Copy the tokenizer of the experiment's data, where it has one, into the run directory."""
    data = experiment.data
    if isinstance(data, PreparedText | ParallelTextConfig) or (isinstance(data, MixtureConfig) and data.texts()):
        data.load_tokenizer().save(directory / TOKENIZER)


def saved_model(directory: Path, step: int | None, kernels: Sequence[str]) -> tuple[Model, Experiment]:
    """The model of a checkpoint in float32, and the experiment that it belongs to; raises BadInput or Corrupt."""
    if not directory.is_dir():
        raise BadInput(f"{directory}: there is no such directory")
    reader = open_checkpoint(directory, step)
    experiment = config.parse(Experiment, dict(reader.manifest.experiment), source=str(reader.path))
    device = choose_device("auto", Group())
    chosen = experiment.kernels.changed(kernels)
    return load_model(reader, experiment.model, dtype=torch.float32, device=device, kernels=chosen), experiment


def refuse_given(options: Mapping[str, object], *, with_prompt: bool) -> None:
    """BadInput for an option of the other kind of sample that was given."""
    of, remedy = ("images, points and waves", "leave it out with") if with_prompt else ("text", "it needs a")
    refuse_options(options, f"is of {of} alone; {remedy} --prompt")


def sample_text(
    directory: Path,
    *,
    prompt: str,
    num_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    step: int | None = None,
    kernels: Sequence[str] = (),
) -> str:
    """The prompt and its continuation; without a tokenizer, the prompt is token ids, and so is the result.

    Raises BadInput where the model is no language model, or an argument is out of its range.
    """
    model, experiment = saved_model(directory, step, kernels)
    if not isinstance(model, LanguageModel):
        raise BadInput(
            f"{directory}: {experiment.model.kind} writes no text; leave --prompt out to sample images of it"
        )
    tokenizer = load_tokenizer(directory / TOKENIZER) if (directory / TOKENIZER).is_dir() else None
    ids = _encode(prompt, tokenizer, experiment)
    written_T = generate(
        model, ids, num_tokens=num_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )[0].tolist()
    if tokenizer is None:
        return " ".join(map(str, [*ids, *written_T]))
    return tokenizer.decode([*ids, *written_T])


def _encode(prompt: str, tokenizer: Tokenizer | None, experiment: Experiment) -> list[int]:
    """The prompt's ids; of an empty one the end of a document, after which a new one begins."""
    if tokenizer is not None:
        return tokenizer.encode_batch([prompt])[0].tolist() or [tokenizer.end_of_document]
    size = experiment.model.vocabulary_size or 0
    words = prompt.split() or ["0"]
    if not all(word.isdigit() and int(word) < size for word in words):
        raise BadInput(f"--prompt {prompt!r}: this run's data has no tokenizer, so give token ids from 0 to {size - 1}")
    return [int(word) for word in words]


@torch.no_grad()
def sample_vectors(
    directory: Path,
    *,
    count: int,
    label: int | None = None,
    seed: int = 0,
    step: int | None = None,
    kernels: Sequence[str] = (),
) -> tuple[Tensor, DataConfig]:
    """[count, D] float32 draws of a model that samples whole rows, all of class `label` or of any, and the data that it
    was trained on; raises BadInput where it does not, or is told no such class."""
    model, experiment = saved_model(directory, step, kernels)
    if not isinstance(model, Sampler):
        instead = "a --prompt to translate" if experiment.model.reads == "pairs" else "a --prompt"
        raise BadInput(f"{directory}: {experiment.model.kind} draws no images; give it {instead}")
    if count < 1:
        raise BadInput(f"--count {count}: must be at least 1")
    seed_everything(seed, "sample")
    if label is None:
        return model.sample(count).float().cpu(), experiment.data
    told = experiment.model.num_classes if isinstance(experiment.model, VectorModelConfig) else None
    if told is None or not isinstance(model, ConditionalSampler):
        raise BadInput(f"--class {label}: {directory} is a run of a model that is told no classes; leave --class out")
    if not 0 <= label < told:
        raise BadInput(f"--class {label}: the model is told the classes 0 to {told - 1}; give one of them")
    labels_N = torch.full((count,), label, device=next(model.parameters()).device)
    return model.sample_of(labels_N).float().cpu(), experiment.data


def check_picture(path: Path) -> None:
    """BadInput where `path` is no name of a PNG, beside which there is room for the values."""
    if path.suffix == ".npy":
        raise BadInput(f"--out {path}: is where the values go, beside the picture; name that, as {path.stem}.png")
    if path.suffix.lower() != ".png":
        raise BadInput(f"--out {path}: pictures are PNG; name it {path.stem}.png")


def write_vectors(values_ND: Tensor, path: Path, data: DataConfig | VectorData) -> Path:
    """A picture by the data's shape, and the values as .npy beside it: a grid of images; points beside the data's;
    spectrograms of the first waves, and a .wav of each. BadInput, before anything is written, where there is no picture
    of such rows, they hold numbers that are not finite, or `path` is that of the values; and where it cannot be
    written."""
    if not isinstance(data, VectorData):
        raise BadInput(f"data.kind {data.kind} is no data of images, points or waves")
    check_picture(path)
    if len(data.shape) == 3:
        images_of(values_ND, data.shape)
    elif data.shape != (2,) and data.sample_rate is None:
        raise BadInput(f"rows of shape {list(data.shape)} are no images, points or waves")
    wrong = int((~values_ND.isfinite()).flatten(1).any(-1).sum())
    if wrong:
        raise BadInput(
            f"{wrong} of {len(values_ND)} samples hold numbers that are not finite, so that none was written; "
            "the model or its chains diverge: take an earlier --checkpoint, or train with a smaller step"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path.with_suffix(".npy"), values_ND.numpy())
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be written: {error.strerror}") from error
    if len(data.shape) == 3:
        write_png(path, grid_of(images_of(values_ND, data.shape)))
    elif data.shape == (2,):
        write_points(path, values_ND, torch.from_numpy(data.vectors("valid").values))
    else:
        assert data.sample_rate is not None, "looked at above"
        waves_NT = values_ND if data.values == "real" else 2 * values_ND - 1  # silence of levels is at a half
        write_spectrograms(path, waves_NT[:MOST_SEEN], data.sample_rate)
        for number, wave_T in enumerate(waves_NT):
            write_wav(path.with_name(f"{path.stem}-{number}.wav"), wave_T, data.sample_rate)
    return path
