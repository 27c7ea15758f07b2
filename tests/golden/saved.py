"""A checkpoint that was saved once, by two workers under ZeRO 1, and is read by every later version.

    .venv/bin/python -m tests.golden.saved      saves it anew: only where a format that was never released has changed

`tests/golden/saved/` is a run directory with one checkpoint of a tiny Transformer-XL with memory, dropout, a judge of
spikes and a draw left out; `losses.json` beside it has the losses of the steps after it.
"""

import json
import shutil
from pathlib import Path

from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.run import Watch, run
from pretrain.trainer import Trainer
from tests.processes import run_workers

FOLDER = Path(__file__).parent / "saved"
LOSSES = Path(__file__).parent / "saved_losses.json"
SAVED, STEPS = 10, 16


def experiment(*overrides: str) -> Experiment:
    small = ("model.width=16", "model.num_heads=2", "model.head_width=8", "model.inner_width=16", "model.num_layers=1")
    fixed = ("data.num_symbols=16", "model.vocab_size=16", "model.segment_length=8", "model.memory_length=8")
    spikes = "trouble={spike: roll_back, history: 8}"
    rest = (f"steps={STEPS}", "evaluate.every=null", f"checkpoint={{every: {SAVED}, keep: 2}}", spikes)
    return config.load(Experiment, config.recipe_path("tiny_transformer_xl"), (*small, *fixed, *rest, *overrides))


def losses_of(directory: Path, group: Group, *overrides: str) -> list[float]:
    """Of the steps that this start computes."""
    losses: list[float] = []

    def leave_one_out(name: str, trainer: Trainer) -> None:
        if name == "data" and trainer.step == 0:
            trainer.skipped = [(4, 4)]

    watch = Watch(step=lambda report: losses.append(report.loss), moment=leave_one_out)
    run(experiment(*overrides), directory, group, watch=watch)
    return losses


def save_it(group: Group, directory: Path) -> list[float]:
    return losses_of(directory, group, "engine={kind: deepspeed, zero_stage: 1, device: cpu}")


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    losses = run_workers(2, save_it, FOLDER)[0]
    for name in ("metrics.jsonl", "events.jsonl", "tensorboard"):
        path = FOLDER / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    for path in (FOLDER / "checkpoints").iterdir():
        if path.name != f"step-{SAVED:09d}":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    LOSSES.write_text(json.dumps(losses[SAVED:], indent=1) + "\n")


if __name__ == "__main__":
    main()
