"""A run whose mixture is changed on the way: the same as one that was to change from the start."""

import json
from pathlib import Path
from typing import Any

from pretrain.run_directory import read_events
from tests.cli.command_line import Forks
from tests.cli.conftest import segue  # noqa: F401

RECIPE = """
name: mixed
steps: 50
model: {kind: gpt, vocab_size: 16, num_layers: 1, width: 16, num_heads: 2, inner_width: 32, context_length: 8}
data:
  kind: mixture
  sources:
    few: {kind: markov, num_symbols: 16, document_length: 20, num_documents: 30, num_held_out: 2}
    many: {kind: markov, num_symbols: 16, chain_seed: 1, document_length: 20, num_documents: 100, num_held_out: 2}
  weights: [{from_step: 0, shares: {few: 0.3, many: 0.7}}]
batch: {micro_batches: 2, rows: 2}
optimizer: {learning_rate: 0.01}
schedule: {kind: constant}
engine: {kind: local, device: cpu}
checkpoint: {every: 25}
log: {tensorboard: false}
"""
BOTH = "data.weights=[{from_step: 0, shares: {few: 0.3, many: 0.7}}, {from_step: 50, shares: {few: 3, many: 1}}]"
ALLOW = ("--allow", "steps", "--allow", "data.weights")


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_mixture_changed_at_step_50_of_100(segue: Forks, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "mixed.yaml").write_text(RECIPE)
    begun = segue.run("train", "mixed.yaml", "--run", "changed", cwd=tmp_path)
    assert begun.code == 0, begun
    refused = segue.run("resume", "changed", "steps=100", BOTH, "--allow", "steps", cwd=tmp_path)
    assert refused.code == 3
    assert "data.weights: was [{'from_step': 0" in refused.one_message()
    early = segue.run("resume", "changed", "steps=100", BOTH.replace("50", "49"), *ALLOW, cwd=tmp_path)
    assert early.code == 3
    assert "data.weights have changed for steps before 50, which the run has read already" in early.one_message()
    onward = segue.run("resume", "changed", "steps=100", BOTH, *ALLOW, cwd=tmp_path)
    assert onward.code == 0, onward
    assert (
        "data.weights was" in [e for e in read_events(tmp_path / "changed") if e["event"] == "changed"][-1]["message"]
    )
    planned = segue.run("train", "mixed.yaml", "--run", "planned", "steps=100", BOTH, cwd=tmp_path)
    assert planned.code == 0, planned
    changed, planned_rows = rows_of(tmp_path / "changed"), rows_of(tmp_path / "planned")
    assert [row["step"] for row in changed] == list(range(1, 101))
    for name in ("loss", "samples"):
        assert [row[name] for row in changed] == [row[name] for row in planned_rows]
