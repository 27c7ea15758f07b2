"""Codes by moving averages: the paper's recurrence over the whole batch, Lloyd's step, whoever computes it.

Shape legend: N vectors, R rows, P positions, W width of a code, K codes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from pretrain import config
from pretrain.contract import Loss
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.models.latent.code_book import MovingAverageCodeBook, Quantizer
from pretrain.models.latent.vq_vae import VQVAE
from pretrain.optim import AdamWConfig, OptimizerSettings, SGDConfig
from pretrain.trainer import Trainer
from tests.pretrain.engines.turns import differing
from tests.processes import run_workers

CODES, WIDTH, POSITIONS, EXACT = 6, 3, 2, 1e-12
NEGLIGIBLE = 1e-300
"""An epsilon that rounds away beside any count."""
DESCENT = SGDConfig(kind="sgd", learning_rate=1.0)


def book_of(epsilon: float = NEGLIGIBLE) -> MovingAverageCodeBook:
    """In float64, its statistics of nothing in particular."""
    book = MovingAverageCodeBook(CODES, WIDTH, epsilon).double()
    with torch.no_grad():
        book.shares_K.copy_(torch.randn(CODES, dtype=torch.float64).softmax(0))
        book.sums_KW.copy_(book.shares_K[:, None] * torch.randn(CODES, WIDTH))
    return book


def vectors(rows: int = 40) -> Tensor:
    return torch.randn(rows, POSITIONS, WIDTH, dtype=torch.float64)


def turn(
    book: MovingAverageCodeBook,
    micro_batches: Sequence[Tensor],
    rate: float,
    *,
    optimizer: OptimizerSettings = DESCENT,
    scales: Sequence[float] | None = None,
) -> None:
    """What the trainer and an engine do: sums of micro-batches, divided by the count of all, and one update."""
    count = sum(len(x_RPW) for x_RPW in micro_batches)
    moves = optimizer.build(book.parameters())
    for group in moves.param_groups:
        group["lr"] = rate
    for x_RPW, scale in zip(micro_batches, scales or [1 / count] * len(micro_batches), strict=True):
        (book.statistics_loss(x_RPW) * scale).backward()
    moves.step()
    moves.zero_grad(set_to_none=True)


def means_of_chosen(book: MovingAverageCodeBook, x_RPW: Tensor) -> dict[int, Tensor]:
    """Lloyd's step by brute force: code -> the mean of the vectors to which it is nearest."""
    x_NW, codes_KW = x_RPW.flatten(0, 1), book.codes()
    chosen = [min(range(CODES), key=lambda k: float((x_W - codes_KW[k]).square().sum())) for x_W in x_NW]
    return {k: torch.stack([x for x, c in zip(x_NW, chosen, strict=True) if c == k]).mean(0) for k in set(chosen)}


def furthest(book: MovingAverageCodeBook, means: dict[int, Tensor]) -> float:
    return max(float((book.codes()[k] - mean_W).abs().max()) for k, mean_W in means.items())


def test_a_turn_without_decay_is_lloyds_step_on_the_whole_batch() -> None:
    """Whatever the micro-batches, equally large or not; an average of their averages would be another step."""
    x_RPW = vectors()
    for sizes in ([40], [10, 10, 10, 10], [3, 37]):
        book = book_of()
        means = means_of_chosen(book, x_RPW)
        turn(book, x_RPW.split(sizes), rate=1.0)
        assert furthest(book, means) < 1e-10
        assert bool(book.codes().isfinite().all())
    book = book_of()
    means = means_of_chosen(book, x_RPW)
    turn(book, x_RPW.split([3, 37]), rate=1.0, scales=[1 / 6, 1 / 74])
    assert furthest(book, means) > 1e-3, "each micro-batch divided by its own count"


def by_hand(book: MovingAverageCodeBook, batches: Sequence[Tensor], decay: float) -> tuple[Tensor, Tensor]:
    """N and m after these batches, by the paper's appendix A.1 with numbers divided by those of the batch."""
    shares_K, sums_KW = book.shares_K.detach().clone(), book.sums_KW.detach().clone()
    for x_RPW in batches:
        x_NW = x_RPW.flatten(0, 1)
        smoothed_K = (shares_K + book.epsilon) / (1 + CODES * book.epsilon)
        nearest_N = torch.cdist(x_NW, sums_KW / smoothed_K[:, None]).argmin(1)
        for k in range(CODES):
            mine_NW = x_NW[nearest_N == k]
            shares_K[k] = decay * shares_K[k] + (1 - decay) * len(mine_NW) / len(x_NW)
            sums_KW[k] = decay * sums_KW[k] + (1 - decay) * mine_NW.sum(0) / len(x_NW)
    return shares_K, sums_KW


def error_after(optimizer: OptimizerSettings, decay: float, rate: float) -> float:
    """Of five turns, against the recurrence."""
    book, batches = book_of(1e-3), [vectors() for _ in range(5)]
    shares_K, sums_KW = by_hand(book, batches, decay)
    for x_RPW in batches:
        turn(book, x_RPW.split(8), rate, optimizer=optimizer)
    return apart([(book.shares_K, book.sums_KW)], [(shares_K, sums_KW)])


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.99])
def test_turns_are_the_papers_recurrence(decay: float) -> None:
    assert error_after(DESCENT, decay, 1 - decay) < EXACT


def test_other_updates_are_not() -> None:
    assert error_after(DESCENT, 0.9, 0.9) > 1e-3, "the rate is 1 - decay"
    assert error_after(AdamWConfig(learning_rate=1.0), 0.9, 0.1) > 1e-3
    assert error_after(DESCENT.model_copy(update={"weight_decay": 0.1}), 0.9, 0.1) > 1e-4


def test_shares_sum_to_one_and_so_do_smoothed_ones() -> None:
    book = book_of(0.01)
    for _ in range(50):
        turn(book, [vectors()], 0.3)
        assert float(book.shares_K.detach().sum()) == pytest.approx(1, abs=EXACT)
    smoothed_KW = book.sums_KW.detach() / book.codes()
    assert torch.allclose(smoothed_KW.sum(0), torch.ones(WIDTH, dtype=torch.float64), atol=1e-9)


def test_the_loss_is_the_distance_from_the_statistics_of_each_vector() -> None:
    book, x_RPW = book_of(), vectors(5)
    total = 0.0
    for x_PW, numbers_P in zip(x_RPW, book.nearest(x_RPW), strict=True):
        for x_W, number in zip(x_PW, numbers_P, strict=True):
            e_K = nn.functional.one_hot(number, CODES).double()
            counts, sums = book.shares_K - e_K, book.sums_KW - torch.outer(e_K, x_W)
            total += float((counts.square().sum() + sums.square().sum()).detach()) / (2 * POSITIONS)
    assert float(book.statistics_loss(x_RPW).detach()) == pytest.approx(total, rel=1e-12)


def test_a_fresh_book_draws_its_codes_as_the_one_of_gradients() -> None:
    torch.manual_seed(7)
    expected_KW = torch.randn(CODES, WIDTH)
    torch.manual_seed(7)
    book = MovingAverageCodeBook(CODES, WIDTH, 1e-7)
    torch.testing.assert_close(book.codes(), expected_KW, rtol=1e-6, atol=0)
    assert torch.equal(book.shares_K, torch.full((CODES,), 1 / CODES))


def test_a_code_that_nobody_chooses_stays_until_its_share_comes_near_epsilon() -> None:
    """In float32, beyond the point at which its share has vanished; without smoothing it would be no number."""
    book = MovingAverageCodeBook(CODES, WIDTH, 1e-7)
    with torch.no_grad():
        book.sums_KW[0].fill_(100.0)  # far from all vectors
    before_W, x_RPW = book.codes()[0], vectors(4).float()
    for _ in range(50):
        turn(book, [x_RPW], 0.1)
    torch.testing.assert_close(book.codes()[0], before_W, rtol=1e-3, atol=0)
    for _ in range(200):
        turn(book, [x_RPW], 0.1)
    assert 0.0 < float(book.codes()[0].norm()) < 0.01 * float(before_W.norm())
    with torch.no_grad():
        book.shares_K[1], book.sums_KW[1] = 0.0, 0.0
    assert bool(book.codes().isfinite().all())
    assert bool((book.codes()[1] == 0).all())
    book.epsilon = 0.0
    assert not bool(book.codes().isfinite().all())


def test_a_share_that_rounding_leaves_below_zero_counts_as_none() -> None:
    book = book_of(1e-7)
    with torch.no_grad():
        book.shares_K[2], book.sums_KW[2] = -1e-7, 1e-9
    assert float(book.codes()[2].abs().max()) == pytest.approx(1e-2, rel=1e-5)


# The whole model


def experiment(*overrides: str) -> Experiment:
    return config.load(Experiment, config.recipe_path("tiny_vq_vae_moving_average"), overrides)


def model_and_batch() -> tuple[VQVAE, VectorBatch]:
    """In float64, weights nowhere near what they start at."""
    model = experiment().model.build()
    assert isinstance(model, VQVAE)
    model.double()
    for name, parameter in model.named_parameters():
        if not name.startswith("code_book."):
            nn.init.normal_(parameter, std=0.4)
    values_RD = torch.bernoulli(torch.full((9, 64), 0.5, dtype=torch.float64))
    return model, VectorBatch(values_RD, torch.zeros(9, dtype=torch.int64), torch.arange(9))


def reached(model: VQVAE, batch: VectorBatch, player: str) -> set[str]:
    """Parameters with a gradient in a turn of `player`, although all may have one."""
    model.zero_grad(set_to_none=True)
    model(batch, None, player=player, step=0).total.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}


def test_each_turn_reaches_its_player_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_and_batch()
    own = {player: {name for name, _ in model.player_parameters(player)} for player in model.players}
    assert own["code_book"] == {"code_book.shares_K", "code_book.sums_KW"}
    assert own["code_book"] | own["autoencoder"] == {name for name, _ in model.named_parameters()}
    for player in model.players:
        assert reached(model, batch, player) == own[player]
    with pytest.raises(ValueError, match="players are code_book, autoencoder"):
        model.player_parameters("model")

    def statistics(self: VQVAE, batch: VectorBatch) -> Loss:
        x_RPW = self._vectors(batch)
        chosen_RPW = nn.functional.embedding(self.code_book.nearest(x_RPW), self.code_book.sums_KW)
        return Loss((x_RPW - chosen_RPW).square().sum() + self.code_book.shares_K.square().sum(), batch.rows)

    with monkeypatch.context() as planted:
        planted.setattr(VQVAE, "_statistics", statistics)
        assert any(name.startswith("encoder.") for name in reached(model, batch, "code_book")), "vectors not detached"
    right = Quantizer.forward

    def through(self: MovingAverageCodeBook, x_RPW: Tensor) -> Any:
        z_RPW, numbers_RP, *rest = right(self, x_RPW)
        moved_KW = self.sums_KW / self.shares_K[:, None]
        return z_RPW + 0 * moved_KW.sum() + (moved_KW - moved_KW.detach())[numbers_RP], numbers_RP, *rest

    monkeypatch.setattr(MovingAverageCodeBook, "forward", through)
    assert reached(model, batch, "autoencoder") >= own["code_book"], "codes not detached"


def test_the_autoencoder_learns_as_beside_codes_of_gradients() -> None:
    """With the same codes its gradients are those of the other variant in every bit."""
    model, batch = model_and_batch()
    values = experiment().model.model_dump() | {"codes": {"kind": "gradient"}}
    other = type(experiment().model).model_validate(values).build().double()
    assert other.players == ("model",)
    missing = other.load_state_dict(model.state_dict(), strict=False)
    assert missing.missing_keys == ["code_book.codes_KW"]
    with torch.no_grad():
        other.code_book.codes_KW.copy_(model.code_book.codes())
    model(batch, None, player="autoencoder", step=0).total.backward()
    other(batch, None, player="model", step=0).total.backward()
    expected = dict(other.named_parameters())
    for name, parameter in model.player_parameters("autoencoder"):
        assert torch.equal(parameter.grad, expected[name].grad), name
    assert other.code_book.codes_KW.grad is not None


Seen = list[tuple[Tensor, Tensor]]
"""Shares and sums after each step."""
STEPS = 4


def float64_run(group: Group) -> tuple[Seen, Seen, list[str]]:
    """What a run's statistics are, what they would be by hand from the batch of all workers; replicas that differ."""
    trainer = experiment("batch.micro_batches=4", "batch.rows=3").trainer(group)
    trainer.engine.model.double()
    model = trainer.engine.model
    got, expected, turns = [], [], []

    def before_change() -> None:
        turns.append(model.turns(0)[len(turns) % 2])
        if turns[-1] == "code_book":
            expected.append(_by_hand(trainer))

    trainer.before_change = before_change
    for _ in zip(range(STEPS), trainer.steps(), strict=False):
        got.append((model.code_book.shares_K.detach().clone(), model.code_book.sums_KW.detach().clone()))
    return got, expected, differing(trainer)


@torch.no_grad()
def _by_hand(trainer: Trainer) -> tuple[Tensor, Tensor]:
    """The statistics after the turn in hand, from all its micro-batches at once."""
    model, rate = trainer.engine.model, trainer.learning_rate("code_book", trainer.step)
    batches = [trainer.stream.micro_batch(trainer.draws, g) for g in range(trainer.plan.micro_batches)]
    x_NW = torch.cat([model._vectors(batch) for batch in batches]).flatten(0, 1)
    chosen_NK = nn.functional.one_hot(
        torch.cdist(x_NW, model.code_book.codes()).argmin(1), len(model.code_book.codes())
    )
    shares_K, sums_KW = chosen_NK.double().mean(0), chosen_NK.double().T @ x_NW / len(x_NW)
    return torch.lerp(model.code_book.shares_K, shares_K, rate), torch.lerp(model.code_book.sums_KW, sums_KW, rate)


def own_share_only(self: MovingAverageCodeBook, x_RPW: Tensor) -> Tensor:
    """The planted error: averages overwritten in forward, by what this worker sees of the batch."""
    x_NW, chosen_N = x_RPW.flatten(0, 1), self.nearest(x_RPW).flatten()
    with torch.no_grad():
        chosen_NK = nn.functional.one_hot(chosen_N, len(self.shares_K)).to(x_NW)
        self.shares_K.lerp_(chosen_NK.mean(0), 0.1)
        self.sums_KW.lerp_(chosen_NK.T @ x_NW / len(x_NW), 0.1)
    return 0 * (self.shares_K.sum() + self.sums_KW.sum())


def canonical(group: Group) -> dict[str, Tensor]:
    """All that a run with the canonical reduction leaves."""
    trainer = experiment("batch.micro_batches=4", "engine.reduction=canonical").trainer(group)
    for _ in zip(range(STEPS), trainer.steps(), strict=False):
        pass
    return {name: tensor.clone() for name, tensor in trainer.engine.replicas()}


def every_run(group: Group) -> dict[str, Any]:
    left: dict[str, Any] = {"right": float64_run(group), "canonical": canonical(group)}
    with pytest.MonkeyPatch.context() as planted:
        planted.setattr(MovingAverageCodeBook, "statistics_loss", own_share_only)
        return left | {"own share only": float64_run(group)}


def apart(a: Iterable[tuple[Tensor, Tensor]], b: Iterable[tuple[Tensor, Tensor]]) -> float:
    return max(
        float((x - y).detach().abs().max())
        for one, other in zip(a, b, strict=True)
        for x, y in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def by_workers() -> dict[int, list[dict[str, Any]]]:
    """What each worker saw, by their number."""
    return {1: [every_run(Group())]} | {world: run_workers(world, every_run) for world in (2, 4)}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_statistics_are_of_the_whole_batch_whoever_computes_them(
    by_workers: dict[int, list[dict[str, Any]]], workers: int
) -> None:
    alone, _, _ = by_workers[1][0]["right"]
    for seen in by_workers[workers]:
        got, expected, different = seen["right"]
        assert apart(got, expected) < EXACT
        assert apart(got, alone) < 1e-9, "the autoencoder's AdamW magnifies rounding"
        assert different == []
    assert apart(alone[:1], alone[1:2]) > 1e-3, "they move"


def test_averages_that_are_overwritten_in_forward_differ_between_workers(
    by_workers: dict[int, list[dict[str, Any]]],
) -> None:
    (got, expected, different), (other, _, _) = (seen["own share only"] for seen in by_workers[2])
    assert {"weights/code_book.shares_K", "weights/code_book.sums_KW"} <= set(different)
    assert apart(got, other) > 1e-3
    assert apart(got, expected) > 1e-3
    alone, _, none = by_workers[1][0]["own share only"]
    assert none == []
    assert apart(got, alone) > 1e-3


@pytest.mark.parametrize("workers", [2, 4])
def test_the_canonical_reduction_gives_equal_bits(by_workers: dict[int, list[dict[str, Any]]], workers: int) -> None:
    alone, together = (by_workers[world][0]["canonical"] for world in (1, workers))
    assert alone.keys() == together.keys() >= {"weights/code_book.sums_KW"}
    assert [name for name in alone if not torch.equal(alone[name], together[name])] == []


def test_the_schedule_multiplies_one_minus_decay() -> None:
    values = experiment("steps=4", "schedule={kind: linear}", "player_optimizers.code_book.learning_rate=0.2")
    rates = [values.learning_rate()("code_book", step) for step in range(4)]
    assert rates == pytest.approx([0.2, 0.15, 0.1, 0.05])


FIELD = "player_optimizers.code_book"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["player_optimizers={}"], "optimizer.kind is 'adamw': only plain gradient descent makes moving averages; set"),
        ([f"{FIELD}.kind=adamw"], f"{FIELD}.kind is 'adamw': only plain gradient descent"),
        (
            [f"{FIELD}.gradient_clip=1"],
            f"{FIELD}.gradient_clip is 1: a clipped step is another decay in each turn; set",
        ),
        ([f"{FIELD}.weight_decay=0.1"], f"{FIELD}.weight_decay is 0.1: it would pull every code to zero; set it to 0"),
        ([f"{FIELD}.learning_rate=1.5"], f"{FIELD}.learning_rate is 1.5: it is 1 - decay, at most 1"),
        (["optimizer={kind: sgd, learning_rate: 2}", "player_optimizers={}"], "optimizer.learning_rate is 2: it is 1"),
        (["model.codes.kind=gradient"], f"{FIELD}: model.kind=vq_vae has the players model"),
        (["model.codes.kind=moving"], "model.codes.kind: must be one of 'gradient', 'moving_average'"),
        (["model.codes.epsilon=0"], "model.codes.epsilon: Input should be greater than 0, but it is 0"),
        (["model.codes.decay=0.99"], "model.codes.decay: there is no such key"),
        (
            ["engine={kind: deepspeed, zero_stage: 3}"],
            "engine.zero_stage=3 cuts one model's parameters, but model.kind=vq_vae has the players code_book, autoenc",
        ),
    ],
)
def test_what_would_be_no_moving_average_is_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        experiment(*overrides)
    assert expected in str(caught.value)


def test_what_is_one_is_not() -> None:
    assert experiment(f"{FIELD}.learning_rate=1").optimizers()["code_book"].learning_rate == 1
    assert isinstance(experiment().optimizers()["autoencoder"], AdamWConfig)
    assert experiment("player_optimizers={}", "optimizer={kind: sgd, learning_rate: 0.01}").model.players == (
        "code_book",
        "autoencoder",
    )


def test_operations_are_the_mean_of_the_two_turns() -> None:
    values = experiment().model
    gradient = type(values).model_validate(values.model_dump() | {"codes": {"kind": "gradient"}})
    decoder = 2 * (16 * 32 + 32 * 64)
    assert values.build().flops_per_count() == gradient.build().flops_per_count() - decoder / 2
    assert math.isclose(gradient.build().flops_per_count(), 2 * (64 * 32 + 32 * 16) + 2 * 16 * 8 + decoder)
