"""Scores while a run trains, by its own engine and workers: of a held-out split, and of benchmark tasks."""

from pathlib import Path

from data_pipeline.batch import Batch
from data_pipeline.config import BadInput
from data_pipeline.text import TextConfig
from data_pipeline.tokenizers.tokenizer import Tokenizer
from evals.backends.segue import token_model
from evals.evaluate_tasks import find_task, of_batch
from evals.held_out import open_split
from evals.language_model import TextScore, score_documents
from evals.scoring.encoding import CannotBeAsked
from evals.scoring.item import ItemScore
from evals.tasks.data import DataSource, Missing, TaskData
from evals.tasks.task import Task
from evals.vectors import open_vectors, score_vectors
from evals.zero_shot import Reader, plan, records
from pretrain.contract import Carry, Loss
from pretrain.experiment import Experiment
from pretrain.samplers.tokens import evaluating
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


def score_tasks(trainer: Trainer, experiment: Experiment) -> dict[str, float]:
    """An `Evaluator` as the above: `experiment.evaluate.tasks` under the weights of now; workers share the batches."""
    found: dict[str, float] = {}
    group, model = trainer.engine.group, trainer.engine.model
    for task, data in open_tasks(experiment):
        scored = token_model(model, {})
        tokenizer = text_tokenizer(experiment)
        reader = Reader(tokenizer, tokenizer.end_of_document, scored.max_length, segments=scored.segments)
        work = plan(task, data, reader, rows=experiment.batch.rows, limit=experiment.evaluate.tasks_limit)
        own: list[list[tuple[int, ItemScore]]] = []
        with evaluating(model):
            for number in range(group.rank, len(work.batches), group.world_size):
                trainer.stopwatch.tick()  # a long evaluation is no hang
                own.append(of_batch(work, number, scored.score([work.groups[place] for place in work.batches[number]])))
        shares = [iter(share) for share in group.gather(own)]
        every = [next(shares[number % group.world_size]) for number in range(len(work.batches))]
        kept = sorted(records(task, work, lambda numbers, e=every: iter(e)), key=lambda record: record["example"])  # type: ignore[misc]
        found |= {f"{task.name}/{value.name}": value.value for value in task.values(kept)}
    return found


def check_tasks(experiment: Experiment) -> None:
    """BadInput where a task that is asked for cannot be scored: no data, no tokenizer, no answer from such a model."""
    for task, data in open_tasks(experiment):
        tokenizer = text_tokenizer(experiment)
        length = experiment.model.length if experiment.model.reads == "samples" else None
        try:
            plan(task, data, Reader(tokenizer, tokenizer.end_of_document, length), rows=1)
        except CannotBeAsked as why:
            raise BadInput(f"evaluate.tasks: {task.name}: {why}") from why


def open_tasks(experiment: Experiment) -> list[tuple[Task, TaskData]]:
    """What `evaluate.tasks` names, with its data; BadInput where a task, its data or a tokenizer is missing."""
    asked = experiment.evaluate
    if asked.tasks:
        text_tokenizer(experiment)
    source = DataSource(None if asked.tasks_directory is None else Path(asked.tasks_directory))
    opened = []
    for name in asked.tasks:
        task = find_task(name, "evaluate.tasks")
        try:
            opened.append((task, task.load(source)))
        except Missing as missing:
            raise BadInput(f"evaluate.tasks: {missing}") from missing
    return opened


def text_tokenizer(experiment: Experiment) -> Tokenizer:
    """The data's; BadInput where it is no text."""
    if not isinstance(experiment.data, TextConfig):
        raise BadInput(f"evaluate.tasks: data.kind {experiment.data.kind} is no text, so no task can be asked")
    return experiment.data.load_tokenizer()


class EngineScore:
    """The engine's score of one player, as both kinds of data call it."""

    def __init__(self, trainer: Trainer, player: str) -> None:
        self.trainer, self.player = trainer, player

    def __call__(self, batch: Batch, carry: Carry | None) -> Loss:
        self.trainer.stopwatch.tick()  # a long evaluation is no hang
        return self.trainer.engine.score(batch, carry, player=self.player, step=self.trainer.step)
