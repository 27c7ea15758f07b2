"""Single translations of a run: the text, its latency, its alignment, and the page of a run."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from cluster.report import write_report
from cluster.sampling import keep_tokenizer, sample_vectors
from cluster.translation import translate_prompt
from data_pipeline.config import BadInput
from evals.evaluate import evaluate_run
from tests.data_pipeline.test_parallel_text import ENGLISH, FRENCH, write
from tests.evals.runs import finished_run


def run_of_text(directory: Path, vocab_size: int = 22) -> Path:
    """A run of words, of which nothing is learned, in the directory `run`."""
    for stem in ("train", "valid"):
        write(directory / "raw", stem, ENGLISH * 4, FRENCH * 4)
    write(directory / "raw", "test", ["", "a cat", "a zebra .", "a dog runs . . . ."], ["x", "un chat", "le z .", "un"])
    data = (
        f"data={{kind: parallel_text, directory: {directory / 'kept'}, files: {directory / 'raw'}, source: en, "
        "target: fr, tokenizer: {kind: word, end_of_line: false}, max_length: 6}"
    )
    run = directory / "run"
    overrides = [data, f"model.vocab_size={vocab_size}", "model.boundary=0"]
    keep_tokenizer(finished_run(run, "tiny_seq2seq", *overrides), run)
    return run


def test_a_prompt_is_translated_as_a_stream(tmp_path: Path) -> None:
    run, picture = run_of_text(tmp_path), tmp_path / "one.png"
    shown = translate_prompt(run, prompt=" a cat sits . ", max_tokens=6, out=picture)
    assert len(shown.source) == 4
    assert len(shown.translation.steps) <= 6
    assert set(shown.text.split()) <= {*" ".join(FRENCH + ENGLISH).split(), "<unk>"}
    reads = shown.translation.reads
    assert f"read when each was written: {' '.join(map(str, reads))}" in shown.latency_line()
    assert np.ptp(imread(picture)[..., :3]) > 0.5
    (tmp_path / "raw").rename(tmp_path / "moved")
    (tmp_path / "kept").rename(tmp_path / "gone")
    again = translate_prompt(run, prompt="a cat sits .", max_tokens=6)
    assert again.translation == shown.translation, "the run holds its tokenizer"


def test_symbols_are_a_prompt_where_there_is_no_tokenizer(tmp_path: Path) -> None:
    finished_run(tmp_path, "tiny_seq2seq")
    shown = translate_prompt(tmp_path, prompt="0 1 2 3", max_tokens=7)
    assert shown.source == (0, 1, 2, 3)
    assert shown.text == " ".join(map(str, shown.translation.tokens))
    for prompt, message in (("0 5", "token ids from 0 to 4"), ("a", "token ids from 0 to 4"), (" ", "prompt is empty")):
        with pytest.raises(BadInput, match=message):
            translate_prompt(tmp_path, prompt=prompt, max_tokens=7)
    with pytest.raises(BadInput, match="--tokens 0: must be at least 1"):
        translate_prompt(tmp_path, prompt="0", max_tokens=0)
    with pytest.raises(BadInput, match="give it a --prompt to translate"):
        sample_vectors(tmp_path, count=1)


def test_the_page_of_a_run_has_scores_and_alignments(tmp_path: Path) -> None:
    run = run_of_text(tmp_path)
    page = write_report(run, split="test").read_text(encoding="utf-8")
    assert all(name in page for name in ("token_accuracy", "streaming_nats_per_token", "<td>bleu</td>"))
    assert "2 of 4 pairs (1 empty and 1 of more than 6 tokens left out), 2 tokens unknown" in page
    pictures = sorted((run / "report").iterdir())
    assert [path.name for path in pictures] == ["alignment-1.png", "alignment-2.png"]
    assert all(f'src="report/{path.name}"' in page for path in pictures)
    assert "(reference: un chat)" in page
    assert "(reference: le z .)" in page, "as it was before the tokenizer"


def test_what_was_left_out_of_a_split_is_in_the_record(tmp_path: Path) -> None:
    result = evaluate_run(run_of_text(tmp_path), split="test")
    assert result.metric("bleu").protocol["split_read"] == {
        "lines": 4, "empty": 1, "too_long": 1, "unknown": 2, "pairs": 2, "max_length": 6,
    }  # fmt: skip
    assert "1 of more than 6 tokens left out" in result.lines()[0]
