"""Small finished runs to evaluate."""

from pathlib import Path

from cluster.sampling import keep_tokenizer
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.text import TextConfig
from pretrain import config, run_directory
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.saving import save

TEXT = (
    "data={kind: text, directory: %s, tokenizer: {kind: byte}, "
    "corpus: {kind: files, directory: %s, train: [train.txt], valid: [valid.txt], document: line}}"
)


def prepared_text(directory: Path, lines: int = 60) -> str:
    """Prepares made-up lines of byte tokens under `directory`; the override that makes a recipe read them."""
    corpus = directory / "corpus"
    corpus.mkdir(parents=True)
    words = ("memory", "carries", "on", "segue", "é")
    for split, count in (("train", lines), ("valid", 5)):
        text = [" ".join(words[(i * 7 + k * k) % 5] for k in range(3 + i % 9)) for i in range(count)]
        (corpus / f"{split}.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    override = TEXT % (directory / "shards", corpus)
    prepared = config.load(Experiment, config.recipe_path("tiny_transformer_xl"), [override]).data
    assert isinstance(prepared, TextConfig)
    prepare(prepared, executor=LocalExecutor(1), report=lambda progress: None)
    return override


def finished_run(directory: Path, recipe: str, *overrides: str, steps: int = 2) -> Experiment:
    """Trains some steps and saves a checkpoint, as `train` does."""
    experiment = config.load(Experiment, config.recipe_path(recipe), [f"steps={steps}", *overrides])
    run_directory.create(directory, experiment)
    trainer = experiment.trainer(Group())
    for _ in trainer.steps():
        pass
    save(trainer, experiment, directory)
    return experiment


def run_of_two_checkpoints(directory: Path, recipe: str, *overrides: str) -> None:
    """Of bytes, of steps 1 and 2, which are far apart."""
    more = ["steps=2", "model.vocab_size=257", "model.initial_std=0.5", "optimizer.learning_rate=0.1"]
    experiment = config.load(Experiment, config.recipe_path(recipe), [*more, *overrides])
    run_directory.create(directory, experiment)
    trainer = experiment.trainer(Group())
    for _ in trainer.steps():
        save(trainer, experiment, directory)
    keep_tokenizer(experiment, directory)
