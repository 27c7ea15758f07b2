"""Every property of the contract over every tiny recipe: each model of the union, and variants that learn otherwise."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_pipeline.batch import Batch, PairBatch, TokenBatch
from pretrain import checkpoint, config
from pretrain.checkpoint.piece import Piece
from pretrain.contract import Loss
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.models import MODEL_CONFIGS
from pretrain.saving import save
from pretrain.trainer import Trainer
from tests.processes import run_workers

TINY = {
    experiment.name.removeprefix("tiny_"): experiment
    for experiment in (config.load(Experiment, path) for path in sorted((config.RECIPES / "tiny").glob("*.yaml")))
}
Turns = list[tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]]
"""Of each turn: the rows' identities and the summed objective, by micro-batch."""

every_model = pytest.mark.parametrize("recipe", sorted(TINY))


def tiny(recipe: str, **changes: object) -> Experiment:
    """The tiny recipe of a model on the local engine, with four micro-batches so that 1, 2 and 4 workers share them."""
    experiment = TINY[recipe]
    batch = experiment.batch.model_copy(update={"micro_batches": 4, "rows": 2})
    values = experiment.model_copy(update={"batch": batch, **changes}).model_dump(mode="json")
    values["engine"] = {"kind": "local"}
    return config.parse(Experiment, values, source=recipe)


def state(trainer: Trainer) -> dict[str, Tensor]:
    """A copy of every piece, by name and start."""
    return {f"{piece.name}:{piece.start}": piece.tensor.clone() for piece in trainer.pieces()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_model_of_the_union_has_a_tiny_recipe() -> None:
    assert {experiment.model.kind for experiment in TINY.values()} == set(MODEL_CONFIGS)


@every_model
def test_gradients_reach_exactly_the_player_whose_turn_it_is(recipe: str) -> None:
    trainer = tiny(recipe).trainer(Group())
    engine, model = trainer.engine, trainer.engine.model
    owned = {player: {name for name, _ in model.player_parameters(player)} for player in model.players}
    assert sorted(name for names in owned.values() for name in names) == sorted(n for n, _ in model.named_parameters())
    for player in dict.fromkeys(model.turns(0)):
        model.zero_grad(set_to_none=True)
        engine.begin_turn(player)
        batch = trainer.stream.micro_batch(0, 0)
        torch.manual_seed(1)
        engine.accumulate(batch, trainer.carries[0], player=player, step=0, scale=1.0, last=True)
        reached = {n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
        assert reached <= owned[player], f"{player}'s turn moved {sorted(reached - owned[player])}"
        missed = owned[player] - reached - CONSTANT_GRADIENT.get(recipe, set())
        assert not missed, f"{player}'s turn does not reach {sorted(missed)}"


CONSTANT_GRADIENT = {"gan": {f"critic.{2 * len(TINY['gan'].model.critic.widths)}.bias"}}
"""Parameters that the objective does not depend on: the critic's last bias cancels in D(y) - D(x), and the penalty sees
only the slope of D."""


@every_model
def test_resume_is_bit_exact(recipe: str, tmp_path: Path) -> None:
    """Six steps at once equal three, a save, another process's randomness, a load and three more."""
    experiment = tiny(recipe)
    whole = experiment.trainer(Group())
    _take(whole, 6)
    first = experiment.trainer(Group())
    _take(first, 3)
    save(first, experiment, tmp_path)
    torch.manual_seed(12345)
    second = experiment.trainer(Group())
    reader = checkpoint.newest_good(tmp_path, log=print)
    assert reader is not None
    second.restore(reader, reader.manifest.counters)
    assert same_bits(state(first), state(second)), "what was saved is what was loaded"
    _take(second, 3)
    assert second.counters() == whole.counters()
    assert same_bits(state(whole), state(second))


@pytest.fixture(scope="module")
def by_workers() -> dict[int, dict[str, Turns]]:
    """What 1, 2 and 4 workers saw and computed, of every model; started once for all, since starting takes longest."""
    return {world: run_workers(world, _turns_of_all)[0] for world in (1, 2, 4)}


@every_model
@pytest.mark.parametrize("workers", [2, 4])
def test_the_number_of_workers_changes_nothing_but_rounding(
    recipe: str, workers: int, by_workers: dict[int, dict[str, Turns]]
) -> None:
    """The same samples and the same noise; the objective within the rounding of a sum."""
    alone, together = by_workers[1][recipe], by_workers[workers][recipe]
    for (ids, losses), (same_ids, same_losses) in zip(alone, together, strict=True):
        assert ids == same_ids
        assert losses == pytest.approx(same_losses, rel=1e-5, abs=1e-5)
    assert alone[0][1] == together[0][1], "before the first update each micro-batch is the same in every bit"


def _turns_of_all(group: Group) -> dict[str, Turns]:
    return {recipe: _turns(group, recipe) for recipe in sorted(TINY)}


def _turns(group: Group, recipe: str) -> Turns:
    reports = [report for _, report in zip(range(4), tiny(recipe).trainer(group).steps(), strict=False)]
    return [(turn.sample_ids, turn.micro_batch_losses) for report in reports for turn in report.turns]


@every_model
def test_order_and_history_of_the_random_state_do_not_matter(recipe: str) -> None:
    """Randomness drawn by others between steps leaves no trace."""
    calm, disturbed = tiny(recipe).trainer(Group()), tiny(recipe).trainer(Group())
    _take(calm, 3)
    for _ in disturbed.steps():
        torch.rand(17)
        if disturbed.step == 3:
            break
    assert same_bits(state(calm), state(disturbed))


@every_model
def test_only_an_update_changes_what_is_saved(recipe: str) -> None:
    """A save copies the state beside the passes of the next step, so these leave weights, moments and carry alone."""
    trainer = tiny(recipe).trainer(Group())
    _take(trainer, 1)
    live = {piece.name: piece.tensor for piece in trainer.pieces()}
    kept = {name: tensor.clone() for name, tensor in live.items()}
    looks: list[list[str]] = []

    def look() -> list[str]:
        return [name for name, tensor in live.items() if not torch.equal(tensor, kept[name])]

    trainer.before_change = lambda: looks.append(look())
    next(trainer.steps())
    assert looks[0] == []
    assert look(), "the update of that step"


@every_model
def test_carry_keeps_its_shape_and_is_detached(recipe: str) -> None:
    trainer = tiny(recipe).trainer(Group())
    fresh = trainer.carry()
    _take(trainer, 2)
    for before, after in zip(fresh, trainer.carry(), strict=True):
        assert (before is None) == (after is None)
        for name, value in (before or {}).items():
            later = (after or {})[name]
            assert later.shape == value.shape
            assert later.dtype == value.dtype
            assert not later.requires_grad
            assert not torch.equal(later, value), f"{name} never moves"


@every_model
def test_loss_is_a_sum_over_the_count_it_states(recipe: str) -> None:
    """A batch of rows costs what its rows cost one by one, for models whose objective draws nothing."""
    experiment = tiny(recipe)
    trainer = experiment.trainer(Group())
    batch, model = trainer.stream.micro_batch(0, 0), trainer.engine.model
    loss = _score(trainer, batch)
    assert loss.count == model.count(batch)
    assert loss.total.shape == ()
    if isinstance(batch, TokenBatch | PairBatch):
        one_by_one = [_score(trainer, _row(batch, r)) for r in range(batch.rows)]
        assert float(loss.total) == pytest.approx(sum(float(x.total) for x in one_by_one), rel=1e-5)
        assert loss.count == sum(x.count for x in one_by_one)


@every_model
def test_one_batch_is_learned_by_heart(recipe: str) -> None:
    """Shown one micro-batch for ever, a language model's loss and a sampler's distance from the data fall by half."""
    experiment = tiny(recipe, steps=OVERFIT_STEPS[recipe])
    trainer = experiment.trainer(Group())
    fixed = trainer.stream.micro_batch(0, 0)
    row = _row(fixed, 0)
    trainer.stream = _Constant(_repeat(row, fixed.rows))
    before = _misfit(trainer, row)
    for _ in trainer.steps():
        pass
    after = _misfit(trainer, row)
    assert after < 0.5 * before, f"{before:.4f} -> {after:.4f}"


OVERFIT_STEPS = {
    "transformer_xl": 60,
    "gpt": 60,
    "gan": 300,
    "acai": 100,
    "energy_based": 100,
    "rbm": 150,
    "made": 60,
    "wavenet": 300,
    "pixelcnn": 60,
    "nade": 60,
    "flow": 150,
    "vae": 150,
    "vq_vae": 200,
    "vq_vae_moving_average": 200,
    "seq2seq": 100,
}


class _Constant:
    """A stream that always gives the same micro-batch."""

    draws_per_epoch = 1

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def micro_batch(self, draw: int, micro_batch: int) -> Batch:
        return self.batch

    def fingerprint(self) -> dict[str, str | int]:
        return {}


def _misfit(trainer: Trainer, row: Batch) -> float:
    """Nats per token, or the mean absolute distance of samples (or of its reconstruction) from the one image."""
    if isinstance(row, TokenBatch | PairBatch):
        return float(_score(trainer, row).total) / row.labels.numel()
    torch.manual_seed(2)
    trainer.engine.model.eval()
    with torch.no_grad():
        model = trainer.engine.model
        made = model.sample(64) if hasattr(model, "sample") else model.decode(model.encode(row))
        return float((made - row.values).abs().mean())


def _score(trainer: Trainer, batch: Batch) -> Loss:
    torch.manual_seed(3)
    model = trainer.engine.model
    player = model.players[-1]
    return trainer.engine.score(batch, model.initial_carry(batch.rows), player=player, step=0)


def _row(batch: Batch, row: int) -> Batch:
    return type(batch)(**{name: getattr(batch, name)[row : row + 1] for name in batch.__slots__})


def _repeat(row: Batch, rows: int) -> Batch:
    values = {name: getattr(row, name) for name in row.__slots__}
    return type(row)(**{name: value.repeat(rows, *[1] * (value.dim() - 1)) for name, value in values.items()})


def _take(trainer: Trainer, steps: int) -> None:
    for _, _ in zip(range(steps), trainer.steps(), strict=False):
        pass


@every_model
def test_state_names_every_parameter_its_moments_and_the_carry(recipe: str) -> None:
    experiment = tiny(recipe)
    trainer = experiment.trainer(Group())
    _take(trainer, 1)
    pieces: list[Piece] = trainer.pieces()
    names = {piece.name for piece in pieces}
    expected = {
        f"{part}/{name}"
        for player, optimizer in experiment.optimizers().items()
        for name, _ in trainer.engine.model.player_parameters(player)
        for part in ("weights", *{"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ()}[optimizer.kind])
    }
    assert expected == {name for name in names if name.split("/")[0] in ("weights", "exp_avg", "exp_avg_sq")}
    carried = {name for carry in trainer.carry() for name in (carry or {})}
    assert {f"carry/{name}" for name in carried} == {name for name in names if name.startswith("carry/")}
