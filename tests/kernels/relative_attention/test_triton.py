"""The fused kernels against float64, in every dtype that runs here; compiled on a GPU, else in Triton's interpreter.

The bound of an error is that of the reference in the same dtype: 2x its own for values, 3x for gradients.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels.relative_attention import fused, reference, relative_attention
from kernels.relative_attention.cases import RAGGED, Case
from kernels.relative_attention.fused import Settings, Tensors
from kernels.relative_attention.tiles import KERNELS, ROUTES, Route, Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if torch.cuda.is_available() else [])]
NAMES = ("read", "dq", "dk", "dv", "dr", "du", "dw")
SEED = 2**61 + 12345


@pytest.fixture(autouse=True)
def poisoned_outputs() -> Iterator[None]:
    """What a kernel does not write is not a number."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def settings(case: Case, *, block: int, splits: int | None = None, route: Route = "recomputed") -> Settings:
    return Settings(case.dropout, SEED, case.memory_gradient, splits, dict.fromkeys(KERNELS, Tiles(block=block)), route)


def gradient(case: Case, dtype: torch.dtype) -> Tensor:
    shape = (case.rows, case.queries, case.heads, case.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)


def computed(case: Case, tensors: Tensors, chosen: Settings) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors[:6]]
    read_BLHD = fused.relative_attention(Tensors(*leaves, tensors.window_BL), chosen)
    return [read_BLHD.detach(), *torch.autograd.grad(read_BLHD, leaves, gradient(case, read_BLHD.dtype))]


def plain(case: Case, tensors: Tensors, dtype: torch.dtype) -> list[Tensor]:
    """The reference with the weights dropped that the kernels drop."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors[:6]]
    shape = (case.rows, case.heads, case.queries, case.keys)
    kept_BHLK = fused.kept(*shape, dropout=case.dropout, seed=SEED, device=tensors.q_BLHD.device)
    read_BLHD = reference.relative_attention(
        *leaves,
        window_BL=tensors.window_BL,
        dropout=case.dropout,
        memory_gradient=case.memory_gradient,
        kept_BHLK=kept_BHLK if case.dropout else None,
    )
    d_read_BLHD = gradient(case, tensors.q_BLHD.dtype).to(dtype)
    return [read_BLHD.detach(), *torch.autograd.grad(read_BLHD, leaves, d_read_BLHD)]


def check(
    case: Case, dtype: torch.dtype, *, block: int, splits: int | None = None, route: Route = "recomputed"
) -> None:
    tensors = case.tensors(dtype, DEVICE)
    exact, rounded = plain(case, tensors, torch.float64), plain(case, tensors, dtype)
    found = computed(case, tensors, settings(case, block=block, splits=splits, route=route))
    for name, got, other, target in zip(NAMES, found, rounded, exact, strict=True):
        error, allowed = ((x.double() - target).norm() / target.norm() for x in (got, other))
        floor = torch.finfo(dtype).eps / 4
        assert error <= (2 if name == "read" else 3) * max(allowed, floor), (name, error.item(), allowed.item())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", RAGGED, ids=lambda case: case.name)
def test_values_and_all_gradients(case: Case, dtype: torch.dtype) -> None:
    check(case, dtype, block=32 if case.width > 64 else 16)


ROUTED = [case for case in RAGGED if case.name in ("ragged", "no memory", "documents", "clamped", "dropout")]


@pytest.mark.parametrize("route", ROUTES[1:])
@pytest.mark.parametrize("case", ROUTED, ids=lambda case: case.name)
def test_other_routes(case: Case, route: Route) -> None:
    check(case, torch.float16 if case.name == "ragged" else torch.float32, block=16, route=route)


@pytest.mark.parametrize("block", [32, 64, 128])
def test_other_tiles(block: int) -> None:
    dtype = torch.float32 if block < 128 else torch.float16  # a GPU has not so much shared memory
    check(replace(RAGGED[1], dropout=0.2, distances=60), dtype, block=block)


@pytest.mark.parametrize("splits", [2, 3, 7])
@pytest.mark.parametrize("window", ["memory", "resets"])
def test_split_keys(splits: int, window: str) -> None:
    """Splits that see no key, too."""
    check(Case("", 2, 2, 5, 61, 16, window=window, dropout=0.1), torch.float32, block=16, splits=splits)  # type: ignore[arg-type]


def test_the_same_inputs_give_the_same_bits() -> None:
    case = RAGGED[9]
    tensors, chosen = case.tensors(torch.float32, DEVICE), settings(case, block=16)
    assert all(torch.equal(a, b) for a, b in zip(*(computed(case, tensors, chosen) for _ in range(2)), strict=True))


def test_dropout_leaves_the_share_it_should_and_differs_by_place_and_seed() -> None:
    shape, dropout = (3, 2, 40, 70), 0.3
    kept, other = (fused.kept(*shape, dropout=dropout, seed=s, device=torch.device(DEVICE)).double() for s in (5, 6))
    num, spread = kept.numel(), (dropout * (1 - dropout)) ** 0.5
    assert abs(kept.mean() - (1 - dropout)) < 5 * spread / num**0.5
    neighbours = [other, *(kept.roll(1, dimension) for dimension in range(4))]
    for neighbour in neighbours:
        covariance = ((kept - 1 + dropout) * (neighbour - 1 + dropout)).mean()
        assert abs(covariance) < 5 * spread**2 / num**0.5


def test_dropout_through_the_package_follows_torchs_generator() -> None:
    tensors = RAGGED[0].tensors(torch.float32, DEVICE)._asdict()
    reads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        reads.append(relative_attention(**tensors, dropout=0.5, impl="triton"))
    assert torch.equal(reads[0], reads[1])
    assert not torch.equal(reads[0], reads[2])


def test_the_package_chooses_what_it_is_told() -> None:
    tensors = RAGGED[1].tensors(torch.float32, DEVICE)
    own = fused.relative_attention(tensors, Settings(0.0, 0))
    given = tensors._asdict()
    assert torch.equal(relative_attention(**given, impl="triton"), own)
    assert torch.equal(relative_attention(**given), own) == (DEVICE == "cuda")
    assert not torch.equal(relative_attention(**given, impl="reference"), own)


def test_inputs_may_lie_apart_and_gradients_be_expanded() -> None:
    """Biases and windows cut from larger ones, windows beyond any key, and the gradient of a plain sum."""
    case = replace(RAGGED[1], rows=3)
    tensors, chosen = case.tensors(torch.float32, DEVICE), settings(case, block=16)
    wide_BL = torch.full((case.rows, case.queries + 7), torch.iinfo(torch.int64).max, device=DEVICE)
    u_HD, w_HD = (torch.cat([x, x], 1)[:, : case.width] for x in (tensors.u_HD, tensors.w_HD))
    apart = tensors._replace(u_HD=u_HD, w_HD=w_HD, window_BL=wide_BL[:, : case.queries])
    assert not any(x.is_contiguous() for x in apart[4:])
    found = []
    for given, attend in ((apart, fused.relative_attention), (tensors, None)):
        leaves = [x.detach().requires_grad_() for x in given[:6]]
        read = (
            reference.relative_attention(*leaves, window_BL=given.window_BL)
            if attend is None
            else attend(Tensors(*leaves, given.window_BL), chosen)
        )
        found.append([read.detach(), *torch.autograd.grad(read.sum(), leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("processors", [1, 20, 1000])
def test_work_split_as_for_many_processors(processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of forward, and rows of the distances' gradient."""
    monkeypatch.setattr(fused, "processors_of", lambda _: processors)
    check(Case("", 5, 1, 6, 140, 16, window="resets"), torch.float32, block=16)


def test_no_key_that_is_no_number_leaves_a_number() -> None:
    case = replace(RAGGED[1], dropout=0.5)
    tensors = case.tensors(torch.float32, DEVICE)
    tensors.k_BKHD[0, 3] = torch.nan
    read_BLHD = fused.relative_attention(tensors, settings(case, block=16))
    assert read_BLHD.isnan().all()


def test_each_call_drops_others_and_a_seed_the_same_again() -> None:
    tensors = RAGGED[0].tensors(torch.float32, DEVICE)

    def reads() -> list[Tensor]:
        torch.manual_seed(4)
        return [relative_attention(**tensors._asdict(), dropout=0.5, impl="triton") for _ in range(2)]

    (one, other), again = reads(), reads()
    assert not torch.equal(one, other)
    assert torch.equal(one, again[0])
    assert torch.equal(other, again[1])
    device = torch.device(DEVICE)
    low, high = (fused.kept(1, 1, 8, 40, dropout=0.5, seed=seed, device=device) for seed in (5, 5 + 2**40))
    assert not torch.equal(low, high)


@pytest.mark.skipif(torch.cuda.is_available(), reason="addresses are the same there, memory is dearer")
@pytest.mark.parametrize("apart", [(2**30 + 64, 48), (1024, 2**29 + 64)], ids=["rows", "positions"])
def test_addresses_beyond_32_bits(apart: tuple[int, int]) -> None:
    """Strides that 32 bits hold and multiples of them that they do not, in memory that is asked for and not touched."""
    row, step = apart
    case = Case("", 3, 1, 5, 1, 16)
    tensors = case.tensors(torch.float16)
    wide = np.empty(2 * row + 6 * step, dtype=np.float16)
    far = [
        torch.from_numpy(wide[16 * place :]).as_strided((3, tensor.shape[1], 1, 16), (row, step, 16, 1)).copy_(tensor)
        for place, tensor in enumerate(tensors[:3])
    ]
    spread = tensors._replace(q_BLHD=far[0], k_BKHD=far[1], v_BKHD=far[2])
    chosen = settings(case, block=16)
    for got, wanted in zip(computed(case, spread, chosen), computed(case, tensors, chosen), strict=True):
        assert torch.equal(got, wanted)
