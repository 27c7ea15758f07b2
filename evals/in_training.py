"""Scores while a run trains, by its own engine and workers: of a held-out split, and of benchmark tasks."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import torch

from data_pipeline.batch import Batch
from data_pipeline.config import BadInput
from data_pipeline.mixture import MixtureConfig
from data_pipeline.prepared_text import PreparedText
from data_pipeline.tokenizers.tokenizer import Tokenizer
from evals.backends.segue import token_model
from evals.evaluate_tasks import find_task, of_batch
from evals.held_out import open_split
from evals.language_model import TextScore, score_documents
from evals.pairs import PairsScore, open_pairs, score_pairs
from evals.scoring.encoding import CannotBeAsked
from evals.scoring.item import ItemScore
from evals.tasks.data import DataSource, Missing
from evals.tasks.task import Task
from evals.vectors import open_vectors, score_vectors
from evals.zero_shot import NotNumbers, Reader, Work, plan, records
from pretrain.contract import Carry, Loss, Model
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.samplers.tokens import evaluating
from pretrain.trainer import Trainer

FIELD = "evaluate.tasks"
"""Where tasks are asked for, as messages name it."""


def score_held_out(trainer: Trainer, experiment: Experiment) -> dict[str, float]:
    """An `Evaluator` of `pretrain.run`: called by every worker alike, equal on all; it changes nothing in the run."""
    split = experiment.evaluate.split
    if experiment.model.reads == "vectors":
        return {f"{split}/{name}": value for name, value in _vector_scores(trainer, experiment).items()}
    if experiment.model.reads == "pairs":
        return {f"{split}/{name}": value for name, value in _pair_score(trainer, experiment).means.items()}
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


def _pair_score(trainer: Trainer, experiment: Experiment) -> PairsScore:
    score = EngineScore(trainer, trainer.engine.model.players[-1])
    return score_pairs(
        lambda batch: score(batch, None),
        open_pairs(experiment.data, experiment.evaluate.split),
        rows=experiment.batch.rows,
        seed=experiment.seed,
        group=trainer.engine.group,
    )


_plans: WeakKeyDictionary[Trainer, dict[str, Work]] = WeakKeyDictionary()
"""Of each run in training, the requests of its tasks by name: read and cut once, whatever becomes of the files."""


def score_tasks(trainer: Trainer, experiment: Experiment) -> dict[str, float]:
    """An `Evaluator` as the above: `experiment.evaluate.tasks` under the weights of now; workers share the batches.

    A task whose log-likelihoods are not finite has no values: nan stands under its name alone.
    """
    plans = _plans.get(trainer)
    if plans is None:
        plans = _plans[trainer] = _plan_together(trainer, experiment)
    found: dict[str, float] = {}
    for name, work in plans.items():
        found |= _score_task(trainer, find_task(name, FIELD), work)
    return found


def _score_task(trainer: Trainer, task: Task, work: Work) -> dict[str, float]:
    group, model = trainer.engine.group, trainer.engine.model
    scored = token_model(model, {})
    own: list[list[tuple[int, ItemScore]]] = []
    with evaluating(model):
        for number in range(group.rank, len(work.batches), group.world_size):
            trainer.stopwatch.tick()  # a long evaluation is no hang
            own.append(of_batch(work, number, scored.score([work.groups[place] for place in work.batches[number]])))
    every = [batch for share in group.gather(own) for batch in share]
    try:
        kept = sorted(records(task, work, lambda _: iter(every)), key=lambda record: record["example"])
    except NotNumbers:
        return {task.name: math.nan}  # what to do of it says `trouble`; the score of a split is nan as well
    return {f"{task.name}/{value.name}": value.value for value in task.values(kept)}


def _plan_together(trainer: Trainer, experiment: Experiment) -> dict[str, Work]:
    """All tasks as the leader has read them: no other worker needs the files, and none waits for one that failed."""
    group, model, plans = trainer.engine.group, trainer.engine.model, {}
    for name in experiment.evaluate.tasks:
        trainer.stopwatch.tick()
        plans[name] = _of_leader(group, partial(_plan, name, experiment, model))
    return plans


def _of_leader(group: Group, make: Callable[[], Work]) -> Work:
    """What the leader makes, on every worker. Where that fails all raise: BadInput if it was one, else RuntimeError."""
    made: Work | None = None
    kind: type[Exception] = RuntimeError
    failure: str | None = None
    cause: Exception | None = None
    if group.leads:
        try:
            made = make()
        except BadInput as error:
            kind, failure, cause = BadInput, str(error), error
        except Exception as error:  # whatever it is: the others must hear of it
            failure, cause = f"{FIELD}: worker 0: {type(error).__name__}: {error}", error
    made, kind, failure = group.tell((made, kind, failure))
    if made is None:
        raise kind(failure) from cause
    return made


def check_tasks(experiment: Experiment) -> None:
    """BadInput where a task that is asked for cannot be scored: no data, no tokenizer, no answer from such a model."""
    if experiment.evaluate.tasks:
        text_tokenizer(experiment)
        with torch.device("meta"):
            model = experiment.model.build()
        for name in experiment.evaluate.tasks:
            _plan(name, experiment, model)


def _plan(name: str, experiment: Experiment, model: Model) -> Work:
    """A task's requests as this model reads them; BadInput where the task, its data, a tokenizer or room is missing."""
    task, asked, tokenizer = find_task(name, FIELD), experiment.evaluate, text_tokenizer(experiment)
    source = DataSource(None if asked.tasks_directory is None else Path(asked.tasks_directory))
    scored = token_model(model, {})
    reader = Reader(tokenizer, tokenizer.end_of_document, scored.max_length, segments=scored.segments)
    try:
        return plan(task, task.load(source), reader, rows=experiment.batch.rows, limit=asked.tasks_limit)
    except Missing as missing:
        raise BadInput(f"{FIELD}: {str(missing).replace('--data-dir', 'evaluate.tasks_directory')}") from missing
    except CannotBeAsked as why:
        raise BadInput(f"{FIELD}: {task.name}: {why}") from why


def text_tokenizer(experiment: Experiment) -> Tokenizer:
    """The data's; BadInput where it is no text."""
    if not isinstance(experiment.data, PreparedText | MixtureConfig):
        raise BadInput(f"{FIELD}: data.kind {experiment.data.kind} is no text, so no task can be asked")
    return experiment.data.load_tokenizer()


class EngineScore:
    """The engine's score of one player, as both kinds of data call it."""

    def __init__(self, trainer: Trainer, player: str) -> None:
        self.trainer, self.player = trainer, player

    def __call__(self, batch: Batch, carry: Carry | None) -> Loss:
        self.trainer.stopwatch.tick()  # a long evaluation is no hang
        return self.trainer.engine.score(batch, carry, player=self.player, step=self.trainer.step)
