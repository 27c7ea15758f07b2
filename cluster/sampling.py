"""Samples of a run: its newest good checkpoint's weights, on one process.

Shape legend: N images, D values of one, H rows and W columns of its pixels, T tokens written.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from data_pipeline.parallel_text import ParallelTextConfig
from data_pipeline.text import TextConfig
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from evals.checkpointed import load_model, open_checkpoint
from pretrain import config
from pretrain.contract import LanguageModel, Model, Sampler
from pretrain.engines.engine import choose_device
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.rng import seed_everything
from pretrain.run_directory import TOKENIZER
from pretrain.samplers.tokens import generate


def keep_tokenizer(experiment: Experiment, directory: Path) -> None:
    """Copy the tokenizer of the experiment's data, where it has one, into the run directory."""
    if isinstance(experiment.data, TextConfig | ParallelTextConfig):
        experiment.data.load_tokenizer().save(directory / TOKENIZER)


def saved_model(directory: Path, step: int | None, kernels: Sequence[str]) -> tuple[Model, Experiment]:
    """The model of a checkpoint in float32, and the experiment that it belongs to; raises BadInput or Corrupt."""
    if not directory.is_dir():
        raise BadInput(f"{directory}: there is no such directory")
    reader = open_checkpoint(directory, step)
    experiment = config.parse(Experiment, dict(reader.manifest.experiment), source=str(reader.path))
    device = choose_device("auto", Group())
    chosen = experiment.kernels.changed(kernels)
    return load_model(reader, experiment.model, dtype=torch.float32, device=device, kernels=chosen), experiment


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
    directory: Path, *, count: int, seed: int = 0, step: int | None = None, kernels: Sequence[str] = ()
) -> Tensor:
    """[count, D] float32 draws of a model that samples whole rows; raises BadInput where it does not."""
    model, experiment = saved_model(directory, step, kernels)
    if not isinstance(model, Sampler):
        raise BadInput(f"{directory}: {experiment.model.kind} draws no images; give it a --prompt")
    if count < 1:
        raise BadInput(f"--count {count}: must be at least 1")
    seed_everything(seed, "sample")
    return model.sample(count).float().cpu()


def write_images(values_ND: Tensor, path: Path) -> None:
    """A PNG of square grey images, row by row, and the values as .npy beside it; raises BadInput where it cannot be."""
    side = math.isqrt(values_ND.shape[1])
    if side * side != values_ND.shape[1]:
        raise BadInput(f"rows of {values_ND.shape[1]} values are no square images")
    from matplotlib.image import imsave

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path.with_suffix(".npy"), values_ND.numpy())
        imsave(path, grid_of(values_ND.view(-1, side, side)).numpy(), format="png", cmap="gray", vmin=0.0, vmax=1.0)
    except OSError as error:
        raise BadInput(f"--out {path}: cannot be written: {error.strerror}") from error


def grid_of(images_NHW: Tensor, *, scale: int = 8) -> Tensor:
    """[rows of images, columns of images] in [0, 1] with white lines between them, each pixel `scale` wide."""
    count, height, width = images_NHW.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = torch.ones(rows * (height + 1) + 1, columns * (width + 1) + 1)
    for index, image_HW in enumerate(images_NHW):
        row, column = divmod(index, columns)
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        grid[top : top + height, left : left + width] = image_HW
    return grid.clamp(0.0, 1.0).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
