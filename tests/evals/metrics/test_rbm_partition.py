"""log Z of trained machines by annealing against enumeration."""

import math

import pytest
import torch
from torch import Tensor

from data_pipeline.batch import VectorBatch
from evals.metrics import rbm_partition
from evals.metrics.rbm_partition import rbm_log_partition, rbm_path
from pretrain.models.energy.rbm import RBM, RBMConfig

VISIBLE, HIDDEN = 12, 8


def bars(rows: int) -> Tensor:
    """Rows of a 3 x 4 image whose three lines are all on or all off."""
    return torch.randint(0, 2, (rows, 3)).repeat_interleave(4, dim=1).float()


@pytest.fixture(scope="module")
def trained() -> RBM:
    torch.manual_seed(0)
    model = RBM(RBMConfig(kind="rbm", num_visible=VISIBLE, num_hidden=HIDDEN, initial_std=0.1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    carry = model.initial_carry(50)
    for step in range(300):
        rows_RD = bars(50)
        batch = VectorBatch(rows_RD, torch.zeros(50, dtype=torch.int64), torch.arange(50))
        loss = model(batch, carry, player="model", step=step)
        carry = loss.carry
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    return model


def check_against_enumeration(model: RBM, temperatures: int) -> None:
    torch.manual_seed(1)
    settings = {"temperatures": temperatures, "chains": 1000, "seed": 3, "protocol": {"model": "rbm"}}
    log_z, below, size = rbm_log_partition(model, bars(200), **settings)
    exact = model.log_partition()
    print(f"{temperatures}: {log_z.value:.4f} +- {log_z.stderr:.4f}, exact {exact:.4f}, ess {size.value:.0f}")
    assert log_z.stderr is not None
    assert below.stderr is not None
    assert abs(log_z.value - exact) < 4 * log_z.stderr
    assert log_z.stderr < 0.2
    assert below.value - 4 * below.stderr < exact
    assert 50 < size.value <= 1000


@pytest.mark.parametrize("temperatures", [30, 100, 1000])
def test_annealing_and_enumeration_agree(trained: RBM, temperatures: int) -> None:
    check_against_enumeration(trained, temperatures)


def test_a_base_that_is_not_normalised_is_seen(trained: RBM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant forgets the ln 2 of each hidden unit in the normaliser of the base."""
    true = rbm_partition.log_partition

    def forgets(log_w_R: Tensor, **settings: object) -> object:
        return true(log_w_R - HIDDEN * math.log(2.0), **settings)

    monkeypatch.setattr(rbm_partition, "log_partition", forgets)
    with pytest.raises(AssertionError):
        check_against_enumeration(trained, 100)


def test_the_path_starts_at_the_datas_means(trained: RBM) -> None:
    data_ND = torch.cat([torch.ones(6, VISIBLE), torch.zeros(3, VISIBLE)])
    path = rbm_path(trained, data_ND)
    torch.testing.assert_close(path.base_logits_D.sigmoid(), torch.full((VISIBLE,), 0.65, dtype=torch.float64))
    assert rbm_path(trained, torch.ones(5, VISIBLE)).base_logits_D.isfinite().all()


def test_the_same_seed_gives_the_same_estimate(trained: RBM) -> None:
    data_ND = bars(20)
    settings = {"temperatures": 5, "chains": 20, "protocol": {}}
    first = rbm_log_partition(trained, data_ND, seed=1, **settings)[0].value
    assert rbm_log_partition(trained, data_ND, seed=1, **settings)[0].value == first
    assert rbm_log_partition(trained, data_ND, seed=2, **settings)[0].value != first


def test_annealing_is_on_the_cpu_in_float64_wherever_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is moved is asked to go there; the meta device stands in for a GPU."""
    model = RBM(RBMConfig(kind="rbm", num_visible=VISIBLE, num_hidden=HIDDEN)).to("meta")
    moved: list[tuple[object, ...]] = []
    true = torch.Tensor.to

    def watched(tensor: Tensor, *place: object) -> Tensor:
        moved.append(place)
        return torch.zeros(tensor.shape, dtype=torch.float64) if tensor.is_meta else true(tensor, *place)

    monkeypatch.setattr(torch.Tensor, "to", watched)
    log_z, _, _ = rbm_log_partition(
        model, torch.zeros(5, VISIBLE, device="meta"), temperatures=50, chains=200, seed=0, protocol={}
    )
    assert moved.count(("cpu", torch.float64)) >= 4
    assert log_z.value == pytest.approx((VISIBLE + HIDDEN) * math.log(2), abs=0.2)
