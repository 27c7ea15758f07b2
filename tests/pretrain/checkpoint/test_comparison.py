"""Two checkpoints are equal when their bits are, whoever wrote them; what differs is named and measured."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pretrain.checkpoint import CheckpointReader, Comparison, Description, TensorComparison, compare, comparison
from tests.pretrain.checkpoint.cases import DESCRIPTION, cut, save_shares, saved, tensors

WEIGHTS = "weights/layers.0.w_BLD"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "BLOCK_ELEMENTS", 8)


def compared(
    folder: Path, a: dict[str, Tensor], b: dict[str, Tensor], *, description: Description = DESCRIPTION
) -> Comparison:
    """Of checkpoints by one worker and by two."""
    paths = [
        save_shares(folder / "a", 1, cut(a, 1, random.Random(0)))[0],
        save_shares(folder / "b", 1, cut(b, 2, random.Random(1)), description=description)[0],
    ]
    return compare(*(CheckpointReader(path) for path in paths))


def test_the_number_of_workers_makes_no_difference(tmp_path: Path) -> None:
    paths = [saved(tmp_path / str(n), 1, num_workers=n) for n in (1, 2, 3)]
    for path in paths[1:]:
        found = compare(CheckpointReader(paths[0]), CheckpointReader(path))
        assert found.equal
        assert found.differences == []
        assert [tensor.name for tensor in found.tensors] == sorted(tensors())
        assert {tensor.verdict for tensor in found.tensors} == {"equal"}


def changed(name: str, change: Callable[[Tensor], object]) -> dict[str, Tensor]:
    whole = {key: value.clone() for key, value in tensors().items()}
    change(whole[name].view(-1) if whole[name].is_contiguous() else whole[name])
    return whole


def different(found: Comparison) -> TensorComparison:
    """The one tensor that differs."""
    assert not found.equal
    (tensor,) = [tensor for tensor in found.tensors if tensor.verdict != "equal"]
    assert found.differences == [str(tensor)]
    return tensor


def test_differing_elements_are_counted_placed_and_measured(tmp_path: Path) -> None:
    def change(flat: Tensor) -> None:
        flat[11] += 0.25
        flat[30] -= 2.0

    tensor = different(compared(tmp_path, tensors(), changed(WEIGHTS, change)))
    assert (tensor.name, tensor.num_different, tensor.first_different) == (WEIGHTS, 2, 11)
    assert tensor.max_difference == pytest.approx(2.0, abs=1e-6)
    assert str(tensor) == f"{WEIGHTS}: 2 elements differ, the first at 11, by at most 2"


@pytest.mark.parametrize("name", [name for name, tensor in tensors().items() if tensor.numel()])
def test_one_bit_anywhere_is_a_difference(tmp_path: Path, name: str) -> None:
    tensor = tensors()[name]
    for number, bit in enumerate(random.Random(0).sample(range(tensor.numel()), min(4, tensor.numel()))):

        def flip(flat: Tensor, index: int = bit) -> None:
            flat.view(torch.uint8)[index * flat.element_size()] ^= 1

        found = different(compared(tmp_path / str(number), tensors(), changed(name, flip)))
        assert (found.name, found.num_different, found.first_different) == (name, 1, bit)


@pytest.mark.parametrize(
    ("index", "value", "largest"),
    [(2, 0.0, 0.0), (0, 1.0, math.nan), (1, -math.inf, math.inf), (5, math.nan, math.nan)],
)
def test_values_without_an_ordinary_difference(tmp_path: Path, index: int, value: float, largest: float) -> None:
    """Elements 0 to 2 are NaN, infinity and -0: equal where the bits are, different where only the sign is."""
    found = different(compared(tmp_path, tensors(), changed(WEIGHTS, lambda flat: flat.__setitem__(index, value))))
    assert (found.num_different, found.first_different) == (1, index)
    assert found.max_difference == pytest.approx(largest, nan_ok=True)


def test_a_nan_is_not_forgotten_over_later_numbers(tmp_path: Path) -> None:
    def change(flat: Tensor) -> None:
        flat[5], flat[30] = math.nan, 9.0

    assert math.isnan(different(compared(tmp_path, tensors(), changed(WEIGHTS, change))).max_difference)


def test_tensors_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    a = {"same": torch.ones(2), "shape": torch.ones(6), "dtype": torch.ones(2), "left": torch.ones(1)}
    b = {"same": torch.ones(2), "shape": torch.ones(2, 3), "dtype": torch.ones(2).int(), "right": torch.ones(1)}
    found = compared(tmp_path, a, b)
    assert not found.equal
    assert found.differences == [
        "dtype: other dtype: torch.float32 in a, torch.int32 in b",
        "left: only in a",
        "right: only in b",
        "shape: other shape: (6,) in a, (2, 3) in b",
    ]


def test_counters_and_scalars_are_compared_and_the_rest_is_not(tmp_path: Path) -> None:
    counters, scalars = {**DESCRIPTION.counters, "draws": 3, "more": 1}, {"loss_scale": 0.1}
    description = DESCRIPTION.model_copy(update={"counters": counters, "scalars": scalars})
    found = compared(tmp_path / "numbers", tensors(), tensors(), description=description)
    assert not found.equal
    assert found.differences == [
        "counters.draws: 1099511627776 in a, 3 in b",
        "counters.more: none in a, 1 in b",
        "scalars.optimizer_steps: 7 in a, none in b",
    ]
    lists = DESCRIPTION.model_copy(update={"skipped": [(3, 4)], "losses": {"model": [0.1], "critic": []}})
    assert compared(tmp_path / "lists", tensors(), tensors(), description=lists).differences == [
        "skipped: [(3, 5), (9, 9)] in a, [(3, 4)] in b",
        "losses.critic: the last losses differ",
        "losses.model: the last losses differ",
    ]
    other = DESCRIPTION.model_copy(update={"experiment": {}, "probe": {}, "data_fingerprint": {}})
    assert compared(tmp_path / "rest", tensors(), tensors(), description=other).equal


def test_the_step_is_compared(tmp_path: Path) -> None:
    paths = [saved(tmp_path, step, whole=tensors()) for step in (1, 2)]
    assert compare(*map(CheckpointReader, paths)).differences == ["step: 1 in a, 2 in b"]
