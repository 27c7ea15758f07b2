"""Held-out scores while a run trains: the run's own engine and workers, on `experiment.evaluate.split`."""

from data_pipeline.batch import Batch
from evals.held_out import open_split
from evals.language_model import TextScore, score_documents
from evals.vectors import open_vectors, score_vectors
from pretrain.contract import Carry, Loss
from pretrain.experiment import Experiment
from pretrain.trainer import Trainer


def score_held_out(trainer: Trainer, experiment: Experiment) -> dict[str, float]:
    """An `Evaluator` of `pretrain.run`: called by every worker alike, equal on all; it changes nothing in the run."""
    split = experiment.evaluate.split
    if experiment.model.reads == "vectors":
        return {f"{split}/{name}": value for name, value in _vector_scores(trainer, experiment).items()}
    found = _text_score(trainer, experiment)
    scores = {"nats_per_token": found.nats_per_token, "perplexity": found.perplexity}
    if found.num_bytes:
        scores["bits_per_byte"] = found.bits_per_byte
    return {f"{split}/{name}": value for name, value in scores.items()}


def _text_score(trainer: Trainer, experiment: Experiment) -> TextScore:
    held_out = open_split(experiment.data, experiment.evaluate.split)
    model = trainer.engine.model
    return score_documents(
        EngineScore(trainer, model.players[-1]),
        held_out.documents,
        start_token=held_out.start_token,
        reads="lanes" if experiment.model.reads == "lanes" else "samples",
        segment_length=experiment.model.length or 1,
        rows=experiment.batch.rows,
        new_carry=model.initial_carry,
        max_tokens=experiment.evaluate.max_tokens,
        group=trainer.engine.group,
    )


def _vector_scores(trainer: Trainer, experiment: Experiment) -> dict[str, float]:
    vectors = open_vectors(experiment.data, experiment.evaluate.split)
    model = trainer.engine.model
    means: dict[str, float] = {}
    for player in model.players:
        found = score_vectors(
            EngineScore(trainer, player),
            vectors,
            rows=experiment.batch.rows,
            seed=experiment.seed,
            new_carry=model.initial_carry,
            group=trainer.engine.group,
        )
        means |= {f"{player}/{name}": value for name, value in found.means.items()}
    return means


class EngineScore:
    """The engine's score of one player, as both kinds of data call it."""

    def __init__(self, trainer: Trainer, player: str) -> None:
        self.trainer, self.player = trainer, player

    def __call__(self, batch: Batch, carry: Carry | None) -> Loss:
        self.trainer.stopwatch.tick()  # a long evaluation is no hang
        return self.trainer.engine.score(batch, carry, player=self.player, step=self.trainer.step)
