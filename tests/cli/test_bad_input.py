"""Bad input: one clear message, its exit code, no traceback, nothing left behind."""

from pathlib import Path

import pytest

from tests.cli.command_line import Forks, files_below

TEXT_RECIPE = """
name: own_text
steps: 4
model: {{kind: gpt, vocab_size: 257, num_layers: 1, width: 16, num_heads: 2, inner_width: 32, context_length: 8}}
data:
  kind: text
  directory: prepared
  corpus: {{kind: files, directory: {corpus}, train: ["*.txt"], document: line}}
  tokenizer: {{kind: byte}}
batch: {{micro_batches: 2, rows: 2}}
optimizer: {{learning_rate: 0.01}}
schedule: {{kind: constant}}
engine: {{kind: local, device: cpu}}
log: {{tensorboard: false}}
"""

XL = "tiny_transformer_xl"
GAN = "tiny_gan"

CASES = {
    "misspelt key": ([XL, "model.num_layer=3"], 2, ["model.num_layer", "did you mean 'num_layers'"]),
    "misspelt top-level key": ([XL, "step=3"], 2, ["step: there is no such key", "did you mean 'steps'"]),
    "wrong type": ([XL, "steps=many"], 2, ["steps", "integer", "'many'"]),
    "ZeRO-3 with two players": (
        [GAN, "engine={kind: deepspeed, zero_stage: 3}"], 2, ["zero_stage=3", "critic, generator", "0, 1 or 2"],
    ),
    "ZeRO-3 with weights read whole": (
        ["tiny_energy_based", "model.spectral_penalty=0.1", "engine={kind: deepspeed, zero_stage: 3}"],
        2,
        ["zero_stage=3", "model.spectral_penalty=0", "0, 1 or 2"],
    ),
    "negative memory": ([XL, "model.memory_length=-1"], 2, ["model.memory_length", "greater than or equal to 0", "-1"]),
    "workers do not divide": (
        [XL, "--workers", "3"], 2, ["workers=3", "batch.micro_batches=2", "one of 1, 2 workers"],
    ),
    "no workers": ([XL, "--workers", "0"], 2, ["workers=0"]),
    "inline with two workers": ([XL, "--workers", "2", "--launcher", "inline"], 2, ["inline", "--launcher ray"]),
    "misspelt recipe": (["tiny_transformer_xk"], 2, ["did you mean 'tiny_transformer_xl'"]),
    "missing recipe file": (["none.yaml"], 2, ["none.yaml", "no such file"]),
    "not YAML": (["broken.yaml"], 2, ["broken.yaml", "not valid YAML"]),
    "not an override": ([XL, "steps"], 2, ["'steps'", "key.path=value"]),
    "a model that cannot read the data": ([XL, "data={kind: digits}"], 2, ["digits"]),
    "another vocabulary": ([XL, "model.vocab_size=65"], 2, ["model.vocab_size is 65", "model.vocab_size=64"]),
    "data not prepared": (["own.yaml"], 2, ["prepared", "launch.py prepare"]),
    "run directory below a file": ([XL, "--run", "file/run"], 2, ["--run file/run", "cannot be made: file is a file"]),
    "run directory that is a file": ([XL, "--run", "file"], 2, ["--run file is a file", "directory of its own"]),
    "run directory with other things": ([XL, "--run", "other"], 2, ["--run other", "not empty", "thing"]),
    "run that is there": ([XL, "--run", "existing"], 3, ["existing holds a run already", "resume existing"]),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("a regular file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").write_text("something of the user's")
    (tmp_path / "existing").mkdir()
    (tmp_path / "existing" / "experiment.yaml").write_text("a run")
    (tmp_path / "broken.yaml").write_text("name: [")
    (tmp_path / "own.yaml").write_text(TEXT_RECIPE.format(corpus="corpus"))
    return tmp_path


WITHOUT_RUN = [case for case, (arguments, _, _) in CASES.items() if "--run" not in arguments]
"""A dry run looks at no run directory."""


@pytest.mark.parametrize(("case", "dry"), [*((case, False) for case in CASES), *((case, True) for case in WITHOUT_RUN)])
def test_train(segue: Forks, place: Path, case: str, dry: bool) -> None:
    arguments, code, phrases = CASES[case]
    before = files_below(place)
    result = segue.run("train", *arguments, *(["--dry-run"] if dry else []), cwd=place)
    assert result.code == code
    message = result.one_message()
    assert [phrase for phrase in phrases if phrase not in message] == [], message
    assert result.out == ""
    assert files_below(place) == before


@pytest.mark.parametrize(
    ("corpus", "phrases"),
    [("missing", ["missing"]), ("empty", ["empty"]), ("blank", ["left out: 1 empty_file"])],
)
@pytest.mark.parametrize("executor", ["local"])
def test_prepare(segue: Forks, place: Path, corpus: str, phrases: list[str], executor: str) -> None:
    (place / "empty").mkdir()
    (place / "blank").mkdir()
    (place / "blank" / "a.txt").write_text("")
    (place / "own.yaml").write_text(TEXT_RECIPE.format(corpus=corpus))
    before = files_below(place)
    result = segue.run("prepare", "own.yaml", "--executor", executor, "--workers", "1", cwd=place)
    assert result.code == 2
    message = result.one_message()
    assert [phrase for phrase in phrases if phrase not in message] == [], message
    assert files_below(place) == before


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["resume", "other"], "other holds no run"),
        (["resume", "file"], "file is a file, and no run's directory"),
        (["compare", "other", "other"], "other holds no run"),
        (["evaluate", "missing", "--json", "no/where.json"], "--json no/where.json: cannot be written"),
        (["evaluate", "missing", "--json", "other"], "--json other: cannot be written: it is a directory"),
        (["sample", "missing", "--prompt", "x", "--out", "file/x"], "--out file/x: cannot be written: file is a file"),
        (["sample", "missing", "--out", "file/deep/x.png"], "--out file/deep/x.png: cannot be written"),
        (["sample", "missing", "--prompt", "x"], "missing"),
        (["evaluate", "missing"], "missing"),
        (["checkpoints", "list", "missing"], "missing"),
        (["checkpoints", "verify", "other"], "other has no checkpoint"),
        (["checkpoints", "compare", "other", "missing"], "other has no checkpoint"),
        (["data", "other"], "launch.py prepare"),
        (["plan", "tiny_gpt", "--workers", "5"], "workers=5"),
        (
            ["plan", "tiny_gpt", "--accelerator", "h10"],
            "--accelerator h10: there is none of this name; did you mean 'h100'",
        ),
        (["plan", "tiny_gpt", "--accelerators", "8"], "--accelerators: is of accelerators; say of which kind"),
        (["plan", "tiny_gpt", "--utilisation", "0.3"], "--utilisation: is of accelerators; say of which kind"),
        (["plan", "tiny_gpt", "--accelerator", "h100", "--workers", "2"], "--workers: is for no --accelerator"),
        (
            ["plan", "tiny_gpt", "--accelerator", "h100", "--accelerators", "0"],
            "--accelerators 0: must be a whole number",
        ),
        (["plan", "tiny_gpt", "--accelerator", "h100", "--nodes", "2.5"], "--nodes 2.5: must be a whole number"),
        (
            ["plan", "tiny_gpt", "--accelerator", "h100", "--utilisation", "2"],
            "--utilisation 2: must be above 0 and at most 1",
        ),
        (
            ["plan", "tiny_gpt", "--accelerator", "h100", "--storage-bandwidth", "0"],
            "--storage-bandwidth 0: must be above 0",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_other_verbs(segue: Forks, place: Path, arguments: list[str], phrase: str) -> None:
    before = files_below(place)
    result = segue.run(*arguments, cwd=place)
    assert result.code == 2
    assert phrase in result.one_message()
    assert files_below(place) == before


@pytest.mark.parametrize("arguments", [["train"], ["trian", "tiny_gpt"], ["train", "tiny_gpt", "--worker", "2"]])
def test_usage(segue: Forks, tmp_path: Path, arguments: list[str]) -> None:
    result = segue.run(*arguments, cwd=tmp_path)
    assert result.code == 2
    assert "Usage:" in result.err
    assert "Traceback" not in result.err
    assert files_below(tmp_path) == {}


def test_what_only_a_worker_finds_leaves_nothing_either(segue: Forks, tmp_path: Path) -> None:
    """Whether there is a CUDA device is known where the engine is built."""
    result = segue.run("train", "tiny_gpt", "engine.device=cuda", "--run", "deep/run", cwd=tmp_path)
    assert result.code == 2
    assert "engine.device is 'cuda'" in result.one_message()
    assert files_below(tmp_path) == {}
