"""Annealed importance sampling: exact over all trajectories of a finite space, then by chance on an RBM and a Gaussian.

Shape legend: S states, T temperatures, R chains or trajectories, D dimensions or visible units, H hidden units.
"""

import itertools
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from evals.metrics import rbm_path, transitions
from evals.metrics.annealing import GeometricPath, anneal, evenly_spaced
from evals.metrics.bounds import importance_weighted
from evals.metrics.partition import log_partition, log_partition_above, normalized_nll
from evals.metrics.rbm_path import RBMPath
from evals.metrics.transitions import hamiltonian, leapfrog, metropolis
from pretrain.models.energy.rbm import RBM, RBMConfig

STATES, TEMPERATURES = 4, 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Enumerated:
    """A geometric path over a few states; its moves take every trajectory, each in its own row, and keep its chance."""

    start_S: Tensor
    target_S: Tensor
    trajectories_RT: Tensor
    chance_R: Tensor
    moves: int = 0
    betas: list[float] = field(default_factory=list)

    def density(self, beta: float) -> Tensor:
        return self.start_S ** (1 - beta) * self.target_S**beta

    def kernel(self, beta: float) -> Tensor:
        """[S, S] Metropolis with uniform proposals, by its formula."""
        f_S = self.density(beta)
        kernel_SS = (f_S[None] / f_S[:, None]).clamp(max=1) / STATES
        kernel_SS.fill_diagonal_(0)
        return kernel_SS + torch.diag(1 - kernel_SS.sum(-1))

    def log_ratio(self, x_R1: Tensor, beta_from: float, beta_to: float) -> Tensor:
        return (self.density(beta_to) / self.density(beta_from)).log()[x_R1[:, 0]]

    def move(self, x_R1: Tensor, beta: float, generator: torch.Generator) -> Tensor:
        self.moves += 1
        self.betas.append(beta)
        next_R1 = self.trajectories_RT[:, self.moves, None]
        self.chance_R = self.chance_R * self.kernel(beta)[x_R1[:, 0], next_R1[:, 0]]
        return next_R1


def all_trajectories(*, reverse: bool) -> Enumerated:
    target_S = 5 * torch.rand(STATES, dtype=torch.float64) + 0.1
    start_S = torch.randn(STATES, dtype=torch.float64).softmax(0)
    trajectories_RT = torch.tensor(list(itertools.product(range(STATES), repeat=TEMPERATURES + 1)))
    first_S = target_S / target_S.sum() if reverse else start_S
    return Enumerated(start_S, target_S, trajectories_RT, first_S[trajectories_RT[:, 0]])


def check_expectations(*, reverse: bool) -> None:
    path = all_trajectories(reverse=reverse)
    betas = [0.0, 0.2, 0.7, 1.0][:: -1 if reverse else 1]
    log_w_R = anneal(path.trajectories_RT[:, :1], path, betas, seeded()).log_w_R
    total = float(path.target_S.sum())
    assert float(path.chance_R.sum()) == pytest.approx(1, abs=1e-12)
    assert float(path.chance_R @ log_w_R.exp()) == pytest.approx(1 / total if reverse else total, rel=1e-12)
    bound = float(path.chance_R @ log_w_R)
    assert -bound > math.log(total) if reverse else bound < math.log(total)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_expected_weight_is_exact_over_all_trajectories(reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    check_expectations(reverse=reverse)
    exact = Enumerated.move
    monkeypatch.setattr(Enumerated, "move", lambda self, x, beta, generator: exact(self, x, 0.5 * beta, generator))
    with pytest.raises(AssertionError):
        check_expectations(reverse=reverse)


VISIBLE, HIDDEN = 6, 5


def small_rbm() -> tuple[RBM, RBMPath]:
    model = RBM(RBMConfig(kind="rbm", num_visible=VISIBLE, num_hidden=HIDDEN)).double()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    weights = (model.weight_DH.data, model.visible_bias_D.data, model.hidden_bias_H.data)
    return model, RBMPath(*weights, base_logits_D=torch.randn(VISIBLE, dtype=torch.float64))


def all_binary(width: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * width)


def test_the_path_of_an_rbm_ends_at_its_free_energy_and_starts_normalised() -> None:
    model, path = small_rbm()
    states_SD = all_binary(VISIBLE)
    torch.testing.assert_close(path.log_density(states_SD, 1.0), -model.free_energy(states_SD), rtol=0, atol=1e-12)
    assert float(path.log_density(states_SD, 0.0).exp().sum()) == pytest.approx(1, abs=1e-12)


def moves_of(path: RBMPath, beta: float, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """[S, S] exact p(next v given v) of the path's own move: its coin flips are answered in every way."""
    states_SD = all_binary(VISIBLE)
    kernel_SS = torch.zeros(len(states_SD), len(states_SD), dtype=torch.float64)
    for h_H in all_binary(HIDDEN):
        asked: list[Tensor] = []

        def answer(p: Tensor, generator: torch.Generator, h_H: Tensor = h_H, asked: list[Tensor] = asked) -> Tensor:
            asked.append(p)
            return h_H.expand_as(p) if len(asked) == 1 else torch.zeros_like(p)

        with monkeypatch.context() as patch:
            patch.setattr(rbm_path.torch, "bernoulli", answer)
            path.move(states_SD, beta, seeded())
        hidden_SH, visible_SD = asked
        chosen_S = torch.where(h_H == 1, hidden_SH, 1 - hidden_SH).prod(-1)
        onward_SS = torch.where(states_SD == 1, visible_SD[:, None], 1 - visible_SD[:, None]).prod(-1)
        kernel_SS += chosen_S[:, None] * onward_SS
    return kernel_SS


@pytest.mark.parametrize("beta", [0.0, 0.37, 1.0])
def test_moves_of_an_rbm_leave_each_density_of_the_path_invariant(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = small_rbm()
    p_S = path.log_density(all_binary(VISIBLE), beta).softmax(0)
    torch.testing.assert_close(p_S @ moves_of(path, beta, monkeypatch), p_S, rtol=0, atol=1e-12)
    elsewhere_S = path.log_density(all_binary(VISIBLE), beta + 0.1).softmax(0)
    assert float((p_S - elsewhere_S).abs().max()) > 1e-4, "the check would not see another density"


def rbm_chains(path: RBMPath, betas: list[float], chains: int) -> Tensor:
    generator = seeded(5)
    starts = path.start(chains, generator).split(chains // 2)
    return torch.cat([anneal(start_RD, path, betas, generator).log_w_R for start_RD in starts])


def test_log_z_of_an_rbm_against_enumeration() -> None:
    model, path = small_rbm()
    states_SD = all_binary(VISIBLE)
    truth = float(torch.logsumexp(-model.free_energy(states_SD), 0).detach())
    betas = evenly_spaced(40)
    how = {"betas": betas, "transition": "Gibbs", "protocol": {"model": "rbm"}}
    log_z, below, size = log_partition(rbm_chains(path, betas, 1000), **how)
    assert log_z.stderr is not None
    assert below.stderr is not None
    assert abs(log_z.value - truth) < 4 * log_z.stderr < 0.5
    assert below.value < truth
    assert below.value - 4 * below.stderr < log_z.value
    assert 1 < size.value < 1000
    assert log_z.protocol["temperatures"] == 40
    start_RD = states_SD[torch.multinomial((-model.free_energy(states_SD)).softmax(0), 1000, True)]
    reverse = anneal(start_RD, path, betas[::-1], seeded(6)).log_w_R
    above = log_partition_above(reverse, **{**how, "betas": betas[::-1]})
    assert above.stderr is not None
    assert truth < above.value < truth + 1


def test_nats_by_log_z_are_exact_for_the_exact_z() -> None:
    model, _ = small_rbm()
    states_SD = all_binary(VISIBLE)
    log_f_S = -model.free_energy(states_SD).detach()
    exact = torch.logsumexp(log_f_S, 0).expand(2)
    log_z, _, _ = log_partition(exact, betas=[0.0, 1.0], transition="none", protocol={"of": "z"})
    found = normalized_nll(log_f_S.split(10), log_z, protocol={"split": "test"})
    assert found.value == pytest.approx(-float(log_f_S.log_softmax(0).mean()), abs=1e-10)
    batch = VectorBatch(states_SD, torch.zeros(len(states_SD)).long(), torch.arange(len(states_SD)))
    assert torch.equal(model.unnormalized_log_prob(batch), -model.free_energy(states_SD))
    assert found.count == len(states_SD)
    assert found.protocol["split"] == "test"
    wide = normalized_nll(log_f_S, type(log_z)(**{**log_z.to_json(), "stderr": 3.0}), protocol={})
    assert found.stderr is not None
    assert wide.stderr == pytest.approx(math.hypot(found.stderr, 3.0))


WIDTH = 3
MOVES = {
    "metropolis": metropolis(step_size=0.5, num_steps=10),
    "hamiltonian": hamiltonian(step_size=0.9, leapfrog_steps=3),
}


def standard(x_RD: Tensor) -> Tensor:
    return -0.5 * (x_RD.square() + math.log(2 * math.pi)).sum(-1)


def narrow(x_RD: Tensor) -> Tensor:
    """N(1, 0.5^2) times e^3 in each dimension, without its constant."""
    return (3.0 - 0.5 * ((x_RD - 1.0) / 0.5).square()).sum(-1)


TRUTH = WIDTH * (3.0 + math.log(0.5) + 0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize("name", sorted(MOVES))
def test_log_z_of_a_gaussian(name: str) -> None:
    path = GeometricPath(standard, narrow, MOVES[name])
    betas = evenly_spaced(20)
    start_RD = torch.randn(3000, WIDTH, dtype=torch.float64, generator=seeded(1))
    annealed = anneal(start_RD, path, betas, seeded(2))
    log_z, below, _ = log_partition(annealed.log_w_R, betas=betas, transition=name, protocol={})
    assert log_z.stderr is not None
    assert abs(log_z.value - TRUTH) < 4 * log_z.stderr < 0.4
    assert below.value < TRUTH
    rows, size = importance_weighted([annealed.log_w_R.reshape(50, 60)], protocol={})
    assert rows.stderr is not None
    assert rows.value > -TRUTH - 4 * rows.stderr
    assert size.count == 60


@pytest.mark.parametrize("name", sorted(MOVES))
def test_moves_keep_samples_of_a_density(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejection makes it so: without it the large steps here are seen."""

    def deviations() -> Tensor:
        x_RD = 1.0 + 0.5 * torch.randn(20_000, WIDTH, dtype=torch.float64, generator=seeded(3))
        moved_RD = (MOVES[name](x_RD, narrow, seeded(4)) - 1.0) / 0.5
        moments = [(moved_RD, 0.0, 1.0), (moved_RD.square(), 1.0, 2.0), (moved_RD**4, 3.0, 96.0)]
        return torch.tensor([(m.mean() - mean) / math.sqrt(variance / m.numel()) for m, mean, variance in moments])

    assert float(deviations().abs().max()) < 4
    monkeypatch.setattr(transitions, "_accepts", lambda log_ratio, generator: torch.ones_like(log_ratio).bool())
    assert float(deviations().abs().max()) > 4


def test_leapfrog_can_be_undone_and_keeps_volume() -> None:
    x_RD, momentum_RD = torch.randn(2, 5, WIDTH, dtype=torch.float64)

    def odd(y_RD: Tensor) -> Tensor:
        return -(y_RD**4).sum(-1) + y_RD.prod(-1)

    end_RD, end_momentum_RD = leapfrog(x_RD, momentum_RD, odd, 0.05, 7)
    back_RD, back_momentum_RD = leapfrog(end_RD, -end_momentum_RD, odd, 0.05, 7)
    torch.testing.assert_close(back_RD, x_RD, rtol=0, atol=1e-12)
    torch.testing.assert_close(back_momentum_RD, -momentum_RD, rtol=0, atol=1e-12)
    assert float((end_RD - x_RD).abs().min()) > 1e-3

    def flow(state: Tensor) -> Tensor:
        return torch.cat(leapfrog(state[None, :WIDTH], state[None, WIDTH:], quadratic, 0.3, 4), -1)[0]

    def quadratic(y_RD: Tensor) -> Tensor:
        return -0.5 * y_RD.square().sum(-1)

    columns = [flow(row) - flow(torch.zeros(2 * WIDTH, dtype=torch.float64)) for row in torch.eye(2 * WIDTH).double()]
    assert float(torch.stack(columns).det()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("betas", [[0.0], [0.0, 0.5], [0.0, 0.6, 0.4, 1.0], [0.0, 0.0, 1.0], [0.2, 1.0]])
def test_bad_betas(betas: list[float]) -> None:
    _, path = small_rbm()
    with pytest.raises(BadInput, match="must rise from 0 to 1"):
        anneal(all_binary(VISIBLE), path, betas, seeded())


def test_bad_weights_and_directions() -> None:
    with pytest.raises(BadInput, match="must be finite"):
        log_partition(torch.full((3,), -torch.inf), betas=[0.0, 1.0], transition="", protocol={})
    with pytest.raises(BadInput, match=r"forward chains start at 0\.0"):
        log_partition(torch.zeros(3), betas=[1.0, 0.0], transition="", protocol={})
    with pytest.raises(BadInput, match="step_size 0"):
        metropolis(step_size=0.0)
    with pytest.raises(BadInput, match="must be at least 1"):
        evenly_spaced(0)
