"""What models say of held-out data: exact numbers, bounds below them, and log Z both ways."""

import math

import pytest
import torch

from data_pipeline.batch import VectorBatch
from data_pipeline.streams.vectors import Vectors
from evals import density
from evals.density import density_metrics
from evals.metric import Metric
from pretrain import config
from pretrain.contract import Model
from pretrain.experiment import Experiment

DEVICE = torch.device("cpu")


def measured(
    kind: str, rows: int = 32, samples: int = 1, overrides: tuple[str, ...] = ()
) -> tuple[Model, Vectors, dict[str, Metric]]:
    experiment = config.load(Experiment, config.recipe_path(f"tiny_{kind}"), overrides)
    torch.manual_seed(0)
    model = experiment.model.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    vectors = experiment.data.vectors("test").fixed()
    found = density_metrics(
        model, experiment.data, vectors, rows=rows, samples=samples, seed=0, device=DEVICE, protocol={"seed": 0}
    )
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
    levels = measured("wavenet", overrides=("model.output=logistic",))[2]
    assert {one.protocol["probability_of"] for one in codes.values()} == {"64 mu-law codes of each sample"}
    assert {one.protocol["probability_of"] for one in levels.values()} == {"16 levels of each sample"}
    assert measured("made")[2]["nll"].protocol["probability_of"] == "zeros and ones"
    grey = ("model.output=softmax", "model.levels=17", "data.pixels=grey")
    assert measured("pixelcnn", overrides=grey)[2]["nll"].protocol["probability_of"] == "17 levels of each value"


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


def test_who_knows_nothing_says_nothing() -> None:
    assert measured("gan")[2] == {}
    assert set(measured("energy_based")[2]) == {"unnormalized_log_prob"}
