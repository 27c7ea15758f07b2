"""log Z of energy-based models: by a grid against closed forms, by annealing against the grid."""

import math

import pytest
import torch

from data_pipeline.config import BadInput
from evals import energy_partition
from evals.energy_partition import annealed_log_partition, grid_log_partition
from tests.evals.energies import points_model


def test_a_grid_finds_where_the_mass_ends() -> None:
    """From a reach of a fifth of a deviation on."""
    log_z, how = grid_log_partition(points_model(reference_std=2.0), 0.4)
    assert log_z == pytest.approx(math.log(2 * math.pi * 4), abs=1e-6)
    assert "from -25.6 to 25.6" in how["log_z_is"]


def test_a_box_is_summed_whole() -> None:
    assert grid_log_partition(points_model(reference_std=None), 100.0)[0] == pytest.approx(math.log(25.0), abs=1e-9)
    half = points_model(reference_std=1.0, clamp=True)
    inside = [0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in (-3.0, 2.0)]
    wanted = math.log(2 * math.pi) + 2 * math.log(inside[1] - inside[0])
    assert grid_log_partition(half, 1.0)[0] == pytest.approx(wanted, abs=1e-4)


def test_mass_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_partition, "_box", lambda model: None)
    with pytest.raises(BadInput, match="the density does not end"):
        grid_log_partition(points_model(reference_std=None), 1.0)


@pytest.mark.parametrize(("reference_std", "clamp"), [(1.5, False), (None, False), (1.5, True)])
def test_annealing_agrees_with_the_grid(
    reference_std: float | None, clamp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is blind to no volume: the box of 5 x 5, the base of deviation 1.5."""
    monkeypatch.setattr(energy_partition, "TEMPERATURES", 60)
    model = points_model(reference_std=reference_std, clamp=clamp, strength=0.6)
    exact, _ = grid_log_partition(model, 6.0)
    log_z, below, size = annealed_log_partition(model, seed=1, protocol={"split": "test"})
    assert log_z.stderr is not None
    assert below.stderr is not None
    assert log_z.stderr < 0.05
    assert log_z.value == pytest.approx(exact, abs=4 * log_z.stderr)
    assert below.value - 4 * below.stderr < exact
    assert 50 < size.value <= energy_partition.CHAINS
    assert log_z.protocol["split"] == "test"
    plain = math.log(25.0) if clamp or reference_std is None else math.log(2 * math.pi * 1.5**2)
    assert abs(exact - plain) > 10 * log_z.stderr, "without the network it would be another"


def test_it_is_a_function_of_the_seed_and_of_no_other_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_partition, "TEMPERATURES", 4)
    model = points_model(reference_std=1.5, strength=0.6)
    before = torch.random.get_rng_state()
    found = [annealed_log_partition(model, seed=seed, protocol={})[0].value for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert next(model.parameters()).dtype == torch.float32
