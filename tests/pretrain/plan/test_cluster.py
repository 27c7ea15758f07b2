"""A run on accelerators: sizes, what fits, rates and times, by hand."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from data_pipeline.config import BadInput
from pretrain import config
from pretrain.accelerators import ACCELERATORS, Accelerator
from pretrain.experiment import Experiment
from pretrain.plan import ClusterPlan, plan_cluster
from pretrain.plan.cluster import ALL_SIZES, sizes_of
from pretrain.plan.division import divide
from pretrain.plan.subject import Subject

H100 = ACCELERATORS["h100"]


def recipe(name: str, *overrides: str) -> Experiment:
    return config.load(Experiment, config.recipe_path(name), overrides)


def planned(experiment: Experiment, *accelerators: int, kind: Accelerator = H100, **settings: Any) -> ClusterPlan:
    settings = {"utilisation": 0.4, "storage_bandwidth": 1e9, **settings}
    return plan_cluster(experiment, kind, sizes_of(kind, accelerators=list(map(str, accelerators))), **settings)


DEEPSPEED = (
    "engine={kind: deepspeed, precision: bfloat16, device: cpu, whole_below: 0, bucket_size: 100, zero_stage: 1}"
)


@pytest.fixture(scope="module")
def gpt2() -> ClusterPlan:
    return planned(recipe("gpt2_1558m"), 8, 128, 256, 1024)


def test_rates_and_days_of_gpt2(gpt2: ClusterPlan) -> None:
    """Operations by hand: 6 of each weight and token for forward and backward, 12 L d T / 2 of attention, and all but
    the output layer's 2 once more, as activations are recomputed."""
    width, layers, length, words = 1600, 48, 1024, 50257
    blocks = layers * (2 * 12 * width**2 + 4 * width * (length + 1) / 2)
    per_token = 4 * blocks + 3 * 2 * words * width
    size = gpt2.sizes[0]
    assert (gpt2.run.flops_per_step + gpt2.run.recomputed_flops_per_step) / 524_288 == pytest.approx(per_token)
    assert size.rate == pytest.approx(8 * 0.4 * 989e12 / per_token)
    assert size.count_per_step == 512 * 1024
    assert size.steps == 572_204
    assert size.days == pytest.approx(572_204 * 524_288 / size.rate / 86_400)
    assert size.stage.zero_stage == 2


def test_a_larger_batch_is_another_experiment_of_as_many_tokens(gpt2: ClusterPlan) -> None:
    given, _, other, larger = gpt2.sizes
    assert [size.division.kind for size in gpt2.sizes] == ["as given"] * 2 + ["other micro-batches", "larger batch"]
    assert other.count_per_step == given.count_per_step
    assert larger.count_per_step == 1024 * 1024
    assert larger.steps == 572_204 // 2


def test_a_step_takes_as_long_as_the_longer_of_computing_and_sending(gpt2: ClusterPlan) -> None:
    n = 1_557_611_200
    sent = (2 * 1023 / 1024 * 4 + 1023 / 1024 * 2) * n  # one micro-batch each: its gradients, then the weights
    size = gpt2.sizes[-1]
    assert size.stage.traffic.total == pytest.approx(sent)
    assert size.stage.link_seconds == pytest.approx(sent / 400e9)
    assert size.stage.link_seconds > size.compute_seconds
    assert size.step_seconds == size.stage.link_seconds
    assert gpt2.sizes[0].step_seconds == gpt2.sizes[0].compute_seconds > gpt2.sizes[0].stage.link_seconds


def test_checkpoints_of_gpt2(gpt2: ClusterPlan) -> None:
    """Float32 weights and two moments, and a micro-batch of 4 rows: three times 1,024 numbers of 8 bytes and an id."""
    size = gpt2.sizes[0]
    assert size.checkpoint_bytes == 3 * 4 * 1_557_611_200 + 4 * (3 * 1024 * 8 + 8)
    written = {stage.zero_stage: stage.checkpoint_bytes for stage in size.stages}
    assert written[0] == size.checkpoint_bytes, "the leader writes what is whole"
    assert written[1] == written[2] == written[3] == 3 * 4 * 1_557_611_200 // 8 + 4 * (3 * 1024 * 8 + 8)
    assert gpt2.checkpoint_seconds(size) == size.checkpoint_bytes / 1e9
    half = planned(recipe("gpt2_1558m"), 8, storage_bandwidth=5e8)
    assert half.checkpoint_seconds(half.sizes[0]) == 2 * gpt2.checkpoint_seconds(size)


def test_what_fits_is_said_by_stage() -> None:
    """Of a memory between those that two stages need."""
    experiment = recipe("tiny_gpt", DEEPSPEED, "batch.micro_batches=8")
    subject = Subject(experiment, on_gpu=True)
    division = divide(experiment.batch, 4)
    needs = [max(subject.memory(division, s).on_device, subject.starting(division, s)) for s in subject.stages()]
    assert needs[0] > needs[1] > max(needs[2:])
    between = replace(H100, memory=(needs[1] + needs[2]) / 2)
    (size,) = planned(experiment, 4, kind=between).sizes
    assert [stage.fits for stage in size.stages] == [need < between.memory for need in needs]
    assert size.fits_from == size.zero_stage == 2, "the experiment's own, 1, does not fit"
    (size,) = planned(experiment, 4, kind=replace(H100, memory=needs[0] + 1.0)).sizes
    assert (size.fits_from, size.zero_stage) == (0, 1), "its own fits"
    (size,) = planned(experiment, 4, kind=replace(H100, memory=1.0)).sizes
    assert (size.fits_from, size.zero_stage) == (None, 3)


def test_the_host_holds_what_is_being_saved() -> None:
    stage = planned(recipe("tiny_gpt", DEEPSPEED), 1).sizes[0].stages[0]
    assert stage.memory.saving > 0
    assert stage.memory.on_device == stage.memory.total - stage.memory.saving
    assert stage.most == max(stage.memory.on_device, stage.starting)


def test_one_of_a_local_engine_has_no_stages() -> None:
    sizes = planned(recipe("tiny_gpt"), 1, 2).sizes
    assert [[stage.zero_stage for stage in size.stages] for size in sizes] == [[0], [0]]


def test_fewest_rows_of_a_micro_batch_are_kept() -> None:
    """An ACAI mixes rows of a micro-batch: with 16 workers for 8 rows they get two each, and not one."""
    experiment = recipe("tiny_acai")
    in_all = experiment.batch.micro_batches * experiment.batch.rows
    size = planned(experiment, 2 * in_all).sizes[0]
    assert size.division.rows == experiment.model.fewest_rows == 2
    assert size.division.kind == "larger batch"


@pytest.mark.parametrize("utilisation", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_utilisation_out_of_range(utilisation: float) -> None:
    with pytest.raises(BadInput, match=r"--utilisation .* above 0 and at most 1"):
        planned(recipe("tiny_gpt"), 1, utilisation=utilisation)


@pytest.mark.parametrize("bandwidth", [0.0, -1e9, math.nan, math.inf])
def test_bandwidth_out_of_range(bandwidth: float) -> None:
    with pytest.raises(BadInput, match=r"--storage-bandwidth .* above 0"):
        planned(recipe("tiny_gpt"), 1, storage_bandwidth=bandwidth)


def test_sizes() -> None:
    assert sizes_of(H100) == [(number, max(1, number // 8)) for number in ALL_SIZES]
    assert ALL_SIZES[-1] == 16_384
    assert sizes_of(H100, accelerators=["12", "1", "8-64", "12"]) == [
        (1, 1),
        (8, 1),
        (12, 2),
        (16, 2),
        (32, 4),
        (64, 8),
    ]
    assert sizes_of(H100, accelerators=["6-20"]) == [(6, 1), (12, 2)]
    assert sizes_of(H100, nodes=["1", "3"]) == [(8, 1), (24, 3)]


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "many", "", "8-", "16-8", "1e3", "0-8"])
@pytest.mark.parametrize("option", ["accelerators", "nodes"])
def test_counts_are_whole_numbers_above_zero(option: str, given: str) -> None:
    with pytest.raises(BadInput, match=f"--{option} {given}: must be a whole number above 0"):
        sizes_of(H100, **{option: [given]})


def test_accelerators_and_nodes_are_one_thing() -> None:
    with pytest.raises(BadInput, match=r"--accelerators and --nodes .* give one"):
        sizes_of(H100, accelerators=["8"], nodes=["1"])


def test_json_is_plain_and_has_what_follows(gpt2: ClusterPlan) -> None:
    values = json.loads(json.dumps(gpt2.to_json()))
    assert values["accelerator"]["name"] == "h100"
    assert "placements" not in values["run"]
    for value, size in zip(values["sizes"], gpt2.sizes, strict=True):
        assert value["accelerators"] == size.division.workers
        assert (value["days"], value["counts_per_second"]) == (size.days, size.rate)
        assert value["checkpoint_seconds"] == gpt2.checkpoint_seconds(size)
        for plain, stage in zip(value["stages"], size.stages, strict=True):
            assert plain["most"] == stage.most
            assert plain["traffic"]["total"] == plain["traffic"]["gradients"] + plain["traffic"]["weights"]
