"""What each verb prints and writes when all is well."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pretrain.config import RECIPES, recipe_names, recipe_path
from pretrain.models import MODEL_CONFIGS
from tests.cli.command_line import LAUNCH, ROOT, Forks, files_below

TINY = sorted(path.stem for path in (RECIPES / "tiny").glob("*.yaml"))

TEXT = """
name: own_text
steps: 6
model: {kind: gpt, vocab_size: 257, num_layers: 1, width: 16, num_heads: 2, inner_width: 32, context_length: 8}
data:
  kind: text
  directory: prepared
  corpus: {kind: files, directory: corpus, train: ["*.txt"], document: line}
  tokenizer: {kind: byte}
batch: {micro_batches: 2, rows: 2}
optimizer: {learning_rate: 0.01}
schedule: {kind: constant}
engine: {kind: local, device: cpu}
checkpoint: {every: 3}
evaluate: {every: 6}
log: {tensorboard: false, every: 2}
"""


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['launch.py', '--help']\n"
        "try: runpy.run_path('launch.py', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code\n"
        "heavy = {'torch', 'ray', 'deepspeed', 'numpy', 'pydantic', 'rich.progress'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for number in (*range(7), 130):
        assert re.search(rf"^ {number}  \w", done.stdout, re.MULTILINE), f"exit code {number} is documented"


def test_every_verb_has_help() -> None:
    done = subprocess.run([sys.executable, LAUNCH, "--help"], capture_output=True, text=True, timeout=60)
    verbs = re.findall(r"^│ (\w+) ", done.stdout, re.MULTILINE)
    assert verbs == [
        "prepare", "train", "resume", "evaluate", "sample", "report", "plan", "models", "recipes", "doctor",
        "export", "compare", "quickstart", "submit", "status", "logs", "cancel", "list", "checkpoints", "data",
        "cluster",
    ]  # fmt: skip


def test_models(segue: Forks, tmp_path: Path) -> None:
    rows = json.loads(segue.run("models", "--json", cwd=tmp_path).out)
    assert [row["kind"] for row in rows] == list(MODEL_CONFIGS)
    by_kind = {row["kind"]: row for row in rows}
    assert by_kind["gpt"] == {
        "kind": "gpt", "objective": "autoregressive", "data": "samples",
        "evaluate": "exact", "sample": "expensive", "latents": False, "control": "n/a",
    }  # fmt: skip
    assert by_kind["rbm"]["evaluate"] == "unnormalized"
    assert by_kind["gan"]["evaluate"] == "no"
    shown = segue.run("models", cwd=tmp_path).out
    assert all(kind in shown for kind in MODEL_CONFIGS)


@pytest.mark.parametrize("verb", [("models",), ("doctor",), *(("plan", recipe) for recipe in recipe_names())])
def test_tables_fit_80_columns(segue: Forks, tmp_path: Path, verb: tuple[str, ...]) -> None:
    """Without a terminal; and no number in them is broken over two lines."""
    lines = segue.run(*verb, cwd=tmp_path).out.splitlines()
    if verb[0] == "plan":
        start = next(index for index, line in enumerate(lines) if line.startswith("memory of one worker"))
        lines = lines[start:]
        rule = next(index for index, line in enumerate(lines) if line.startswith("───"))
        assert all(len(re.findall(r"[\d.]+", line)) == 11 for line in lines[rule + 1 :])
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("recipe", TINY)
def test_plan_and_dry_run(segue: Forks, tmp_path: Path, recipe: str) -> None:
    plan = json.loads(segue.run("plan", recipe, "--json", cwd=tmp_path).out)
    assert {place["workers"] for place in plan["placements"]} == {1, 2}
    assert plan["name"] == recipe
    dry = segue.run("train", recipe, "--dry-run", "--workers", "2", "steps=7", cwd=tmp_path)
    assert (dry.code, dry.err) == (0, "")
    resolved, _, needs = dry.out.partition(f"{recipe}: ")
    values = yaml.safe_load(resolved)
    assert values["steps"] == 7
    assert values["model"]["kind"] == yaml.safe_load(recipe_path(recipe).read_text())["model"]["kind"]
    assert f"{plan['parameters']:,} parameters" in needs
    assert f"{7 * plan['count_per_step']:,} in all" in needs
    assert "of disk" in needs
    assert files_below(tmp_path) == {}


def test_plan_on_accelerators(segue: Forks, tmp_path: Path) -> None:
    asked = ("plan", "tiny_gpt", "engine.kind=deepspeed", "--accelerator", "H100", "--nodes", "1", "--nodes", "4")
    plan = json.loads(segue.run(*asked, "--utilisation", "0.2", "--json", cwd=tmp_path).out)
    assert [(size["nodes"], size["accelerators"]) for size in plan["sizes"]] == [(1, 8), (4, 32)]
    assert plan["utilisation"] == 0.2
    assert {stage["zero_stage"] for size in plan["sizes"] for stage in size["stages"]} == {0, 1, 2, 3}
    shown = segue.run(*asked, cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    assert "the run on h100 at 0.4" in shown.out
    every = segue.run("plan", "tiny_gpt", "--accelerator", "l40s", "--json", cwd=tmp_path).out
    assert [size["accelerators"] for size in json.loads(every)["sizes"]] == [2**power for power in range(15)]
    assert files_below(tmp_path) == {}


def test_recipes(segue: Forks, tmp_path: Path) -> None:
    lines = segue.run("recipes", cwd=tmp_path).out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()


def test_the_readme_has_the_table_that_the_verb_prints(segue: Forks, tmp_path: Path) -> None:
    readme = (RECIPES.parents[1] / "README.md").read_text(encoding="utf-8")
    rows = json.loads(segue.run("models", "--json", cwd=tmp_path).out)
    for row in rows:
        kind, *cells = ["no" if value is False else "yes" if value is True else value for value in row.values()]
        assert f"| `{kind}` | {' | '.join(cells)} |" in readme


def test_a_translator_translates_and_is_reported(segue: Forks, tmp_path: Path) -> None:
    trained = segue.run("train", "tiny_seq2seq", "--run", "run", "steps=2", cwd=tmp_path)
    assert trained.code == 0, trained
    said = segue.run("sample", "run", "--prompt", "0 1 2 3", "--tokens", "5", "--out", "one.png", cwd=tmp_path)
    assert said.code == 0, said
    text, latency = said.out.splitlines()
    assert text == "" or all(word.isdigit() for word in text.split())
    assert "average lagging" in latency or "nothing was written" in latency
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert "give it a --prompt to translate" in segue.run("sample", "run", cwd=tmp_path).one_message()
    assert segue.run("report", "run", cwd=tmp_path).code == 0
    assert "token_accuracy" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "run" / "report").glob("alignment-*.png"))) == 4


def test_doctor(segue: Forks, tmp_path: Path) -> None:
    result = segue.run("doctor", "--json", cwd=tmp_path)
    findings = {finding["name"]: finding["verdict"] for finding in json.loads(result.out)}
    assert {"torch", "ray", "deepspeed", "disk", "loopback"} <= set(findings)
    assert result.code == (1 if "bad" in findings.values() else 0)


def test_text_from_files_to_sample(segue: Forks, tmp_path: Path) -> None:
    """The tokenizer goes into the run, so that it is sampled without its data."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    lines = [f"{a} and {b} make {a + b}" for a in range(20) for b in range(20)]
    (corpus / "sums.txt").write_text("\n".join(lines))
    (tmp_path / "own.yaml").write_text(TEXT)
    prepared = segue.run("prepare", "own.yaml", "--workers", "1", cwd=tmp_path)
    assert prepared.code == 0, prepared
    assert "vocabulary 257" in prepared.out
    looked_at = segue.run("data", "verify", "prepared", cwd=tmp_path)
    assert looked_at.code == 0, looked_at
    assert "every byte is as it was written" in looked_at.out
    trained = segue.run("train", "own.yaml", cwd=tmp_path)
    assert trained.code == 0, trained
    assert trained.out.splitlines()[0].startswith("step 2/6  loss ")
    assert "step 6/6  evaluated: valid/" in trained.out
    run = tmp_path / "runs" / "own_text"
    evaluated = segue.run("evaluate", run, "--json", "result.json", cwd=tmp_path)
    assert evaluated.code == 0, evaluated
    metrics = {m["name"]: m["value"] for m in json.loads((tmp_path / "result.json").read_text())["metrics"]}
    assert f"{metrics['windows/bits_per_byte']:.4f}" in evaluated.out
    shutil.rmtree(tmp_path / "prepared")
    asked = ("sample", run, "--prompt", "1 and 2 make", "--tokens", "9", "--seed", "7")
    sampled = segue.run(*asked, "--out", "text.txt", cwd=tmp_path)
    assert sampled.code == 0, sampled
    assert sampled.out.startswith("1 and 2 make")
    assert (tmp_path / "text.txt").read_text() == sampled.out.removesuffix("\n")
    assert segue.run(*asked, cwd=tmp_path).out == sampled.out
    assert segue.run(*asked[:-1], "8", cwd=tmp_path).out != sampled.out
    refused = segue.run("resume", run, "steps=8", "--allow", "steps", cwd=tmp_path)
    assert refused.code == 2
    assert "launch.py prepare" in refused.one_message()


@pytest.mark.parametrize("recipe", ["tiny_gan", "tiny_rbm"])
def test_images(segue: Forks, tmp_path: Path, recipe: str) -> None:
    trained = segue.run("train", recipe, "--run", "run", cwd=tmp_path)
    assert trained.code == 0, trained
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        drawn = segue.run("sample", "run", "--count", "10", "--seed", seed, "--out", f"{name}.png", cwd=tmp_path)
        assert drawn.code == 0, drawn
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert a.shape == (10, 64)
    assert a.min() >= 0.0
    assert a.max() <= 1.0
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    from matplotlib.image import imread

    assert imread(tmp_path / "a.png").shape[:2] == ((3 * 9 + 1) * 8, (4 * 9 + 1) * 8)
    text = segue.run("sample", "run", "--prompt", "x", cwd=tmp_path)
    assert text.code == 2
    assert "writes no text" in text.one_message()
    for option, value in (("--temperature", 0.5), ("--top-k", 3), ("--top-p", 0.5), ("--tokens", 9)):
        ignored = segue.run("sample", "run", option, value, cwd=tmp_path)
        assert ignored.code == 2
        assert f"{option}: is of text alone; it needs a --prompt" in ignored.one_message()
    both = segue.run("sample", "run", "--prompt", "x", "--count", 3, cwd=tmp_path)
    assert both.code == 2
    assert "--count: is of images, points and waves alone" in both.one_message()
    bound = segue.run("evaluate", "run", "--samples", 3, cwd=tmp_path)
    assert bound.code == 2
    assert "has no bound of log p(x) over latents; leave samples (--samples) out" in bound.one_message()
    told = segue.run("report", "run", cwd=tmp_path)
    assert told.code == 0, told
    page = (tmp_path / "run" / "report.html").read_text()
    pictures = re.findall(r'img src="([^"]+)"', page)
    assert {"loss.png", "report/samples.png"} <= set(pictures)
    assert all((tmp_path / "run" / one).read_bytes().startswith(b"\x89PNG") for one in pictures)
    assert "critic/objective</td>" in page or "model/reconstruction_nats</td>" in page
