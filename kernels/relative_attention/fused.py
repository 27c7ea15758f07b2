"""Relative attention with memory by the fused kernels: what they are launched with, and autograd's view of them.

Shape legend as in `triton.py`; P is the pitch of a matrix over the pairs of query and key.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.choice import float32_products, refuse_second_order
from kernels.relative_attention.tiles import Kernel, Route, Tiles, architecture_of, route_for, tiles_for
from kernels.relative_attention.triton import forward_kernel, kept_kernel, position_kernel
from kernels.relative_attention.triton_backward import (
    delta_kernel,
    distance_gradient_kernel,
    key_gradient_kernel,
    query_gradient_kernel,
)


class Tensors(NamedTuple):
    """The inputs of all kernels, in their order."""

    q_BLHD: Tensor
    k_BKHD: Tensor
    v_BKHD: Tensor
    r_THD: Tensor
    u_HD: Tensor
    w_HD: Tensor
    window_BL: Tensor


class Settings(NamedTuple):
    """What is no tensor."""

    dropout: float
    seed: int
    memory_gradient: bool = True
    splits: int | None = None
    """Of the keys in the forward pass. None: chosen by shape."""
    tiles: Mapping[Kernel, Tiles] = {}
    """Of some kernels; the others have them as they were tuned."""
    route: Route | None = None
    """None: as tuned."""
    relative: bool = True
    """Without it the position term is left out: a twin to measure what that term costs."""


def relative_attention(tensors: Tensors, settings: Settings) -> Tensor:
    """[B, L, H, D]; differentiable once by the first six tensors. See the package for what they are."""
    with torch.cuda.device_of(tensors.q_BLHD):
        read_BLHD: Tensor = _RelativeAttention.apply(*tensors, settings)
    return read_BLHD


class _RelativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        tensors, settings = Tensors(*arguments[:7]), arguments[7]
        read_BLHD, log_sum_BHL, position_HBLP = forward(tensors, settings)
        ctx.save_for_backward(*tensors, read_BLHD, log_sum_BHL, position_HBLP)
        ctx.settings = settings
        return read_BLHD

    @staticmethod
    def backward(ctx: Any, d_read_BLHD: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order("relative_attention (impl='triton')")
        *tensors, read_BLHD, log_sum_BHL, position_HBLP = ctx.saved_tensors
        found = backward(
            Tensors(*tensors), ctx.settings, read_BLHD, log_sum_BHL, d_read_BLHD.contiguous(), position_HBLP
        )
        return *found, None, None


class _Launch:
    """What the kernels are launched with: their common arguments, and how large their tiles are."""

    def __init__(self, tensors: Tensors, settings: Settings) -> None:
        q, k, v, r = tensors[:4]
        self.tensors = tensors._replace(u_HD=tensors.u_HD.contiguous(), w_HD=tensors.w_HD.contiguous())
        self.settings, self.device, self.dtype = settings, q.device, q.dtype
        self.rows, self.queries, self.heads, self.width = q.shape
        self.keys, self.distances = k.shape[1], r.shape[0]
        self.memory, self.padded = self.keys - self.queries, padded(self.width)
        self.pitch = -(-self.keys // 8) * 8
        """Of a matrix of pairs: rows begin where 16 bytes do."""
        self.scale = 1.0 / math.sqrt(self.width)
        self.q_strides, self.r_strides = q.stride()[:3], r.stride()[:2]
        self.strides = (
            *self.q_strides, *k.stride()[:3], *v.stride()[:3], *self.r_strides, tensors.window_BL.stride(0)
        )  # fmt: skip
        self.sizes = (self.rows, self.heads, self.queries, self.memory, self.distances)
        architecture = architecture_of(self.device)
        self.route = settings.route or route_for(self.padded, self.dtype, architecture)
        if not settings.relative:
            self.route = "recomputed"
        self.term = ("matrix" if self.route == "semi_fused" else "band") if settings.relative else "none"
        self._architecture = architecture

    def tiles(self, kernel: Kernel) -> Tiles:
        chosen = self.settings.tiles.get(kernel)
        return chosen or tiles_for(kernel, self.padded, self.dtype, self._architecture)

    def random(self) -> tuple[float, float, int]:
        return self.scale, self.settings.dropout, self.settings.seed

    def constants(self, tiles: Tiles) -> dict[str, Any]:
        """The keyword arguments that all kernels share."""
        return {
            "BLOCK": tiles.block,
            "D": self.width,
            "DP": self.padded,
            "PRECISION": float32_products(self.dtype),
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
        }

    def all_constants(self, tiles: Tiles) -> dict[str, Any]:
        return {**self.constants(tiles), "DROPS": self.settings.dropout > 0.0, "TERM": self.term}

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def count(self, least_programs: int) -> int:
        """How often the processors, twice over, hold so many programs."""
        return 2 * processors_of(self.device) // least_programs


def processors_of(device: torch.device) -> int:
    """Of a GPU; the interpreter runs one program after another."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 0


def padded(width: int) -> int:
    """Of a head in registers: products want a power of two, 16 at least."""
    return max(16, 1 << (width - 1).bit_length())


def _tiled(length: int, tiles: Tiles) -> int:
    return -(-length // tiles.block)


def forward(tensors: Tensors, settings: Settings) -> tuple[Tensor, Tensor, Tensor | None]:
    """Read [B, L, H, D], the base-2 logarithm of each query's sum [B, H, L], and the position term if it was stored."""
    launch = _Launch(tensors, settings)
    tiles, position_HBLP = launch.tiles("forward"), _position(launch) if launch.term == "matrix" else None
    num_tiles = _tiled(launch.queries, tiles)
    programs = num_tiles * launch.rows * launch.heads
    splits = settings.splits or max(1, min(launch.count(programs), _tiled(launch.keys, tiles) // 4))
    several = () if splits == 1 else (splits,)  # a view of one could not be changed in place
    read_SBLHD = launch.empty(*several, *tensors.q_BLHD.shape, dtype=torch.float32 if several else launch.dtype)
    log_sum_SBHL = launch.empty(*several, launch.rows, launch.heads, launch.queries)
    forward_kernel[(programs * splits,)](
        *launch.tensors, tensors.q_BLHD if position_HBLP is None else position_HBLP, read_SBLHD, log_sum_SBHL,
        *launch.strides, *launch.sizes, launch.pitch, num_tiles, splits, *launch.random(),
        **launch.all_constants(tiles),
    )  # fmt: skip
    if splits == 1:
        return read_SBLHD, log_sum_SBHL, position_HBLP
    log_sum_BHL = torch.logsumexp(log_sum_SBHL * math.log(2.0), 0) / math.log(2.0)
    share_SBLH1 = torch.exp2(log_sum_SBHL - log_sum_BHL).transpose(2, 3).unsqueeze(-1)
    return (read_SBLHD * share_SBLH1).sum(0).to(launch.dtype), log_sum_BHL, position_HBLP


def _position(launch: _Launch) -> Tensor:
    """[H, B, L, P] the position term of every pair, in the order of keys; those of the future hold anything."""
    tiles, tensors = launch.tiles("position"), launch.tensors
    position_HBLP = launch.empty(launch.heads, launch.rows, launch.queries, launch.pitch, dtype=launch.dtype)
    num_tiles = _tiled(launch.queries, tiles)
    position_kernel[(num_tiles * launch.rows * launch.heads, _tiled(launch.keys, tiles))](
        tensors.q_BLHD, tensors.r_THD, tensors.w_HD, position_HBLP, *launch.q_strides, *launch.r_strides,
        *launch.sizes, launch.pitch, num_tiles, **launch.constants(tiles),
    )  # fmt: skip
    return position_HBLP


def backward(
    tensors: Tensors,
    settings: Settings,
    read_BLHD: Tensor,
    log_sum_BHL: Tensor,
    d_read_BLHD: Tensor,
    position_HBLP: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The gradients of the first six tensors; memory's keys and values get zeros where it has no gradient."""
    launch, r = _Launch(tensors, settings), tensors.r_THD
    given = (*launch.tensors, d_read_BLHD, log_sum_BHL, _delta(launch, read_BLHD, d_read_BLHD))
    stored = tensors.q_BLHD if position_HBLP is None else position_HBLP
    dk, dv = _key_gradients(launch, (*given, stored))
    if launch.route == "recomputed":
        dq, du, dw = _query_gradients(launch, (*given, stored), None)
        dr_KHD = _distance_gradient(launch, given) if settings.relative else launch.empty(0, launch.heads, launch.width)
    else:
        d_score_HBLP = torch.zeros(
            launch.heads, launch.rows, launch.queries, launch.pitch, dtype=launch.dtype, device=launch.device
        )
        dq, du, _ = _query_gradients(launch, (*given, stored), d_score_HBLP)
        d_qw_BLHD, dr_KHD = _position_gradients(launch, d_score_HBLP)
        dq, dw = dq + d_qw_BLHD, d_qw_BLHD.sum((0, 1), dtype=torch.float32)
    dr_THD = torch.zeros(r.shape, dtype=torch.float32, device=r.device)
    shared = min(len(dr_KHD), launch.distances)
    dr_THD[:shared] = dr_KHD[:shared]
    dr_THD[-1] += dr_KHD[launch.distances :].sum(0)  # these share the table's last entry
    return dq.to(launch.dtype), dk, dv, dr_THD.to(r.dtype), du.to(launch.dtype), dw.to(launch.dtype)


def _delta(launch: _Launch, read_BLHD: Tensor, d_read_BLHD: Tensor) -> Tensor:
    """[B, H, L] what the gradients of a query's weights have in common."""
    block = 64
    num_tiles = -(-launch.queries // block)
    delta_BHL = launch.empty(launch.rows, launch.heads, launch.queries)
    delta_kernel[(num_tiles * launch.rows * launch.heads,)](
        read_BLHD, d_read_BLHD, delta_BHL, launch.heads, launch.queries, num_tiles,
        BLOCK=block, D=launch.width, DP=launch.padded, num_warps=4,
    )  # fmt: skip
    return delta_BHL


def _query_gradients(
    launch: _Launch, given: tuple[Tensor, ...], d_score_HBLP: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of q, u and w. Where the gradients of the scores are stored, without what comes through the position term."""
    tiles, stores = launch.tiles("query_gradient"), d_score_HBLP is not None
    num_tiles = _tiled(launch.queries, tiles)
    parts = (num_tiles, launch.rows, launch.heads, launch.width)
    du, dw = launch.empty(*parts), launch.empty(*parts)
    dq = launch.empty(*launch.tensors.q_BLHD.shape, dtype=torch.float32 if stores else launch.dtype)
    query_gradient_kernel[(num_tiles * launch.rows * launch.heads,)](
        *given, dq, du, dw, dq if d_score_HBLP is None else d_score_HBLP,
        *launch.strides, *launch.sizes, launch.pitch, num_tiles, *launch.random(),
        STORES=stores, **launch.all_constants(tiles),
    )  # fmt: skip
    return dq, du.sum((0, 1)), dw if stores else dw.sum((0, 1))


def _key_gradients(launch: _Launch, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Of k and v."""
    first = 0 if launch.settings.memory_gradient else launch.memory
    tiles, shape = launch.tiles("key_gradient"), launch.tensors.k_BKHD.shape
    dk, dv = launch.empty(*shape, dtype=launch.dtype), launch.empty(*shape, dtype=launch.dtype)
    dk[:, :first], dv[:, :first] = 0, 0
    num_tiles = _tiled(launch.keys - first, tiles)
    key_gradient_kernel[(num_tiles * launch.rows * launch.heads,)](
        *given, dk, dv, *launch.strides, *launch.sizes, launch.pitch, first, num_tiles, *launch.random(),
        **launch.all_constants(tiles),
    )  # fmt: skip
    return dk, dv


def _distance_gradient(launch: _Launch, given: tuple[Tensor, ...]) -> Tensor:
    """[K, H, D] float32 of r at every distance, summed over rows."""
    tiles = launch.tiles("distance_gradient")
    num_tiles = _tiled(launch.keys, tiles)
    splits = max(1, min(launch.rows, launch.count(num_tiles * launch.heads)))
    rows_each = -(-launch.rows // splits)
    splits = -(-launch.rows // rows_each)
    dr_SKHD = launch.empty(splits, launch.keys, launch.heads, launch.width)
    distance_gradient_kernel[(num_tiles * launch.heads * splits,)](
        *given, dr_SKHD, *launch.strides, *launch.sizes, num_tiles, rows_each, *launch.random(),
        DROPS=launch.settings.dropout > 0.0, **launch.constants(tiles),
    )  # fmt: skip
    return dr_SKHD.sum(0)


def _position_gradients(launch: _Launch, d_score_HBLP: Tensor) -> tuple[Tensor, Tensor]:
    """Through the position term, by plain products: [B, L, H, D] of q + w, and [K, H, D] of r at every distance."""
    q, w, r = launch.tensors.q_BLHD, launch.tensors.w_HD, launch.tensors.r_THD
    distance_K = torch.arange(launch.keys - 1, -1, -1, device=q.device)
    r_HKD = r[distance_K.clamp(max=launch.distances - 1)].transpose(0, 1)
    qw_HND = (q + w).permute(2, 0, 1, 3).reshape(launch.heads, -1, launch.width)
    d_score_HNK = d_score_HBLP.flatten(1, 2)[..., : launch.keys]
    d_qw_HND = d_score_HNK @ r_HKD
    dr_HKD = (d_score_HNK.transpose(1, 2) @ qw_HND).float()
    d_qw_BLHD = d_qw_HND.view(launch.heads, launch.rows, launch.queries, launch.width).permute(1, 2, 0, 3)
    return d_qw_BLHD, dr_HKD.transpose(0, 1)[distance_K]


def kept(rows: int, heads: int, queries: int, keys: int, *, dropout: float, seed: int, device: torch.device) -> Tensor:
    """[B, H, L, K] bool: which weights dropout leaves under this seed."""
    kept_BHLK = torch.empty(rows, heads, queries, keys, dtype=torch.int8, device=device)
    with torch.cuda.device_of(kept_BHLK):
        kept_kernel[(rows * heads * queries,)](kept_BHLK, heads, queries, keys, dropout, seed, BLOCK=128)
    return kept_BHLK.bool()
