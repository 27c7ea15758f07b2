"""What models say of held-out data: exact numbers, bounds below them, and log Z both ways."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_pipeline.batch import VectorBatch
from data_pipeline.points import EightGaussiansConfig
from data_pipeline.streams.vectors import Vectors
from evals import density, energy_partition
from evals.density import density_metrics
from evals.metric import Metric
from evals.metrics.rbm_partition import rbm_log_partition
from pretrain import config
from pretrain.contract import Model
from pretrain.experiment import Experiment
from tests.evals.energies import points_model

DEVICE = torch.device("cpu")


def measured(kind: str, *overrides: str, rows: int = 32, samples: int = 1) -> tuple[Model, Vectors, dict[str, Metric]]:
    experiment = config.load(Experiment, config.recipe_path(f"tiny_{kind}"), overrides)
    torch.manual_seed(0)
    model = experiment.model.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    vectors = experiment.data.vectors("test").fixed()
    levels = experiment.model.num_levels
    settings: dict[str, Any] = {"rows": rows, "samples": samples, "seed": 0, "device": DEVICE, "levels": levels}
    found = density_metrics(model, experiment.data, vectors, protocol={"seed": 0}, **settings)
    return model, vectors, {metric.name: metric for metric in found}


def whole(vectors: Vectors) -> VectorBatch:
    labels_N = torch.from_numpy(vectors.labels)
    return VectorBatch(torch.from_numpy(vectors.values), labels_N, torch.arange(len(labels_N)))


@pytest.mark.parametrize("kind", ["made", "nade"])
def test_exact_nats_and_bits_are_those_of_all_rows(kind: str) -> None:
    model, vectors, found = measured(kind)
    with torch.no_grad():
        nats_N = -model.log_prob(whole(vectors)).double()
    assert found["nll"].value == pytest.approx(float(nats_N.mean()), rel=1e-6)
    assert found["nll"].stderr == pytest.approx(float(nats_N.std()) / math.sqrt(len(nats_N)), rel=1e-5)
    assert found["bits_per_dimension"].value == pytest.approx(found["nll"].value / math.log(2) / 64)
    assert measured(kind, rows=7)[2]["nll"].value == pytest.approx(found["nll"].value, rel=1e-6)


def test_a_score_says_what_it_is_a_probability_of() -> None:
    """Codes of a WaveNet and levels of another are both exact, and do not compare."""
    codes = measured("wavenet")[2]
    levels = measured("wavenet", "model.output=logistic")[2]
    assert {one.protocol["probability_of"] for one in codes.values()} == {"64 mu-law codes of each sample"}
    assert {one.protocol["probability_of"] for one in levels.values()} == {"16 levels of each sample"}
    assert measured("made")[2]["nll"].protocol["probability_of"] == "zeros and ones"
    grey = ("model.output=softmax", "model.levels=17", "data.pixels=grey")
    assert measured("pixelcnn", *grey)[2]["nll"].protocol["probability_of"] == "17 levels of each value"


def test_a_bound_of_levels_is_one_of_bits_too() -> None:
    grey = ("data.pixels=grey", "model.output={kind: logistic_mixture, levels: 17, num_components: 2}")
    found = measured("vae", *grey, samples=5)[2]
    bits = found["bits_per_dimension_bound"]
    assert bits.value == pytest.approx(found["negative_iwae_5"].value / math.log(2) / 64)
    assert (bits.protocol["value_is"], bits.protocol["samples"]) == ("an upper bound", 5)
    assert "bits_per_dimension_bound" not in measured("vae", samples=5)[2], "of zeros and ones"


def test_more_samples_are_a_tighter_bound() -> None:
    _, _, one = measured("vae")
    _, _, many = measured("vae", samples=20)
    assert set(one) == {"negative_elbo"}
    assert set(many) == {"negative_elbo", "negative_iwae_20"}
    assert many["negative_elbo"].value == one["negative_elbo"].value
    difference = one["negative_elbo"].value - many["negative_iwae_20"].value
    assert difference > 4 * math.hypot(one["negative_elbo"].stderr or 0, many["negative_iwae_20"].stderr or 0) / 10


def test_an_rbm_is_normalised_by_enumeration_and_as_well_by_annealing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, vectors, exact = measured("rbm")
    with torch.no_grad():
        energies_N = model.unnormalized_log_prob(whole(vectors)).double()
    assert exact["nll"].value == pytest.approx(model.log_partition() - float(energies_N.mean()), rel=1e-6)
    monkeypatch.setattr(density, "MOST_ENUMERATED", 0)
    annealed = measured("rbm")[2]
    error = annealed["log_z"].stderr
    assert error is not None
    assert annealed["log_z"].value == pytest.approx(model.log_partition(), abs=4 * error)
    assert annealed["nll_by_log_z"].value == pytest.approx(exact["nll"].value, abs=4 * error)
    assert annealed["effective_sample_size"].value > density.CHAINS / 4


def test_an_rbm_of_grey_values_has_no_likelihood() -> None:
    """exp(-F) / Z over the levels of a unit sums to more than one; of zeros and ones to one."""
    model, vectors, found = measured("rbm", "data.pixels=grey")
    assert set(found) == {"unnormalized_log_prob"}
    assert found["unnormalized_log_prob"].better is None
    with torch.no_grad():
        wanted = float(model.unnormalized_log_prob(whole(vectors)).double().mean())
    assert found["unnormalized_log_prob"].value == pytest.approx(wanted, rel=1e-6)
    assert "grey" in found["unnormalized_log_prob"].protocol["value_is"]
    assert set(measured("rbm")[2]) == {"unnormalized_log_prob", "nll"}


def test_the_path_of_an_rbm_starts_at_the_training_splits_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "MOST_ENUMERATED", 0)
    seen: list[torch.Tensor] = []

    def watched(model: Model, data_ND: torch.Tensor, **settings: Any) -> object:
        seen.append(data_ND)
        return rbm_log_partition(model, data_ND, **settings | {"temperatures": 2, "chains": 3})

    monkeypatch.setattr(density, "rbm_log_partition", watched)
    measured("rbm")
    data = config.load(Experiment, config.recipe_path("tiny_rbm")).data
    assert torch.equal(seen[0], torch.from_numpy(data.vectors("train").fixed().values))


def test_the_noise_of_every_batch_is_another() -> None:
    """Equal rows in batches of equal size differ in nothing else."""
    vectors = Vectors(np.full((12, 3), 0.5, dtype=np.float32), np.zeros(12, dtype=np.int64))
    each = density._each(
        lambda batch: torch.rand(len(batch.values)), vectors=vectors, rows=4, seed=0, device=torch.device("cpu")
    )
    assert len(torch.cat(list(each)).unique()) == 12


def test_bits_are_per_dimension_of_the_data() -> None:
    """8 x 8 pixels here, 4 there: the same log p says more of the smaller."""
    for size in (4, 64):

        class Constant(nn.Module):
            def log_prob(self, batch: VectorBatch) -> torch.Tensor:
                return torch.full((len(batch.values),), -8 * math.log(2.0))

        vectors = Vectors(np.zeros((5, size), dtype=np.float32), np.zeros(5, dtype=np.int64))
        data = config.load(Experiment, config.recipe_path("tiny_made")).data
        settings: dict[str, Any] = {"rows": 2, "samples": 1, "seed": 0, "device": DEVICE, "protocol": {}}
        found = {one.name: one for one in density_metrics(Constant(), data, vectors, **settings)}  # type: ignore[arg-type]
        assert found["bits_per_dimension"].value == pytest.approx(8 / size)


def test_an_energy_of_points_is_normalised_by_a_grid() -> None:
    """With no network left it is the reference Gaussian, whose log Z is ln(2 pi s^2)."""
    model, data = points_model(reference_std=1.5), EightGaussiansConfig(kind="eight_gaussians", num_held_out=500)
    vectors = data.vectors("test")
    settings: dict[str, Any] = {"rows": 100, "samples": 1, "seed": 0, "device": DEVICE, "protocol": {}}
    found = {one.name: one for one in density_metrics(model, data, vectors, **settings)}
    assert set(found) == {"unnormalized_log_prob", "nll"}
    wanted = math.log(2 * math.pi * 1.5**2) + float((vectors.values**2).sum(1).mean()) / (2 * 1.5**2)
    assert found["nll"].value == pytest.approx(wanted, abs=1e-5)


def test_who_knows_nothing_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured("gan")[2] == {}
    monkeypatch.setattr(energy_partition, "TEMPERATURES", 5)
    found = measured("energy_based")[2]
    assert set(found) == {"unnormalized_log_prob", "nll_by_log_z", "log_z", "log_z_below", "effective_sample_size"}
    assert found["nll_by_log_z"].value == pytest.approx(
        found["log_z"].value - found["unnormalized_log_prob"].value, abs=1e-9
    )
    assert found["nll_by_log_z"].stderr is not None
