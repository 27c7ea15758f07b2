"""What swapped pairs allow: a cheat is seen, and infinite lookback attention learns to read as early as is possible."""

import pytest

from benchmarks.latency_frontier import possible
from data_pipeline.swap_pairs import SwapPairsConfig
from evals.translation import Translated, longest_output, translate_pairs, translation_metrics
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.models.seq2seq.encoder_decoder import Seq2Seq

DATA = SwapPairsConfig(kind="swap_pairs", num_held_out=200)
EARLY, WAITING = tuple(range(1, 11)), (2, 2, 4, 4, 6, 6, 8, 8, 10, 10)


def translated(right: float, reads: tuple[int, ...]) -> list[Translated]:
    """The test split with such a share of the tokens right, and the others wrong."""
    pairs, found, seen = DATA.pairs("test"), [], 0
    for number in range(len(pairs)):
        source, reference = (tuple(side[number].tolist()) for side in (pairs.sources, pairs.targets))
        output = []
        for token in reference:
            seen += 1
            output.append(token if int(seen * right) > int((seen - 1) * right) else (token + 1) % 11)
        found.append(Translated(source, reference, tuple(output[: len(reads)]), reads[:10]))
    return found


@pytest.mark.parametrize(
    ("right", "reads", "honest"),
    [
        (1.0, WAITING, True),
        (0.54, EARLY, True),
        (0.60, EARLY, False),
        (0.9999, (*range(1, 10), 10), False),
        (0.9999, (1, 2, 3, 4, 5, 6, 7, 8, 10, 10), False),
        (0.63, (1, 2, 3, 4, 5, 6, 7, 8, 10, 10), True),
        (0.9999, (1, 2, *WAITING[2:]), False),
        (0.90, (1, 2, *WAITING[2:]), True),
        (0.0, (), True),
    ],
)
def test_nobody_is_more_often_right_than_the_lag_allows(right: float, reads: tuple[int, ...], honest: bool) -> None:
    """A lag of 1.2 or 1.8 allows 0.636 or 0.909, whatever is below 2 no perfection."""
    assert possible(translated(right, reads), DATA) == honest


@pytest.mark.slow
def test_infinite_lookback_learns_to_wait_for_just_one_token() -> None:
    """Recipe milk_swap_pairs: every token right, at the least lag that allows it (99.8% after 1,600 of its steps)."""
    changes = ("log.tensorboard=false",)
    experiment = config.load(Experiment, config.recipe_path("milk_swap_pairs"), changes)
    trainer = experiment.trainer(Group())
    for _ in trainer.steps():
        pass
    model, data = trainer.engine.model.eval(), experiment.data
    assert isinstance(model, Seq2Seq)
    assert isinstance(data, SwapPairsConfig)
    pairs = data.pairs("test")
    found = translate_pairs(model, pairs, max_tokens=longest_output(pairs), limit=200)
    metrics = translation_metrics(found, tokens="symbols", text=data.text, references=None, protocol={})
    values = {metric.name: metric.value for metric in metrics}
    assert values["token_accuracy"] == 1.0
    assert values["differentiable_average_lagging"] == pytest.approx(2.0, abs=0.01)
    assert possible(found, data)
    impatient = [Translated(one.source, one.reference, one.output, EARLY) for one in found]
    assert not possible(impatient, data), "had it read less than that"
