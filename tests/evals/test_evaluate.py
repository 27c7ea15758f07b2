"""Scores from a checkpoint against the model itself, for text and images; each number with its record."""

import json
import math
from pathlib import Path

import pytest
import torch

from data_pipeline.batch import TokenBatch
from data_pipeline.config import BadInput
from evals.checkpointed import open_checkpoint
from evals.evaluate import evaluate_run
from kernels.relative_attention import fused
from pretrain.checkpoint import gather_weights
from pretrain.experiment import Experiment
from tests.evals.runs import finished_run, prepared_text

BYTES = ["model.vocab_size=257"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return prepared_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def recurrent(text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Experiment]:
    directory = tmp_path_factory.mktemp("runs") / "recurrent"
    return directory, finished_run(directory, "tiny_transformer_xl", text, *BYTES, "model.initial_std=0.3", steps=4)


def whole_documents(directory: Path, experiment: Experiment, split: str = "valid") -> tuple[float, int, int]:
    """Nats, tokens and bytes with every document in one segment."""
    model = experiment.model.build()
    model.load_state_dict(gather_weights(open_checkpoint(directory)))
    model.eval()
    nats, tokens, num_bytes = 0.0, 0, 0
    for document, size in experiment.data.shards(split).documents():
        labels = torch.from_numpy(document)[None]
        inputs = torch.cat([torch.tensor([[256]]), labels[:, :-1]], dim=1)
        age = torch.arange(labels.shape[1])[None]
        batch = TokenBatch(inputs, labels, age, torch.zeros(1, dtype=torch.int64))
        with torch.no_grad():
            nats -= float(model.log_prob(batch))
        tokens += labels.shape[1]
        num_bytes += size
    return nats, tokens, num_bytes


def test_with_enough_memory_the_score_is_that_of_whole_documents(recurrent: tuple[Path, Experiment]) -> None:
    directory, experiment = recurrent
    nats, tokens, num_bytes = whole_documents(directory, experiment)
    result = evaluate_run(directory, memory_length=200)
    assert result.with_memory.nats == pytest.approx(nats, rel=1e-5)
    assert (result.with_memory.tokens, result.with_memory.num_bytes) == (tokens, num_bytes)
    assert result.metric("memory/perplexity").value == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert result.metric("memory/bits_per_byte").value == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert result.without_memory.nats != pytest.approx(nats, rel=1e-4)


def test_one_segment_for_all_is_the_same_with_memory_off(recurrent: tuple[Path, Experiment]) -> None:
    directory, experiment = recurrent
    result = evaluate_run(directory, segment_length=200)
    assert result.without_memory.nats == pytest.approx(whole_documents(directory, experiment)[0], rel=1e-5)
    assert result.with_memory.nats == pytest.approx(result.without_memory.nats, rel=1e-6)


def test_no_memory_is_scored_once(recurrent: tuple[Path, Experiment]) -> None:
    directory, _ = recurrent
    result = evaluate_run(directory, memory_length=0)
    assert list(result.scores) == ["memory off"]
    assert result.without_memory == evaluate_run(directory).without_memory


def test_the_same_for_any_rows(recurrent: tuple[Path, Experiment]) -> None:
    directory, _ = recurrent
    found = [evaluate_run(directory, rows=rows).with_memory.nats for rows in (1, 3, 16)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_the_papers_way_of_reading(recurrent: tuple[Path, Experiment]) -> None:
    """Every position sees exactly as many tokens as the memory is long: the segment's length does not matter."""
    directory, _ = recurrent
    same = [evaluate_run(directory, segment_length=n, memory_length=9, same_length=True) for n in (1, 4, 9)]
    assert [r.with_memory.nats for r in same] == pytest.approx([same[0].with_memory.nats] * 3, rel=1e-5)
    clamped = evaluate_run(directory, memory_length=50, clamp_length=3)
    assert clamped.with_memory.nats != pytest.approx(
        evaluate_run(directory, memory_length=50).with_memory.nats, rel=1e-6
    )
    assert clamped.metric("memory/perplexity").protocol["clamp_length"] == 3


def test_the_record_says_how_it_was_measured(recurrent: tuple[Path, Experiment]) -> None:
    directory, experiment = recurrent
    result = evaluate_run(directory, memory_length=24, segment_length=5)
    record = result.metric("memory/nats_per_token").protocol
    assert record["checkpoint"]["step"] == 4
    assert len(record["checkpoint"]["hash"]) == 32
    assert (record["memory_length"], record["segment_length"], record["dtype"]) == (24, 5, "float32")
    assert (record["split"], record["documents"], record["tokens_dropped"]) == ("valid", 5, 0)
    assert record["tokenizer_hash"] == experiment.data.manifest().tokenizer_hash
    assert result.metric("memory off/nats_per_token").protocol["memory_length"] == 0
    json.dumps(result.to_json(), allow_nan=False)
    lines = "\n".join(result.lines())
    assert "5 documents" in lines
    assert f"{result.with_memory.bits_per_byte:.4f} bits/byte" in lines


def test_standard_error_is_that_of_the_mean(recurrent: tuple[Path, Experiment]) -> None:
    directory, _ = recurrent
    result = evaluate_run(directory)
    metric, score = result.metric("memory/nats_per_token"), result.with_memory
    mean_square = score.metrics["squared_nats"] / score.tokens
    assert metric.stderr == pytest.approx(math.sqrt((mean_square - metric.value**2) / (score.tokens - 1)), rel=1e-9)
    assert 0 < metric.stderr < metric.value


def test_precision_is_the_runs_own(text: str, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", "tiny_transformer_xl", text, *BYTES, "engine.precision=bfloat16")
    result = evaluate_run(tmp_path / "run")
    assert result.protocol["dtype"] == "bfloat16"
    assert 4 < result.with_memory.nats_per_token < 7


def test_a_model_of_windows(text: str, tmp_path: Path) -> None:
    finished_run(tmp_path / "run", "tiny_gpt", text, *BYTES)
    result = evaluate_run(tmp_path / "run", max_tokens=40)
    assert list(result.scores) == ["windows"]
    assert result.scores["windows"].tokens <= 40
    assert result.metric("windows/perplexity").protocol["lanes"] == "one per window of 16 tokens"
    with pytest.raises(BadInput, match="no score with memory"):
        _ = result.with_memory
    with pytest.raises(BadInput, match="has no memory"):
        evaluate_run(tmp_path / "run", memory_length=4)
    with pytest.raises(BadInput, match="context_length"):
        evaluate_run(tmp_path / "run", segment_length=17)


def test_documents_that_training_joins_are_one_lane(text: str, tmp_path: Path) -> None:
    joined = text.removesuffix("}") + ", separate_documents: false}"
    finished_run(tmp_path / "run", "tiny_transformer_xl", joined, *BYTES)
    result = evaluate_run(tmp_path / "run")
    assert result.with_memory.documents == 1
    assert result.metric("memory/perplexity").protocol["documents_joined"]


@pytest.mark.parametrize(("recipe", "names"), [
    ("tiny_rbm", ["linear_probe_accuracy", "model/reconstruction_nats", "nll", "unnormalized_log_prob"]),
    ("tiny_gan", ["critic/objective", "critic/wasserstein", "critic/gradient_norm", "generator/objective"]),
])  # fmt: skip
def test_images_are_scored_by_their_objectives(recipe: str, names: list[str], tmp_path: Path) -> None:
    experiment = finished_run(tmp_path / "run", recipe)
    first, again = evaluate_run(tmp_path / "run"), evaluate_run(tmp_path / "run")
    assert sorted(metric.name for metric in first.metrics) == sorted(names)
    assert [m.value for m in first.metrics] == [m.value for m in again.metrics]
    assert {metric.count for metric in first.metrics} == {len(experiment.data.vectors("valid").labels)}
    json.dumps(first.to_json(), allow_nan=False)
    assert len(first.lines()) == 1 + len(names)
    with pytest.raises(BadInput, match="reads no text"):
        evaluate_run(tmp_path / "run", segment_length=3)


def test_only_what_means_something_has_a_direction(tmp_path: Path) -> None:
    """A game's values are against this very opponent; an RBM's objective has a gradient and no value."""
    found: dict[str, dict[str, str | None]] = {}
    for recipe in ("tiny_rbm", "tiny_gan", "tiny_acai", "tiny_made"):
        finished_run(tmp_path / recipe, recipe)
        found[recipe] = {metric.name: metric.better for metric in evaluate_run(tmp_path / recipe).metrics}
    assert set(found["tiny_gan"].values()) == {None}
    assert found["tiny_rbm"].pop("linear_probe_accuracy") == "higher"
    assert found["tiny_rbm"] == {"nll": "lower", "unnormalized_log_prob": None, "model/reconstruction_nats": "lower"}
    assert found["tiny_acai"]["autoencoder/squared_error"] == "lower"
    assert found["tiny_acai"]["critic/objective"] is None
    assert found["tiny_acai"]["autoencoder/objective"] is None
    assert found["tiny_made"]["model/objective"] == "lower"


def test_samples_of_a_bound_are_refused_where_there_is_no_bound(tmp_path: Path) -> None:
    finished_run(tmp_path / "run", "tiny_made")
    with pytest.raises(BadInput, match=r"samples is 5: model.kind made has no bound of log p\(x\) over latents; leave"):
        evaluate_run(tmp_path / "run", samples=5)
    finished_run(tmp_path / "vae", "tiny_vae")
    assert evaluate_run(tmp_path / "vae", samples=5).metric("negative_iwae_5").protocol["samples"] == 5


def test_points_are_scored_by_their_modes_and_a_grid(tmp_path: Path) -> None:
    smaller = ["data.num_points=500", "data.num_held_out=50", "model.chains.sampling_steps=2"]
    finished_run(tmp_path / "run", "energy_based_eight_gaussians", *smaller)
    result = evaluate_run(tmp_path / "run")
    wanted = {
        "unnormalized_log_prob",
        "nll",
        "modes_covered",
        "high_quality",
        "model/data_energy",
        "model/sample_energy",
    }
    assert {metric.name for metric in result.metrics} == wanted
    assert "by a grid of" in result.metric("nll").protocol["log_z_is"]
    json.dumps(result.to_json(), allow_nan=False)


def test_a_chosen_checkpoint(recurrent: tuple[Path, Experiment]) -> None:
    directory, _ = recurrent
    assert evaluate_run(directory, checkpoint=4).protocol["checkpoint"]["step"] == 4
    with pytest.raises(BadInput, match="it has 4"):
        evaluate_run(directory, checkpoint=3)


def test_by_the_fused_kernels(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what computes where they are asked for, and the score is the same."""
    finished_run(tmp_path, "tiny_transformer_xl", text, *BYTES, "model.initial_std=0.3", steps=1)
    calls: list[object] = []
    honest = fused.relative_attention
    monkeypatch.setattr(fused, "relative_attention", lambda *given: calls.append(given) or honest(*given))
    plain = evaluate_run(tmp_path, max_tokens=300, kernels=["default=reference"])
    assert not calls
    by_kernels = evaluate_run(tmp_path, max_tokens=300, kernels=["default=triton"])
    assert calls
    assert by_kernels.with_memory.nats == pytest.approx(plain.with_memory.nats, rel=1e-5)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"kernels": ["default=fast"]}, "--kernel default=fast"), ({"split": "exam"}, "exam"),
    ({"rows": 0}, "at least 1"), ({"memory_length": -1}, "memory_length"),
])  # fmt: skip
def test_bad_arguments(recurrent: tuple[Path, Experiment], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        evaluate_run(recurrent[0], **arguments)  # type: ignore[arg-type]


def test_no_run_and_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no run"):
        evaluate_run(tmp_path)
    experiment = finished_run(tmp_path / "run", "tiny_rbm")
    for path in sorted((tmp_path / "run" / "checkpoints").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(BadInput, match="no checkpoint yet"):
        evaluate_run(tmp_path / "run")
    assert experiment.name == "tiny_rbm"


def test_markov_tokens_have_no_bytes(tmp_path: Path) -> None:
    finished_run(tmp_path / "run", "tiny_transformer_xl")
    result = evaluate_run(tmp_path / "run")
    assert [m.name.split("/")[1] for m in result.metrics] == ["nats_per_token", "perplexity"] * 2
    assert "bits/byte" not in "".join(result.lines())
    json.dumps(result.to_json(), allow_nan=False)
