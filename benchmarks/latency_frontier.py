"""What waiting less costs: MILk on swapped pairs, trained anew for each weight of the latency cost.

    python -m benchmarks.latency_frontier

Recipe milk_swap_pairs with 1,200 steps, one thread, one process: some 50 seconds of a processor for each weight. Each
model translates 200 pairs of the test split as a stream. On this data (`data_pipeline.swap_pairs`) whoever gets every
token right has a differentiable average lagging (DAL) of at least 2, and whoever reads along the diagonal, at a DAL of
1, is right for at most (1 + 1 / V) / 2 of the tokens in expectation. Results are equal where nobody was better than is
possible: then a stream has read what it did not say it had.
"""

import time
from dataclasses import dataclass

import torch

from benchmarks.table import Figure, conclude
from data_pipeline.swap_pairs import SwapPairsConfig
from evals.translation import longest_output, translate_pairs, translation_metrics
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.models.seq2seq.encoder_decoder import Seq2Seq

WEIGHTS = (0.0, 0.05, 0.1, 0.3, 1.0)
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
    values: dict[str, float]
    seconds: float
    """Of a processor, for training."""

    def line(self) -> str:
        return (
            f"{self.weight:6.2f} " + " ".join(f"{self.values[name]:8.4f}" for name in SHOWN) + f" {self.seconds:8.0f}"
        )


def point(weight: float) -> Point:
    """Trained and measured."""
    changes = [f"model.latency_weight={weight}", f"steps={STEPS}"]
    experiment = config.load(Experiment, config.recipe_path("milk_swap_pairs"), changes)
    trainer, begun = experiment.trainer(Group()), time.process_time()
    for _ in trainer.steps():
        pass
    seconds = time.process_time() - begun
    model = trainer.engine.model.eval()
    assert isinstance(model, Seq2Seq)
    pairs = swap_pairs(experiment).pairs("test")
    found = translate_pairs(model, pairs, max_tokens=longest_output(pairs), limit=PAIRS)
    metrics = translation_metrics(found, tokens="symbols", text=None, protocol={})
    return Point(weight, {metric.name: metric.value for metric in metrics}, seconds)


def swap_pairs(experiment: Experiment) -> SwapPairsConfig:
    assert isinstance(experiment.data, SwapPairsConfig)
    return experiment.data


def possible(accuracy: float, lagging: float, symbols: int) -> bool:
    """Whether a reader that sees no further than it says can be so right; four standard errors of its guesses beyond.

    Below a DAL of 2 some token is a guess (one may be right by luck); at 1 or below every other one is.
    """
    if lagging >= 2 - 1e-9:
        return True
    if lagging > 1 + 1e-9:
        return accuracy < 1
    guesses = PAIRS * 5
    error = (1 / symbols * (1 - 1 / symbols) / guesses) ** 0.5 / 2
    return accuracy <= (1 + 1 / symbols) / 2 + 4 * error


def main() -> None:
    """All weights, the smallest first."""
    torch.set_num_threads(1)
    names = " ".join(f"{shown:>8}" for shown in SHOWN.values())
    notes, points = [f"{'weight':>6} {names} {'CPU s':>8}"], []
    print(notes[0], flush=True)
    for weight in WEIGHTS:
        points.append(point(weight))
        notes.append(points[-1].line())
        print(notes[-1], flush=True)
    dal = "differentiable_average_lagging"
    whole = [p.values[dal] for p in points if p.values["token_accuracy"] == 1.0]
    symbols = swap_pairs(config.load(Experiment, config.recipe_path("milk_swap_pairs"))).num_symbols
    honest = all(possible(p.values["token_accuracy"], p.values[dal], symbols) for p in points)
    figures = [
        Figure("DAL of the quickest without an error", min(whole, default=float("inf")), 2.005, "source tokens"),
        Figure("DAL of the quickest", min(p.values[dal] for p in points), 1.005, "source tokens"),
        Figure("seconds of a processor", sum(p.seconds for p in points), 600.0, "s"),
    ]
    conclude("latency_frontier", figures, same=honest, notes=notes)


if __name__ == "__main__":
    main()
