"""VQ-VAEs: the nearest codes, gradients that go straight through, Lloyd's step, a bound by enumeration, a real file.

Shape legend: R rows, P positions, W width of a code, K codes, X images, S sequences of codes.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from pretrain.kernels_config import KernelsConfig
from pretrain.models.latent import code_book, vq_vae
from pretrain.models.latent.code_book import CodeBook, MovingAverageCodeBook, Quantizer
from pretrain.models.latent.packed_codes import bits_of, pack, unpack
from pretrain.models.latent.vq_vae import VQVAE, VQVAEConfig
from tests.pretrain.bijections.identities import random_weights

POSITIONS, CODES, WIDTH, PIXELS, EXACT = 3, 4, 2, 4, 1e-9


def build(**settings: Any) -> VQVAE:
    network = {"kind": "perceptron", "hidden_widths": [6], "activation": "tanh"}
    sizes = {"num_positions": POSITIONS, "num_codes": CODES, "code_width": WIDTH, "row_shape": [PIXELS]}
    known = {"kind": "vq_vae", **sizes, "encoder": network, "decoder": network, "output": {"kind": "bernoulli"}}
    model = VQVAEConfig.model_validate({**known, **settings}).build()
    random_weights(model, std=0.7)
    if isinstance(model.code_book, MovingAverageCodeBook):
        with torch.no_grad():
            model.code_book.shares_K.copy_(torch.randn(len(model.code_book.shares_K)).softmax(0))
    return model


either_way = pytest.mark.parametrize("codes", [{"kind": "gradient"}, {"kind": "moving_average"}], ids=str)


def images() -> VectorBatch:
    values_XD = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * PIXELS)
    return VectorBatch(values_XD, torch.zeros(len(values_XD), dtype=torch.int64), torch.arange(len(values_XD)))


def brute(x_RPW: Tensor, codes_KW: Tensor) -> list[list[int]]:
    return [
        [min(range(len(codes_KW)), key=lambda k: float((x - codes_KW[k]).square().sum())) for x in r] for r in x_RPW
    ]


def test_codes_are_the_nearest_by_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    book = CodeBook(9, 3).double()
    x_RPW = torch.randn(20, 4, 3, dtype=torch.float64)
    goal = brute(x_RPW, book.codes_KW.detach())
    assert book.nearest(x_RPW).tolist() == goal
    assert torch.equal(book.vectors(book.nearest(x_RPW)), book.codes_KW[torch.tensor(goal)])
    monkeypatch.setattr(code_book, "nearest_code", lambda x, c, impl: (x @ c.T).argmax(1))
    assert book.nearest(x_RPW).tolist() != goal, "the largest product is not the smallest distance"


def through_gradients(model: VQVAE) -> tuple[Tensor, Tensor, Tensor]:
    """At the encoder's outputs and at the decoder's inputs, of the reconstruction alone; and those inputs."""
    x_RPW = model._vectors(images()).detach().requires_grad_()
    z_RPW = model.code_book(x_RPW)[0]
    (at_vectors,) = torch.autograd.grad(model._reconstruction(z_RPW, images()).sum(), x_RPW)
    inputs = z_RPW.detach().requires_grad_()
    (at_inputs,) = torch.autograd.grad(model._reconstruction(inputs, images()).sum(), inputs)
    return at_vectors, at_inputs, inputs.detach()


@either_way
def test_gradients_go_straight_through_in_every_bit(codes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(codes=codes)
    at_vectors, at_inputs, inputs = through_gradients(model)
    assert torch.equal(at_vectors, at_inputs)
    assert float(at_vectors.abs().min()) > 0
    assert torch.equal(inputs, model.code_book.vectors(model.codes(images()))), "values are the codes in every bit"
    right = Quantizer.forward

    def soft(self: Quantizer, x_RPW: Tensor) -> Any:
        z, *rest = right(self, x_RPW)
        return 0.9 * z + 0.1 * x_RPW, *rest

    monkeypatch.setattr(Quantizer, "forward", soft)
    at_vectors, at_inputs, inputs = through_gradients(model)
    assert torch.allclose(at_vectors, at_inputs), "its gradient is right"
    assert not torch.equal(inputs, model.code_book.vectors(model.codes(images()))), "but not its values"


def test_who_moves_by_which_term() -> None:
    """Codes by their own loss, the encoder by reconstruction and commitment, the prior by nothing but the codes."""
    model = build(commitment=0.5)
    x_RPW = torch.randn(5, POSITIONS, WIDTH, dtype=torch.float64, requires_grad=True)
    z_RPW, numbers_RP, codes_R, commitment_R = model.code_book(x_RPW)
    assert torch.equal(codes_R, commitment_R)
    table = model.code_book.codes_KW
    assert torch.autograd.grad(codes_R.sum(), x_RPW, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(commitment_R.sum(), table, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(z_RPW.sum(), table, allow_unused=True, retain_graph=True) == (None,)
    (pull,) = torch.autograd.grad(commitment_R.sum(), x_RPW)
    assert torch.allclose(pull, 2 * (x_RPW - table[numbers_RP]), atol=EXACT)
    total = model(images(), None, player="model", step=0)
    parts = total.metrics["reconstruction_nats"] + total.metrics["code_nats"] + 1.5 * total.metrics["distance_to_codes"]
    assert float((total.total - parts).detach()) == pytest.approx(0, abs=EXACT)
    reached = torch.autograd.grad(total.total, model.prior_logits_PK)[0]
    goal_PK = 16 * model.prior_logits_PK.softmax(-1)
    goal_PK = goal_PK - torch.nn.functional.one_hot(model.codes(images()), CODES).sum(0)
    assert torch.allclose(reached, goal_PK, atol=EXACT)


def lloyd_error(codes_R: Tensor, book: CodeBook, x_RPW: Tensor) -> float:
    """Between a step of 1 / (2 n_k) down the codes' loss and the mean of the vectors that chose each code."""
    numbers_N, x_NW = book.nearest(x_RPW).flatten(), x_RPW.flatten(0, 1)
    (slope_KW,) = torch.autograd.grad(codes_R.sum(), book.codes_KW)
    errors = []
    for code in numbers_N.unique():
        chosen = numbers_N == code
        stepped_W = book.codes_KW[code] - slope_KW[code] / (2 * chosen.sum())
        errors.append(float((stepped_W - x_NW[chosen].mean(0)).detach().abs().max()))
    return max(errors)


def test_a_step_down_the_codes_loss_is_lloyds() -> None:
    book = CodeBook(6, 3).double()
    x_RPW = torch.randn(40, 2, 3, dtype=torch.float64)
    assert lloyd_error(book(x_RPW)[2], book, x_RPW) < EXACT
    assert lloyd_error(book(x_RPW)[2] / 2, book, x_RPW) > 1e-3, "a mean over positions would be another step"


def all_codes() -> Tensor:
    """[S, P]"""
    return torch.cartesian_prod(*[torch.arange(CODES)] * POSITIONS)


def enumerated(model: VQVAE) -> Tensor:
    """[X] log p(x) by a sum over all sequences of codes."""
    codes_SP, batch = all_codes(), images()
    prior_S = model._prior(codes_SP)
    vectors_SPW = model.code_book.vectors(codes_SP)
    rows = []
    for z_PW, prior in zip(vectors_SPW, prior_S, strict=True):
        rows.append(model._reconstruction(z_PW.expand(len(batch.values), -1, -1), batch) + prior)
    return torch.stack(rows).logsumexp(0).detach()


@either_way
def test_the_bound_is_below_the_sum_over_all_codes(codes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(codes=codes)
    log_p_X = enumerated(model)
    assert float(log_p_X.exp().sum()) == pytest.approx(1, abs=EXACT)
    bound_X = model.log_prob_bound(images(), 1).detach()
    assert bool((bound_X < log_p_X).all())
    assert torch.equal(bound_X, model.log_prob_bound(images(), 7).detach())
    loss = model(images(), None, player=model.players[-1], step=0).metrics
    assert float(loss["reconstruction_nats"] + loss["code_nats"] + bound_X.sum()) == pytest.approx(0, abs=EXACT)
    monkeypatch.setattr(vq_vae.VQVAE, "_prior", lambda self, codes_NP: torch.zeros(len(codes_NP)))
    assert float(enumerated(model).exp().sum()) > 2, "without a prior nothing sums to one"


def test_samples_are_of_the_prior_and_the_decoder() -> None:
    torch.manual_seed(0)
    model, many = build(), 40_000
    p_X = enumerated(model).exp()
    places_N = (model.sample(many) @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long()
    counts_X = torch.bincount(places_N, minlength=16)
    statistic = float(((counts_X - many * p_X).square() / (many * p_X)).sum())
    assert statistic < 15 + 4 * math.sqrt(2 * 15)
    uniform = torch.full_like(p_X, 1 / 16)
    assert float(((counts_X - many * uniform).square() / (many * uniform)).sum()) > 15 + 4 * math.sqrt(2 * 15)


def test_encode_and_decode_are_of_the_codes() -> None:
    model = build()
    latents_XZ, codes_XP = model.encode(images()), model.codes(images())
    assert torch.equal(latents_XZ.view(16, POSITIONS, WIDTH), model.code_book.codes_KW[codes_XP])
    assert torch.equal(model.decode(latents_XZ), model.decode_codes(codes_XP))


@pytest.mark.parametrize("num_codes", [2, 5, 32, 512])
def test_a_file_of_codes_has_the_bits_it_says(num_codes: int, tmp_path: Path) -> None:
    codes_NP = torch.randint(0, num_codes, (300, 8)).numpy()
    path = tmp_path / "codes"
    path.write_bytes(pack(codes_NP, num_codes))
    assert np.array_equal(unpack(path.read_bytes(), num_codes, 8, 300), codes_NP)
    model = build(num_codes=num_codes, num_positions=8)
    assert bits_of(num_codes) == math.ceil(math.log2(num_codes))
    if num_codes != 5:
        assert 8 * path.stat().st_size == 300 * model.bits_per_row
    else:
        assert 8 * path.stat().st_size == 300 * 8 * 3 > 300 * model.bits_per_row


def test_rows_are_decoded_from_a_file_alone(tmp_path: Path) -> None:
    model = build()
    codes_XP = model.codes(images())
    (tmp_path / "codes").write_bytes(pack(codes_XP.numpy(), CODES))
    read_XP = torch.from_numpy(unpack((tmp_path / "codes").read_bytes(), CODES, POSITIONS, 16))
    assert torch.equal(model.decode_codes(read_XP), model.decode(model.encode(images())))
    assert (tmp_path / "codes").stat().st_size == 16 * POSITIONS * 2 / 8


def test_bad_codes_and_files_are_told() -> None:
    with pytest.raises(BadInput, match="must lie from 0 to 3"):
        pack(np.array([[0, 4]]), 4)
    with pytest.raises(BadInput, match="3 bytes: 3 rows of 2 codes of 2 bits take 2"):
        unpack(b"abc", 4, 2, 3)
    with pytest.raises(BadInput, match="codes from 0 to 3: must lie from 0 to 2"):
        unpack(pack(np.array([[0, 3]]), 4), 3, 2, 1)


def test_the_kernel_is_chosen_by_the_run() -> None:
    model = build()
    KernelsConfig(nearest_code="reference").tell(model, torch.device("cpu"), torch.float32)
    assert model.code_book.impl == "reference"
