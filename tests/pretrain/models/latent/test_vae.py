"""VAEs whose evidence is known: linear with Gaussian noise, in closed form; of four pixels, by a sum over the latents.

Shape legend: R rows, D values of a row, Z latents, K samples, S sigma points, G points of a grid.
"""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from data_pipeline.digits import DigitsConfig
from data_pipeline.points import EightGaussiansConfig
from pretrain.distributions.gaussian import standard_normal_log_prob
from pretrain.models.latent import posteriors, vae
from pretrain.models.latent.bounds import importance_weighted, weighted_kl
from pretrain.models.latent.outputs import BernoulliOutput, GaussianOutput, LogisticMixtureOutput
from pretrain.models.latent.posteriors import FlowPosteriorConfig, Posterior
from pretrain.models.latent.vae import VAE, VAEConfig
from tests.pretrain.bijections.identities import random_weights

WIDTH, LATENTS, ROWS, STD = 5, 2, 4, 0.7
LINEAR = {"kind": "perceptron", "hidden_widths": []}
SMALL = {"kind": "perceptron", "hidden_widths": [6], "activation": "tanh"}
GAUSSIAN = {"kind": "gaussian"}
FLOW = {"kind": "iaf", "num_layers": 2, "hidden_widths": [5], "context_width": 3}
ELBO, EXACT = {"kind": "elbo"}, 1e-9


def configure(**settings: Any) -> VAEConfig:
    known = {"row_shape": [WIDTH], "latent_width": LATENTS, "encoder": LINEAR, "decoder": LINEAR, "bound": ELBO}
    known |= {"posterior": GAUSSIAN, "output": {"kind": "gaussian", "std": STD}}
    return VAEConfig.model_validate({"kind": "vae", **known, **settings})


def batch_of(values_RD: Tensor) -> VectorBatch:
    rows = len(values_RD)
    return VectorBatch(values_RD, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


def linear_gaussian(orthogonal: bool = False, **settings: Any) -> tuple[VAE, Tensor, Tensor, Tensor]:
    """A model with random weights, its W [D, Z] and b [D], and rows x [R, D]."""
    model = configure(**settings).build()
    random_weights(model)
    weight_DZ = model.decoder[0].weight
    if orthogonal:
        with torch.no_grad():
            weight_DZ.copy_(torch.linalg.qr(weight_DZ)[0] * torch.tensor([0.6, 1.7]))
    return model, weight_DZ, model.decoder[0].bias, torch.randn(ROWS, WIDTH, dtype=torch.float64)


def evidence(weight_DZ: Tensor, bias_D: Tensor, x_RD: Tensor) -> Tensor:
    """[R] log p(x) of x = W z + b + std * noise."""
    covariance_DD = weight_DZ @ weight_DZ.T + STD**2 * torch.eye(WIDTH, dtype=x_RD.dtype)
    return MultivariateNormal(bias_D, covariance_DD).log_prob(x_RD)


def true_posterior(weight_DZ: Tensor, bias_D: Tensor, x_RD: Tensor, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    """[R, Z] mean and [Z, Z] covariance of p(z given x); with beta, of what a beta-VAE's q goes to."""
    noise = beta * STD**2
    covariance_ZZ = torch.linalg.inv(torch.eye(LATENTS, dtype=x_RD.dtype) + weight_DZ.T @ weight_DZ / noise)
    return (x_RD - bias_D) @ weight_DZ @ covariance_ZZ / noise, covariance_ZZ


def set_posterior(model: VAE, weight_DZ: Tensor, bias_D: Tensor, beta: float = 1.0) -> None:
    """Write into the linear encoder the posterior above, which must have no covariances."""
    zero_D = torch.zeros(1, WIDTH, dtype=torch.float64)
    eye_DD = torch.eye(WIDTH, dtype=torch.float64)
    with torch.no_grad():
        offset_1Z, covariance_ZZ = true_posterior(weight_DZ, bias_D, zero_D, beta)
        slope_DZ = true_posterior(weight_DZ, bias_D, eye_DD, beta)[0] - offset_1Z
        assert float((covariance_ZZ - covariance_ZZ.diag().diag()).abs().max()) < 1e-12
        last = model.encoder[0]
        last.weight.copy_(torch.cat([slope_DZ.T, torch.zeros(LATENTS, WIDTH, dtype=torch.float64)]))
        last.bias.copy_(torch.cat([offset_1Z[0], 0.5 * covariance_ZZ.diag().log()]))


@pytest.fixture
def sigma_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise whose mean over each 2 Z rows is exact for polynomials of the second degree: plus and minus sqrt(Z) e_j."""
    points_SZ = math.sqrt(LATENTS) * torch.cat([torch.eye(LATENTS), -torch.eye(LATENTS)]).double()

    def draw(mean: Tensor, log_std: Tensor) -> Tensor:
        return mean + log_std.exp() * points_SZ.repeat(mean.shape[1] // len(points_SZ), 1)

    monkeypatch.setattr(posteriors, "draw_normal", draw)


def repeated(x_RD: Tensor) -> VectorBatch:
    """Each row once for each sigma point."""
    return batch_of(x_RD.repeat_interleave(2 * LATENTS, 0))


def elbo_of(model: VAE, x_RD: Tensor) -> Tensor:
    """[] summed over rows, exactly, from the model's own forward."""
    return -model(repeated(x_RD), None, player="model", step=0).total / (2 * LATENTS)


def kl_to_true_posterior(model: VAE, weight_DZ: Tensor, bias_D: Tensor, x_RD: Tensor) -> Tensor:
    mean_RZ, log_std_RZ = model.encoder(x_RD).chunk(2, 1)
    goal_RZ, covariance_ZZ = true_posterior(weight_DZ, bias_D, x_RD)
    q = MultivariateNormal(mean_RZ, torch.diag_embed((2 * log_std_RZ).exp()))
    return torch.distributions.kl_divergence(q, MultivariateNormal(goal_RZ, covariance_ZZ)).sum()


@pytest.mark.usefixtures("sigma_points")
def test_elbo_and_kl_to_the_true_posterior_are_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are their gradients: what goes through the samples is the closed form's."""
    model, weight_DZ, bias_D, x_RD = linear_gaussian()
    parameters = list(model.parameters())

    def compare() -> tuple[float, float]:
        known = evidence(weight_DZ, bias_D, x_RD).sum() - kl_to_true_posterior(model, weight_DZ, bias_D, x_RD)
        found = elbo_of(model, x_RD)
        slopes = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(known, parameters), strict=True)
        return abs(float((found - known).detach())), max(float((a - b).abs().max()) for a, b in slopes)

    assert max(compare()) < EXACT
    drawn = posteriors.draw_normal
    monkeypatch.setattr(posteriors, "draw_normal", lambda *given: drawn(*given).detach())
    value, gradient = compare()
    assert value < EXACT
    assert gradient > 1e-3, "samples cut off from the encoder"
    monkeypatch.setattr(posteriors, "draw_normal", drawn)
    monkeypatch.setattr(vae, "weighted_kl", lambda kl_RZ, **_: 0.5 * kl_RZ.sum())
    assert compare()[0] > 1e-3


@pytest.mark.parametrize("beta", [1.0, 4.0])
@pytest.mark.usefixtures("sigma_points")
def test_where_a_beta_vae_is_best(beta: float) -> None:
    """Its encoder's gradient is zero at the posterior of a model with beta times the noise, and nowhere near."""
    model, weight_DZ, bias_D, x_RD = linear_gaussian(orthogonal=True, bound={"kind": "elbo", "beta": beta})

    def slope() -> float:
        found = torch.autograd.grad(elbo_of(model, x_RD), list(model.encoder.parameters()))
        return max(float(part.abs().max()) for part in found)

    set_posterior(model, weight_DZ, bias_D, beta)
    assert slope() < EXACT
    set_posterior(model, weight_DZ, bias_D, 1.3 * beta)
    assert slope() > 1e-3
    if beta == 1.0:
        set_posterior(model, weight_DZ, bias_D)
        with torch.no_grad():
            gap = elbo_of(model, x_RD) - evidence(weight_DZ, bias_D, x_RD).sum()
        assert abs(float(gap)) < EXACT


def test_at_the_true_posterior_every_single_weight_is_the_evidence() -> None:
    model, weight_DZ, bias_D, x_RD = linear_gaussian(orthogonal=True)
    set_posterior(model, weight_DZ, bias_D)

    def misfit() -> float:
        log_w_KR = model._log_weights(batch_of(x_RD), model._encoded(batch_of(x_RD)), 50)
        return float((log_w_KR - evidence(weight_DZ, bias_D, x_RD)).detach().abs().max())

    assert misfit() < EXACT
    set_posterior(model, weight_DZ, bias_D, beta=1.3)
    assert misfit() > 1e-3, "of a wider posterior they scatter"


def gaps(model: VAE, known_R: Tensor, x_RD: Tensor, total: int = 24_000) -> dict[int, tuple[float, float]]:
    """By samples: the mean of evidence - bound over as many draws as `total` allows, and its standard error."""
    found = {}
    for samples in (1, 5, 50, 300):
        many = total // samples
        with torch.no_grad():
            bound_N = model.log_prob_bound(batch_of(x_RD.repeat(many, 1)), samples).view(many, -1).sum(1)
        gap_N = known_R.sum() - bound_N
        found[samples] = float(gap_N.mean()), float(gap_N.std() / math.sqrt(many))
    return found


def test_gaps_of_importance_weighted_bounds_to_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, weight_DZ, bias_D, x_RD = linear_gaussian()
    with torch.no_grad():
        model.encoder[0].weight[LATENTS:] *= 0.3
        known_R = evidence(weight_DZ, bias_D, x_RD)

    def right(found: dict[int, tuple[float, float]]) -> bool:
        never_above = all(gap > -4 * error for gap, error in found.values())
        return never_above and found[1][0] > 1 and abs(found[300][0]) < 0.1 * found[1][0]

    found = gaps(model, known_R, x_RD)
    print({samples: f"{gap:.3f} +- {error:.3f}" for samples, (gap, error) in found.items()})
    assert right(found)
    assert found[1][0] == pytest.approx(
        float(kl_to_true_posterior(model, weight_DZ, bias_D, x_RD).detach()), abs=4 * found[1][1]
    )
    monkeypatch.setattr(vae, "importance_weighted", lambda log_w_KR: log_w_KR.logsumexp(0))
    assert not right(gaps(model, known_R, x_RD)), "without - log K"
    monkeypatch.setattr(vae, "importance_weighted", importance_weighted)
    monkeypatch.setattr(vae, "standard_normal_log_prob", lambda z: torch.zeros(z.shape[:-1]))
    assert not right(gaps(model, known_R, x_RD)), "without the prior"


def test_iwae_of_one_sample_is_the_sampled_elbo_and_many_are_no_mean() -> None:
    log_w_KR = torch.randn(6, 3, dtype=torch.float64)
    assert torch.equal(importance_weighted(log_w_KR[:1]), log_w_KR[0])
    assert torch.allclose(importance_weighted(log_w_KR), log_w_KR.exp().mean(0).log(), atol=1e-12)
    model = linear_gaussian(bound={"kind": "iwae", "samples": 7})[0]
    x_RD = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    torch.manual_seed(5)
    total = model(batch_of(x_RD), None, player="model", step=0).total
    torch.manual_seed(5)
    assert float((total + model.log_prob_bound(batch_of(x_RD), 7).sum()).detach()) == pytest.approx(0, abs=EXACT)


def test_free_bits_by_hand() -> None:
    kl_RZ = torch.tensor([[0.0, 3.0], [0.4, 1.0]], requires_grad=True)
    paid = weighted_kl(kl_RZ, beta=2.0, free_bits=0.5)
    assert float(paid) == pytest.approx(2 * 2 * (0.5 + 2.0))
    assert torch.equal(torch.autograd.grad(paid, kl_RZ)[0], torch.tensor([[0.0, 2.0], [0.0, 2.0]]))
    assert float(weighted_kl(kl_RZ, beta=1.0, free_bits=0.0)) == pytest.approx(4.4)


@pytest.mark.parametrize("posterior", [GAUSSIAN, FLOW], ids=["gaussian", "flow"])
def test_a_beta_of_one_is_the_plain_elbo_bit_for_bit(posterior: dict[str, Any]) -> None:
    """In float32, and where a drawn KL divergence is negative too."""
    torch.manual_seed(0)
    model = configure(posterior=posterior).build()
    plain, most = configure(posterior=posterior, bound=ELBO | {"beta": 1.0, "free_bits": 0.0}).build(), 0.0
    plain.load_state_dict(model.state_dict())
    for seed in range(20):
        batch = batch_of(torch.randn(2, WIDTH))
        totals = []
        for one in (model, plain):
            torch.manual_seed(seed)
            totals.append(one(batch, None, player="model", step=0).total)
        torch.manual_seed(seed)
        encoded_RE = model._encoded(batch)
        z_KRZ, log_q_KR = model.posterior(encoded_RE, 1)
        mean_RZ, log_std_RZ = encoded_RE[:, :LATENTS], encoded_RE[:, LATENTS : 2 * LATENTS]
        kl = 0.5 * (mean_RZ.square() + (2 * log_std_RZ).exp() - 1) - log_std_RZ
        drawn = log_q_KR - standard_normal_log_prob(z_KRZ)
        known = -model.log_likelihood(z_KRZ, batch).sum() + (drawn if posterior == FLOW else kl).sum()
        assert torch.equal(totals[0], known)
        assert torch.equal(totals[1], known)
        most = min(most, float(drawn.detach().sum()))
    assert most < 0, "some drawn KL divergence is below zero"


def test_free_bits_and_metrics_of_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each latent costs its mean over the rows, or what is free if that is more."""
    x_RD = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    model = linear_gaussian(bound=ELBO | {"beta": 2.0, "free_bits": 0.4})[0]
    with torch.no_grad():
        model.encoder[0].weight *= 0.1
        model.encoder[0].bias.copy_(torch.tensor([0.0, 3.0, 0.05, 0.05]))
        mean_RZ, log_std_RZ = model._encoded(batch_of(x_RD)).chunk(2, 1)
    standard = torch.distributions.Normal(torch.zeros(()).double(), torch.ones(()).double())
    kl_RZ = torch.distributions.kl_divergence(torch.distributions.Normal(mean_RZ, log_std_RZ.exp()), standard)
    assert float(kl_RZ[:, 0].mean()) < 0.4 < float(kl_RZ[:, 1].mean())

    def compare() -> tuple[float, float]:
        loss = model(batch_of(x_RD), None, player="model", step=0)
        paid = loss.total.detach() - loss.metrics["reconstruction_nats"]
        owed = 2.0 * (ROWS * 0.4 + kl_RZ[:, 1].sum())
        return abs(float(paid - owed)), abs(float(loss.metrics["kl_nats"] - kl_RZ.sum()))

    assert max(compare()) < EXACT
    monkeypatch.setattr(vae, "weighted_kl", lambda kl_RZ, *, beta, free_bits: beta * kl_RZ.sum())
    assert compare()[0] > 1e-3, "nothing is free"


def binary(posterior: dict[str, Any]) -> tuple[VAE, VectorBatch]:
    """Of four pixels, with all their sixteen images; its posterior is wide, so that no weight is rare and huge."""
    settings = {"row_shape": [4], "encoder": SMALL, "decoder": SMALL, "output": {"kind": "bernoulli"}}
    model = configure(posterior=posterior, **settings).build()
    random_weights(model, std=0.25)
    with torch.no_grad():
        model.encoder[-1].bias[LATENTS : 2 * LATENTS] = 0.8
    return model, batch_of(torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 4))


def grid(edge: float, points: int) -> tuple[Tensor, float]:
    """[G, 2] mid-points of a square's cells, and the area of one."""
    line = -edge + 2 * edge * (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return torch.cartesian_prod(line, line), (2 * edge / points) ** 2


@pytest.mark.parametrize("posterior", [GAUSSIAN, FLOW], ids=["gaussian", "flow"])
def test_weights_have_the_evidence_as_their_mean(posterior: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all images: p(x) by a sum over a grid of latents adds up to one, and weights of samples average to it."""
    torch.manual_seed(0)
    model, images = binary(posterior)
    with torch.no_grad():
        z_G2, area = grid(8.0, 160)
        log_p_GR = model.log_likelihood(z_G2[:, None].expand(-1, 16, -1), images)
        p_R = (log_p_GR + standard_normal_log_prob(z_G2)[:, None]).exp().sum(0) * area
        assert float(p_R.sum()) == pytest.approx(1, abs=EXACT)

        def misfit() -> float:
            """The largest, in standard errors."""
            w_KR = model._log_weights(images, model._encoded(images), 20_000).exp()
            return float(((w_KR.mean(0) - p_R).abs() / (w_KR.std(0) / math.sqrt(len(w_KR)))).max())

        print("standard errors", misfit())
        assert misfit() < 4
        if model.posterior.layers:
            right = Posterior._flow
            monkeypatch.setattr(Posterior, "_flow", lambda self, z, c: (right(self, z, c)[0], torch.zeros(len(z))))
            assert misfit() > 4, "a flow without its determinant"
        else:
            monkeypatch.setattr(vae, "standard_normal_log_prob", lambda z: 0.9 * standard_normal_log_prob(z))
            assert misfit() > 4


def test_elbo_of_a_flow_posterior_is_that_of_its_density_on_a_grid() -> None:
    torch.manual_seed(0)
    model, images = binary(FLOW)
    row = batch_of(images.values[5:6])
    with torch.no_grad():
        encoded_1E = model._encoded(row)
        z_G2, area = grid(16.0, 400)
        log_q_G = model.posterior.log_density(z_G2, encoded_1E.expand(len(z_G2), -1))
        assert float(log_q_G.exp().sum() * area) == pytest.approx(1, abs=1e-3)
        log_joint_G = model.log_likelihood(z_G2[:, None], row)[:, 0] + standard_normal_log_prob(z_G2)
        known = float((log_q_G.exp() * (log_joint_G - log_q_G)).sum() * area)
        total = -model(batch_of(row.values.expand(40_000, -1)), None, player="model", step=0).total / 40_000
        single_K = model._log_weights(row, encoded_1E, 40_000)[:, 0]
        error = 4 * float(single_K.std()) / 200
        assert float(total) == pytest.approx(known, abs=error)
        assert float(single_K.mean()) == pytest.approx(known, abs=error)
        z_KRZ, log_q_KR = model.posterior(encoded_1E, 50)
        again_K = model.posterior.log_density(z_KRZ[:, 0], encoded_1E.expand(50, -1))
        assert float((again_K - log_q_KR[:, 0]).abs().max()) < EXACT
        gaussian_K = model.posterior.log_density(z_KRZ[:, 0].flip(1), encoded_1E.expand(50, -1))
        assert float((gaussian_K - log_q_KR[:, 0]).abs().max()) > 1e-3


def test_every_latent_of_a_flow_posterior_depends_on_all_noise() -> None:
    """Two autoregressive layers with the order reversed between them; without, the first would stay Gaussian."""
    torch.manual_seed(0)
    posterior = FlowPosteriorConfig.model_validate(FLOW | {"hidden_widths": [30]}).build(4)
    random_weights(posterior)
    noise_NZ, context_NC = torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 3, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda z: posterior._flow(z, context_NC)[0].sum(0), noise_NZ)
    assert float(slope.abs().amax(1).min()) > 0
    assert [type(layer).__name__ for layer in posterior.layers] == ["MaskedAutoregressive"] * 2


def test_the_centre_of_a_flow_posterior_is_where_latents_without_noise_are() -> None:
    posterior = FlowPosteriorConfig.model_validate(FLOW).build(4)
    random_weights(posterior)
    encoded_RE = torch.randn(3, 11, dtype=torch.float64)
    encoded_RE[:, 4:8] = -60.0
    centre_RZ = posterior.centre(encoded_RE)
    assert torch.allclose(posterior(encoded_RE, 1)[0][0], centre_RZ, rtol=0, atol=EXACT)
    assert float((centre_RZ - encoded_RE[:, :4]).detach().abs().max()) > 1e-3, "not the Gaussian's mean"


@pytest.mark.parametrize(
    ("output", "values"),
    [
        (BernoulliOutput(kind="bernoulli"), torch.tensor([0.0, 1.0])),
        (LogisticMixtureOutput(kind="logistic_mixture", levels=5, num_components=2), torch.arange(5) / 4),
    ],
)
def test_outputs_sum_to_one_and_draw_their_mean(output: Any, values: Tensor) -> None:
    torch.manual_seed(0)
    numbers_DK = torch.randn(2, output.per_value, dtype=torch.float64)
    images_XD = torch.cartesian_prod(values.double(), values.double())
    p_X = output.log_prob(numbers_DK.expand(len(images_XD), -1, -1), images_XD).exp()
    assert float(p_X.sum()) == pytest.approx(1, abs=1e-12)
    drawn_ND = output.draw(numbers_DK.expand(40_000, -1, -1))
    error_D = 4 * drawn_ND.std(0) / 200
    assert bool(((drawn_ND.mean(0) - (p_X[:, None] * images_XD).sum(0)).abs() < error_D).all())
    if output.kind == "bernoulli":
        assert torch.allclose(output.mean(numbers_DK), (p_X[:, None] * images_XD).sum(0), atol=1e-12)


def test_the_mean_of_a_mixture_is_weighted() -> None:
    """Of narrow components at many levels, against draws."""
    torch.manual_seed(0)
    output = LogisticMixtureOutput(kind="logistic_mixture", levels=1000, num_components=2)
    numbers_DK = torch.tensor(
        [[1.5, -1.0, -0.3, 0.3, -2.0, -2.0], [0.0, 2.0, 0.1, 0.2, -2.0, -2.0]], dtype=torch.float64
    )
    first = 1 / (1 + math.exp(-2.5))
    assert float(output.mean(numbers_DK)[0]) == pytest.approx(0.2 * first + 0.8 * (1 - first), abs=1e-9)
    drawn_ND = output.draw(numbers_DK.expand(40_000, -1, -1))
    error_D = 4 * drawn_ND.std(0) / 200
    assert bool(((drawn_ND.mean(0) - output.mean(numbers_DK)).abs() < error_D).all())


def test_values_that_an_output_cannot_have_are_refused() -> None:
    bernoulli = BernoulliOutput(kind="bernoulli")
    for value in (2.0, 0.5, -1.0):
        with pytest.raises(BadInput, match="the model is of zeros and ones"):
            bernoulli.log_prob(torch.zeros(1, 1, 1), torch.tensor([[value]]))
    logistic = LogisticMixtureOutput(kind="logistic_mixture", levels=256, num_components=1)
    for value in (255.0, -0.1):
        with pytest.raises(BadInput, match="must lie from 0 to 1"):
            logistic.log_prob(torch.zeros(1, 1, 3), torch.tensor([[value]]))


def test_a_gaussian_output_draws_its_mean_and_its_deviation() -> None:
    torch.manual_seed(0)
    for output in (GaussianOutput(kind="gaussian", std=0.3), GaussianOutput(kind="gaussian", std=None)):
        numbers_DK = 0.5 * torch.randn(3, output.per_value, dtype=torch.float64)
        drawn_ND = output.draw(numbers_DK.expand(40_000, -1, -1))
        assert float((drawn_ND.mean(0) - output.mean(numbers_DK)).abs().max()) < 4 * float(drawn_ND.std(0).max()) / 200
        entropy = float(drawn_ND.std(0).log().sum()) + 1.5 * (1 + math.log(2 * math.pi))
        log_p_N = output.log_prob(numbers_DK.expand(40_000, -1, -1), drawn_ND)
        assert float(log_p_N.mean()) == pytest.approx(-entropy, abs=0.03)


def test_encode_decode_and_sample() -> None:
    model, weight_DZ, bias_D, x_RD = linear_gaussian(orthogonal=True)
    set_posterior(model, weight_DZ, bias_D)
    z_RZ = model.encode(batch_of(x_RD))
    assert torch.allclose(z_RZ, true_posterior(weight_DZ, bias_D, x_RD)[0], atol=EXACT)
    assert torch.allclose(model.decode(z_RZ), z_RZ @ weight_DZ.T + bias_D, atol=EXACT)
    torch.manual_seed(0)
    drawn_ND = model.sample(100_000)
    covariance_DD = (weight_DZ @ weight_DZ.T + STD**2 * torch.eye(WIDTH)).detach()
    spread_DD = (covariance_DD.diag()[:, None] * covariance_DD.diag() + covariance_DD**2).sqrt() / math.sqrt(100_000)
    assert bool(((drawn_ND.T.cov() - covariance_DD).abs() < 5 * spread_DD).all())


@pytest.mark.parametrize("kind", ["perceptron", "convolutional"])
def test_networks_lose_nothing_and_cost_what_torch_counts(kind: str) -> None:
    sizes = {"hidden_widths": [7]} if kind == "perceptron" else {"channels": [3, 4]}
    network = {"kind": kind, "activation": "tanh", **sizes}
    output = {"kind": "logistic_mixture", "levels": 17, "num_components": 2}
    settings = {"row_shape": [2, 8, 4], "encoder": network, "decoder": network, "output": output, "posterior": FLOW}
    model = configure(bound={"kind": "iwae", "samples": 3}, **settings).build()
    random_weights(model, std=0.3)
    x_RD = torch.rand(2, 64, dtype=torch.float64)
    reads = torch.autograd.functional.jacobian(lambda x: model.encode(batch_of(x)), x_RD)
    assert float(reads[0, :, 1].abs().max()) == 0
    assert float(reads[0, :, 0].abs().amax(0).min()) > 0
    says = torch.autograd.functional.jacobian(model.decoder, torch.randn(1, LATENTS, dtype=torch.float64))
    assert says.shape == (1, 64, 6, 1, LATENTS)
    assert float(says.abs().amax(-1).min()) > 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch_of(x_RD), None, player="model", step=0)
    assert counter.get_total_flops() == 2 * model.flops_per_count()


def test_bad_shapes_and_data_are_told() -> None:
    convolutional = {"kind": "convolutional", "channels": [3, 4]}
    for shape in ([64], [1, 6, 8]):
        with pytest.raises(BadInput, match="must be multiples of 4"):
            configure(row_shape=shape, encoder=convolutional).build()
    with pytest.raises(BadInput, match="latent_width 1"):
        configure(latent_width=1, posterior=FLOW).build()
    with pytest.raises(ValidationError, match="samples"):
        configure(bound={"kind": "iwae", "samples": 0})
    binary_digits, grey = (DigitsConfig(kind="digits", pixels=pixels) for pixels in ("threshold", "grey"))
    bernoulli = configure(row_shape=[64], output={"kind": "bernoulli"})
    assert bernoulli.problem(binary_digits) is None
    assert "make it binary" in str(bernoulli.problem(grey))
    for pixels, remedy in (("threshold", "bernoulli"), ("grey", "logistic_mixture with levels=17")):
        data = DigitsConfig(kind="digits", pixels=pixels)
        assert f"choose output.kind {remedy}, or" in str(
            configure(row_shape=[64], output={"kind": "gaussian"}).problem(data)
        )
        assert configure(row_shape=[64], output={"kind": "gaussian", "std": 0.1}).problem(data) is None
    points = EightGaussiansConfig(kind="eight_gaussians")
    assert configure(row_shape=[2], output={"kind": "gaussian"}).problem(points) is None
    for wrong in ({"row_shape": [0]}, {"posterior": FLOW | {"hidden_widths": [0]}}):
        with pytest.raises(ValidationError, match="greater than 0"):
            configure(**wrong)
    levels = configure(row_shape=[64], output={"kind": "logistic_mixture", "levels": 16, "num_components": 1})
    assert "16 levels" in str(levels.problem(grey))
