"""`data inspect`, `data stats` and `data verify`: of directories, recipes, runs and mixtures."""

import json
from pathlib import Path

import pytest

from tests.cli.command_line import Forks
from tests.cli.conftest import segue  # noqa: F401

RECIPE = """
name: own_text
steps: 4
model: {kind: gpt, vocab_size: 257, num_layers: 1, width: 16, num_heads: 2, inner_width: 32, context_length: 32}
data:
  kind: text
  directory: prepared
  corpus: {kind: files, directory: corpus, train: ["*.txt"], valid: ["*.held"], document: line}
  tokenizer: {kind: byte}
batch: {micro_batches: 2, rows: 2}
optimizer: {learning_rate: 0.01}
schedule: {kind: constant}
engine: {kind: local, device: cpu}
log: {tensorboard: false}
"""
MIXED = """{kind: mixture, weights: [{from_step: 0, shares: {a: 1, b: 3}}], sources: {
a: {kind: prepared, directory: prepared, packing: best_fit}, b: {kind: prepared, directory: prepared}}}"""


def write_corpus(place: Path) -> None:
    """That of the recipe: 81 documents to train on, and two that are held out."""
    (place / "corpus").mkdir()
    (place / "corpus" / "sums.txt").write_text(
        "\n".join(f"{a} and {b} make {a + b}" for a in range(9) for b in range(9))
    )
    (place / "corpus" / "few.held").write_text("2 and 2 make 4\nand more")


@pytest.fixture(scope="module")
def place(segue: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A recipe, its prepared text, a run, and a recipe of a mixture."""
    place = tmp_path_factory.mktemp("place")
    write_corpus(place)
    (place / "own.yaml").write_text(RECIPE)
    (place / "mixed.yaml").write_text(
        RECIPE[: RECIPE.index("data:")] + f"data: {MIXED}\n" + RECIPE[RECIPE.index("batch:") :]
    )
    for verb in (["prepare", "own.yaml", "--workers", "1"], ["train", "own.yaml", "--run", "run"]):
        done = segue.run(*verb, cwd=place)
        assert done.code == 0, done
    return place


def test_inspect_shows_sources_and_a_batch_as_the_model_sees_it(segue: Forks, place: Path) -> None:  # noqa: F811
    shown = [segue.run("data", "inspect", target, cwd=place) for target in ("own.yaml", "run", "prepared")]
    manifest = json.loads((place / "prepared" / "manifest.json").read_text())
    for one in shown:
        assert one.code == 0, one
        assert f"tokenizer byte {manifest['tokenizer_hash']}, vocabulary 257" in one.out
        assert "train: 81 documents" in one.out
        assert "row 1: sample " in one.out
    assert shown[0].out.splitlines()[1:] == shown[1].out.splitlines()[1:], "a run and its recipe read the same"
    packed = segue.run("data", "inspect", "own.yaml", "data.packing=best_fit", "--rows", "1", cwd=place)
    row = packed.out[packed.out.index("row 0") :].splitlines()
    assert [line.split("'")[0] for line in row[1:3]] == 2 * ["  begins anew  "]
    assert all(line.endswith("<eos>'") for line in row[1:3]), "whole documents"
    assert "positions of padding" in row[-1]


def test_inspect_of_a_mixture_tells_the_sources_of_rows(segue: Forks, place: Path) -> None:  # noqa: F811
    shown = segue.run("data", "inspect", "mixed.yaml", "--draw", "1", cwd=place)
    assert shown.code == 0, shown
    assert "weights from step 0: a 25.00%, b 75.00%" in shown.out
    rows = [line for line in shown.out.splitlines() if line.startswith("row ")]
    assert len(rows) == 2
    assert all(" of the source " in row for row in rows)
    described = json.loads(segue.run("data", "inspect", "mixed.yaml", "--json", cwd=place).out)
    assert described["weights"] == [{"from_step": 0, "numbers": {"a": 1, "b": 3}}]
    assert described["sources"].keys() == {"a", "b"}


def test_inspect_of_lanes_says_what_is_remembered(segue: Forks, tmp_path: Path) -> None:  # noqa: F811
    shown = segue.run("data", "inspect", "tiny_transformer_xl", "--draw", "1", "--rows", "1", cwd=tmp_path)
    assert shown.code == 0, shown
    assert "  goes on, sees " in shown.out


@pytest.mark.parametrize("recipe", ["tiny_vae", "wavenet_waves"])
def test_inspect_draws_images_and_spectrograms(segue: Forks, tmp_path: Path, recipe: str) -> None:  # noqa: F811
    drawn = segue.run("data", "inspect", recipe, "--png", "batch.png", "--rows", "1", cwd=tmp_path)
    assert drawn.code == 0, drawn
    assert (tmp_path / "batch.png").read_bytes().startswith(b"\x89PNG")
    assert "train: " in drawn.out


def test_stats_count_by_length_source_and_split(segue: Forks, place: Path) -> None:  # noqa: F811
    found = json.loads(segue.run("data", "stats", "prepared", "--json", cwd=place).out)
    train, valid = found["splits"]
    texts = [line.encode() for line in (place / "corpus" / "sums.txt").read_text().splitlines()]
    assert (train["documents"], train["bytes"]) == (81, sum(map(len, texts)))
    assert train["tokens"] == train["bytes"] + 81
    assert train["bytes_per_token"] == train["bytes"] / train["tokens"]
    lengths = [len(text) + 1 for text in texts]
    assert (train["length"]["least"], train["length"]["most"]) == (min(lengths), max(lengths))
    expected = {(start, 2 * start - 1): sum(start <= one < 2 * start for one in lengths) for start in (8, 16)}
    assert {(one["from"], one["to"]): one["documents"] for one in train["histogram"]} == {
        edges: count for edges, count in expected.items() if count
    }
    assert valid["documents"] == 2
    table = segue.run("data", "stats", "mixed.yaml", "--png", "lengths.png", cwd=place)
    assert table.code == 0, table
    assert "a train: documents by tokens" in table.out
    assert "b valid: documents by tokens" in table.out
    assert "█" in table.out
    assert (place / "lengths.png").read_bytes().startswith(b"\x89PNG")
