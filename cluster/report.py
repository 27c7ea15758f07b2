"""A run on one page: its loss, its held-out scores, and every picture that its model can give."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster.picture import draw_loss
from cluster.sampling import saved_model, write_vectors
from cluster.terminal import check_writable, write_text
from cluster.translation import held_out_translations
from data_pipeline.pair_data import PairData
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import VectorData
from evals.checkpointed import open_checkpoint
from evals.evaluate import evaluate_run
from evals.metric import Metric
from evals.pictures.gallery import galleries
from evals.pictures.images import grid_of, images_of, write_png
from evals.translation import Translator
from evals.vectors import open_vectors
from pretrain.contract import Model, Sampler
from pretrain.experiment import Experiment
from pretrain.models.vectors import VectorModelConfig
from pretrain.rng import seed_everything

FOLDER, PAGE = "report", "report.html"
WAVES, POINTS = 4, 2000
TRANSLATIONS = 4


@dataclass(frozen=True)
class Figure:
    """A picture of the page."""

    title: str
    path: Path


def write_report(directory: Path, *, split: str, step: int | None = None) -> Path:
    """`report.html` in the run directory, its pictures in `report/`; BadInput or Corrupt as `evaluate_run`.

    Scores and pictures are of one checkpoint, also while a run goes on and saves newer ones.
    """
    check_writable(directory / PAGE, "the report", make_directory=True)
    reader = open_checkpoint(directory, step)  # held until the page is written
    result = evaluate_run(directory, split=split, checkpoint=reader.step)
    model, experiment = saved_model(directory, reader.step, ())
    figures = [Figure("loss", draw_loss(directory))]
    if isinstance(experiment.data, VectorData):
        vectors = open_vectors(experiment.data, split)
        figures += _pictures(directory / FOLDER, model, experiment, experiment.data, vectors)
    if isinstance(experiment.data, PairData) and isinstance(model, Translator):
        shown = held_out_translations(model, experiment.data, split, TRANSLATIONS)
        for number, one in enumerate(shown, 1):
            path = directory / FOLDER / f"alignment-{number}.png"
            one.draw(path)
            figures.append(Figure(f"{one.source_text} → {one.text} (reference: {one.reference_text})", path))
    page = directory / PAGE
    write_text(page, "the report", _page(directory, result.lines()[0], result.metrics, figures))
    return page


def _pictures(
    folder: Path, model: Model, experiment: Experiment, data: VectorData, vectors: Vectors
) -> Iterator[Figure]:
    if len(data.shape) == 3:
        device = next(model.parameters()).device
        told = experiment.model.num_classes if isinstance(experiment.model, VectorModelConfig) else None
        for one in galleries(model, vectors, shape=data.shape, num_classes=told, seed=experiment.seed, device=device):
            path = folder / f"{one.name}.png"
            write_png(path, grid_of(images_of(one.values_ND, data.shape), columns=one.columns, scale=4))
            yield Figure(one.name, path)
    elif isinstance(model, Sampler):
        seed_everything(experiment.seed, "sample")
        with torch.no_grad():
            drawn_ND = model.sample(POINTS if data.shape == (2,) else WAVES).float().cpu()
        yield Figure("samples", write_vectors(drawn_ND, folder / "samples.png", data))


def _page(directory: Path, head: str, metrics: tuple[Metric, ...], figures: list[Figure]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(one.name)}</td><td>{one.value:.4f}</td>"
        f"<td>{'' if one.stderr is None else f'± {one.stderr:.4f}'}</td>"
        f"<td>{html.escape(one.unit)}</td><td>{one.count:,}</td></tr>"
        for one in metrics
    )
    pictures = "".join(
        f"<h2>{html.escape(one.title)}</h2>"
        f'<img src="{one.path.relative_to(directory).as_posix()}" alt="{html.escape(one.title)}">'
        for one in figures
    )
    return (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(directory.name)}</title>'
        "<style>body{font-family:sans-serif;max-width:60em;margin:2em auto}td{padding:0 1em 0 0}img{max-width:100%}"
        f"</style><h1>{html.escape(directory.name)}</h1><p>{html.escape(head)}</p><table>{rows}</table>{pictures}\n"
    )
