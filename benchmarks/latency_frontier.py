"""What waiting less costs: MILk on swapped pairs, trained anew for each weight of the latency cost.

    python -m benchmarks.latency_frontier

Recipe milk_swap_pairs with 1,200 steps, one thread, one process: some 50 seconds of a processor for each weight, 0.3
once more with a weight that rises over the first 800 steps. Each model translates 200 pairs of the test split as a
stream. On this data whoever gets every token right has a differentiable average lagging (DAL) of at least 2, and who
lags by less is right for no more than `SwapPairsConfig.best_accuracy` in expectation. Results are equal where nobody
was better than that by more than four standard errors: else a stream has read what it did not say it had.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from benchmarks.table import Figure, conclude
from data_pipeline.swap_pairs import SwapPairsConfig
from evals.translation import Translated, longest_output, translate_pairs, translation_metrics
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.models.seq2seq.encoder_decoder import Seq2Seq

WEIGHTS = ((0.0, 0), (0.1, 0), (0.3, 0), (0.3, 800), (1.0, 0), (3.0, 0))
"""Lambda, and the steps over which it rises."""
STEPS = 1200
PAIRS = 200
SHOWN = {
    "token_accuracy": "accuracy", "exact_match": "exact", "differentiable_average_lagging": "DAL",
    "average_lagging": "AL", "length_adaptive_average_lagging": "LAAL", "average_proportion": "AP", "mean_arc": "arcs",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """One model of the frontier."""

    weight: float
    warmup: int
    values: dict[str, float]
    seconds: float
    """Of a processor, for training."""
    honest: bool
    """Whether it was no better than is possible."""

    def line(self) -> str:
        return (
            f"{self.weight:6.2f} {self.warmup:7} "
            + " ".join(f"{self.values[name]:8.4f}" for name in SHOWN)
            + f" {self.seconds:8.0f}"
        )


def point(weight: float, warmup: int) -> Point:
    """Trained and measured."""
    changes = [f"model.latency_weight={weight}", f"model.latency_warmup_steps={warmup}", f"steps={STEPS}"]
    experiment = config.load(Experiment, config.recipe_path("milk_swap_pairs"), changes)
    trainer, begun = experiment.trainer(Group()), time.process_time()
    for _ in trainer.steps():
        pass
    seconds = time.process_time() - begun
    model = trainer.engine.model.eval()
    assert isinstance(model, Seq2Seq)
    data = swap_pairs(experiment)
    pairs = data.pairs("test")
    found = translate_pairs(model, pairs, max_tokens=longest_output(pairs), limit=PAIRS)
    metrics = translation_metrics(found, tokens="symbols", text=data.text, references=None, protocol={})
    values = dict.fromkeys(SHOWN, float("nan")) | {metric.name: metric.value for metric in metrics}
    return Point(weight, warmup, values, seconds, possible(found, data))


def swap_pairs(experiment: Experiment) -> SwapPairsConfig:
    assert isinstance(experiment.data, SwapPairsConfig)
    return experiment.data


def possible(found: Sequence[Translated], data: SwapPairsConfig) -> bool:
    """Whether a reader that sees no further than it says can be so right: four standard errors of its guesses beyond.

    Lags are counted over the places of the references; one that was not written has the least lag, 1, and is wrong.
    """
    places = sum(len(one.reference) for one in found)
    lags = [lag for one in found for lag in _lags(one)]
    right = sum(a == b for one in found for a, b in zip(one.output, one.reference, strict=False))
    lagging, guess = sum(lags) / places, 1 / data.num_symbols
    guesses = sum(lag < 2 for lag in lags) / 2
    error = (guess * (1 - guess) * guesses) ** 0.5 / places
    return right / places <= data.best_accuracy(lagging) + 4 * error + 1e-9


def _lags(one: Translated) -> list[int]:
    """Of each place of the reference: the highest so far of how many tokens beyond the places before had been read."""
    written = min(len(one.reads), len(one.reference))
    highest = accumulate((one.reads[i] - i for i in range(written)), max)
    return [*highest, *[1] * (len(one.reference) - written)]


def main() -> None:
    """All weights, the smallest first."""
    torch.set_num_threads(1)
    names = " ".join(f"{shown:>8}" for shown in SHOWN.values())
    notes, points = [f"{'weight':>6} {'warm-up':>7} {names} {'CPU s':>8}"], []
    print(notes[0], flush=True)
    for weight, warmup in WEIGHTS:
        points.append(point(weight, warmup))
        notes.append(points[-1].line())
        print(notes[-1], flush=True)
    dal = "differentiable_average_lagging"
    whole = [p.values[dal] for p in points if p.values["token_accuracy"] == 1.0]
    honest = all(p.honest for p in points)
    figures = [
        Figure("DAL of the quickest without an error", min(whole, default=float("inf")), 2.005, "source tokens"),
        Figure("DAL of the quickest", min(p.values[dal] for p in points), 1.005, "source tokens"),
        Figure("seconds of a processor", sum(p.seconds for p in points), 600.0, "s"),
    ]
    conclude("latency_frontier", figures, same=honest, notes=notes)


if __name__ == "__main__":
    main()
