"""The scorer, and what it must not be silent about."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.config import BadInput
from evals.backends.baselines import open_baseline
from evals.backends.segue import token_model
from evals.scorer import Scorer
from evals.scoring.item import Group, Item, ItemScore, Segments, score_items
from evals.tasks import TASKS
from evals.zero_shot import NotNumbers, Reader, plan, records
from tests.evals.scoring.test_models import gpt, transformer_xl
from tests.evals.tasks.fakes import folder_with

LETTERS = "abcdefghijklm"


class Letters:
    """The vocabulary of `test_models`: token 0 is also the start."""

    unknown = None

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([LETTERS.index(letter) for letter in text if letter in LETTERS]) for text in texts]


@pytest.mark.parametrize("build", [gpt, transformer_xl])
def test_the_three_ways_of_asking_agree(build: object) -> None:
    model = token_model(build(), {})  # type: ignore[operator]
    scorer = Scorer(model, Reader(Letters(), 0, model.max_length, segments=model.segments), rows=3)
    text = "bcdefgabcd"
    (whole,) = scorer.loglikelihood([("", text)])
    assert scorer.rolling([text, "", "ab"])[:2] == [pytest.approx(whole.total), 0.0]
    first, second = scorer.loglikelihood([("", text[:4]), (text[:4], text[4:])])
    assert first.total == pytest.approx(sum(whole.nats[:4]))
    answers = scorer.choices(text[:4], [text[4:6], "kl"], text[6:])
    assert answers[0].total == pytest.approx(second.total)
    assert len(answers[1].nats) == 6


def test_an_item_has_the_score_that_it_has_beside_others() -> None:
    """Memory shorter than the context: how the context is cut must not depend on who shares it."""
    model = token_model(transformer_xl(memory_length=3), {})
    context = np.arange(12) % 13
    items = [Item(context, np.array([token, 5])) for token in (1, 2)]
    (alone,), together = score_items(model, items[:1], 1), score_items(model, items, 2)
    np.testing.assert_allclose(alone.nats, together[0].nats, rtol=0, atol=1e-12)


def test_a_label_outside_of_the_vocabulary_is_refused() -> None:
    model = token_model(gpt(), {})
    with pytest.raises(BadInput, match="token 999 is none of the model's 13: is the tokenizer the model's own"):
        score_items(model, [Item(np.array([1, 2]), np.array([999]))], 1)


class Diverged:
    """Says what a model with weights that are no numbers says."""

    vocab_size, max_length = 13, 64
    segments: Segments | None = None

    def score(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        nan = ItemScore(np.array([np.nan]), np.array([False]), False)
        return [[nan for _ in group.items] for group in groups]

    def identity(self) -> dict[str, object]:
        return {}


def test_what_is_no_number_is_no_right_answer(tmp_path: Path) -> None:
    source = folder_with(tmp_path, "lambada", lambada_test__jsonl='{"text": "ab cd"}\n')
    work = plan(TASKS["lambada"], TASKS["lambada"].load(source), Reader(Letters(), 0, 64), rows=1)
    with pytest.raises(NotNumbers, match="lambada: example 0000 has log-likelihoods that are nan or infinite"):
        list(records(TASKS["lambada"], work, lambda numbers: iter([[(0, Diverged().score(work.groups)[0][0])]])))


def test_n_grams_read_the_whole_context(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("the dog barks\nthe cat purrs\na dog barks\n" * 5)
    model, words, start = open_baseline(f"kneser-ney:{file}")
    scorer = Scorer(model, Reader(words, start, None, unknown=words.unknown))
    (after_dog, after_nothing) = scorer.loglikelihood([("dog", " barks"), ("", "barks")])
    line = words.encode_batch(["dog barks"])[0]
    assert after_dog.total == pytest.approx(float(model.baseline.nats(line)[-1]))
    assert after_dog.total < after_nothing.total - 1
    assert torch.tensor(after_nothing.nats) == pytest.approx(float(model.baseline.nats(line[1:])[0]))
