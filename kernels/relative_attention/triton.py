"""Relative attention with memory as fused Triton kernels, forward and backward; README.md derives them.

A program takes one tile of queries (or of keys, or of distances) of one row and head and walks over the others. The
position term of a tile of queries i0.. and keys j0.. needs the encodings of 2 BLOCK - 1 distances: two tiles of the
table, of which the second is the first of the next tile of keys, so one product a tile is enough. A select and a
rotation of the columns bring both into the order of the keys (`_to_keys`); backward undoes them (`_to_places`).

The place p = K - 1 - t of a distance t grows with the key, which makes the walk run upwards. Softmax is in base 2 and
float32. Nothing is added atomically: the same inputs give the same bits.

Shape legend: B rows, L queries, M memory, K = M + L keys, H heads, D head width, T distances in the table, S splits,
N tiles.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.choice import float32_products
from kernels.relative_attention.tiles import Kernel, Tiles, architecture_of, tiles_for

LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _tile(base, index, stride, valid, columns, width: tl.constexpr):
    """[BLOCK, DP] rows `index` of a matrix whose columns lie together; zeros where not valid."""
    pointers = base + index.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(pointers, mask=valid[:, None] & (columns < width)[None, :], other=0.0)


@triton.jit
def _encodings(base, place, stride, num_keys, num_distances, columns, width: tl.constexpr):
    """[BLOCK, DP] encodings at these places; beyond the table its last, and where there is no such distance any."""
    distance = tl.minimum(tl.maximum(num_keys - 1 - place, 0), num_distances - 1)
    return _tile(base, distance, stride, distance >= 0, columns, width)


@triton.jit
def _to_keys(low, high, BLOCK: tl.constexpr):
    """[a, b] = (low, high)[a, b - a + BLOCK - 1]: from places to keys."""
    a, b = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return tl.gather(tl.where(b >= BLOCK - 1 - a, low, high), (b - a - 1) & (BLOCK - 1), 1)


@triton.jit
def _rotated_to_places(by_key, BLOCK: tl.constexpr):
    """The rotation of `_to_keys` undone; which columns belong to the low tile of places says `_is_low`."""
    a, b = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return tl.gather(by_key, (b + a + 1) & (BLOCK - 1), 1)


@triton.jit
def _is_low(BLOCK: tl.constexpr):
    a, b = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return b >= BLOCK - 1 - a


@triton.jit
def _to_places(low, high, BLOCK: tl.constexpr):
    """[a, y] = (low, high)[a, a + y]: from two tiles of keys to one of places."""
    a, y = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return tl.gather(tl.where(y >= a, low, high), (a + y) & (BLOCK - 1), 1)


@triton.jit
def _kept(seed, row_head, query, key, dropout):
    """Whether dropout leaves a weight: a function of its place alone (Philox, Salmon et al. 2011), so that backward
    finds it again."""
    zero = (query + key) * 0
    place = zero + row_head.to(tl.int32)
    random, _, _, _ = tl.philox(
        seed, (zero + key).to(tl.uint32), (zero + query).to(tl.uint32), place.to(tl.uint32), zero.to(tl.uint32)
    )
    return tl.uint_to_uniform_float(random) >= dropout


@triton.jit
def forward_kernel(
    Q, K, V, R, U, W, WINDOW, O, LOG_SUM,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head, r_step, r_head, window_row,
    num_rows, num_heads, L, M, T, num_tiles, num_splits, scale, dropout, seed,
    BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DROPS: tl.constexpr, PRECISION: tl.constexpr,
    RELATIVE: tl.constexpr,
):  # fmt: skip
    """One tile of queries over one split of its keys: O [S, B, L, H, D] and LOG_SUM [S, B, H, L], in base 2."""
    program = tl.program_id(0)
    i0 = (num_tiles - 1 - program % num_tiles) * BLOCK  # the longest first
    row_head = ((program // num_tiles) % (num_rows * num_heads)).to(tl.int64)
    split = program // num_tiles // (num_rows * num_heads)
    row, head = row_head // num_heads, row_head % num_heads
    keys = M + L
    a, d = tl.arange(0, BLOCK), tl.arange(0, DP)
    i = i0 + a
    window = tl.load(WINDOW + row * window_row + i, mask=i < L, other=0)
    window = tl.minimum(window, keys).to(tl.int32)
    q = _tile(Q + row * q_row + head * q_head, i, q_step, i < L, d, D)
    u = tl.load(U + head * D + d, mask=d < D, other=0.0)
    w = tl.load(W + head * D + d, mask=d < D, other=0.0)
    qu, qw = (q + u[None, :]).to(q.dtype), (q + w[None, :]).to(q.dtype)
    k_base, v_base, r_base = K + row * k_row + head * k_head, V + row * v_row + head * v_head, R + head * r_head

    first = tl.maximum(tl.min(tl.where(i < L, i + M - window, keys), 0), 0) // BLOCK
    last = (tl.minimum(keys, i0 + BLOCK + M) + BLOCK - 1) // BLOCK
    share = (last - first + num_splits - 1) // num_splits
    first = first + split * share
    last = tl.minimum(last, first + share)

    top = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    read = tl.zeros([BLOCK, DP], tl.float32)
    if RELATIVE:
        place = L - i0 - BLOCK + first * BLOCK + a
        low = tl.dot(qw, tl.trans(_encodings(r_base, place, r_step, keys, T, d, D)), input_precision=PRECISION)
    for j0 in range(first * BLOCK, last * BLOCK, BLOCK):
        j = j0 + a
        k = _tile(k_base, j, k_step, j < keys, d, D)
        score = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
        if RELATIVE:
            place = L - i0 + j0 + a
            high = tl.dot(qw, tl.trans(_encodings(r_base, place, r_step, keys, T, d, D)), input_precision=PRECISION)
            score += _to_keys(low, high, BLOCK)
            low = high
        t = i[:, None] + M - j[None, :]
        score = tl.where((t >= 0) & (t <= window[:, None]), score * (scale * LOG2_E), -float("inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        safe = tl.where(new_top == -float("inf"), 0.0, new_top)
        weight = tl.exp2(score - safe[:, None])
        shrink = tl.exp2(top - safe)
        total = total * shrink + tl.sum(weight, 1)
        if DROPS:
            weight = tl.where(_kept(seed, row_head, i[:, None], j[None, :], dropout), weight, 0.0)
        v = _tile(v_base, j, v_step, j < keys, d, D)
        read = tl.dot(weight.to(v.dtype), v, read * shrink[:, None], input_precision=PRECISION)
        top = new_top
    read = read / tl.where(total > 0.0, total, 1.0)[:, None]
    if DROPS:
        read = read / (1.0 - dropout)
    out = O + (((split * num_rows + row) * L) * num_heads + head) * D
    pointers = out + i.to(tl.int64)[:, None] * (num_heads * D) + d[None, :]
    tl.store(pointers, read.to(O.dtype.element_ty), mask=(i < L)[:, None] & (d < D)[None, :])
    log_sum = top + tl.log2(tl.where(total > 0.0, total, 1.0))
    tl.store(LOG_SUM + (split * num_rows * num_heads + row_head) * L + i, log_sum, mask=i < L)


@triton.jit
def _gradient_by_score(score, read_gradient, log_sum, delta, visible, kept, scale, dropout, DROPS: tl.constexpr):
    """Weight [a, b] after dropout, and the gradient by the score before it was scaled."""
    weight = tl.where(visible, tl.exp2(score * (scale * LOG2_E) - log_sum[:, None]), 0.0)
    dropped = weight
    if DROPS:
        read_gradient = tl.where(kept, read_gradient, 0.0) / (1.0 - dropout)
        dropped = tl.where(kept, weight, 0.0) / (1.0 - dropout)
    return dropped, weight * (read_gradient - delta[:, None]) * scale


@triton.jit
def query_gradient_kernel(
    Q, K, V, R, U, W, WINDOW, DO, LOG_SUM, DELTA, DQ, DU, DW,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head, r_step, r_head, window_row,
    num_rows, num_heads, L, M, T, num_tiles, scale, dropout, seed,
    BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DROPS: tl.constexpr, PRECISION: tl.constexpr,
    RELATIVE: tl.constexpr,
):  # fmt: skip
    """One tile of queries: DQ [B, L, H, D], and its part of the biases' gradients, DU and DW [N, B, H, D]."""
    program = tl.program_id(0)
    tile = num_tiles - 1 - program % num_tiles
    i0 = tile * BLOCK
    row_head = (program // num_tiles).to(tl.int64)
    row, head = row_head // num_heads, row_head % num_heads
    keys = M + L
    a, d = tl.arange(0, BLOCK), tl.arange(0, DP)
    i = i0 + a
    window = tl.load(WINDOW + row * window_row + i, mask=i < L, other=0)
    window = tl.minimum(window, keys).to(tl.int32)
    q = _tile(Q + row * q_row + head * q_head, i, q_step, i < L, d, D)
    u = tl.load(U + head * D + d, mask=d < D, other=0.0)
    w = tl.load(W + head * D + d, mask=d < D, other=0.0)
    qu, qw = (q + u[None, :]).to(q.dtype), (q + w[None, :]).to(q.dtype)
    own = (row * L * num_heads + head) * D
    d_read = _tile(DO + own, i, num_heads * D, i < L, d, D)
    log_sum = tl.load(LOG_SUM + row_head * L + i, mask=i < L, other=float("inf"))
    delta = tl.load(DELTA + row_head * L + i, mask=i < L, other=0.0)
    k_base, v_base, r_base = K + row * k_row + head * k_head, V + row * v_row + head * v_head, R + head * r_head

    first = tl.maximum(tl.min(tl.where(i < L, i + M - window, keys), 0), 0) // BLOCK
    last = (tl.minimum(keys, i0 + BLOCK + M) + BLOCK - 1) // BLOCK
    d_qu = tl.zeros([BLOCK, DP], tl.float32)
    d_qw = tl.zeros([BLOCK, DP], tl.float32)
    pending = tl.zeros([BLOCK, BLOCK], tl.float32)
    is_low = _is_low(BLOCK)
    if RELATIVE:
        place = L - i0 - BLOCK + first * BLOCK + a
        r_low = _encodings(r_base, place, r_step, keys, T, d, D)
        low = tl.dot(qw, tl.trans(r_low), input_precision=PRECISION)
    for j0 in range(first * BLOCK, last * BLOCK, BLOCK):
        j = j0 + a
        k = _tile(k_base, j, k_step, j < keys, d, D)
        v = _tile(v_base, j, v_step, j < keys, d, D)
        score = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
        if RELATIVE:
            place = L - i0 + j0 + a
            r_high = _encodings(r_base, place, r_step, keys, T, d, D)
            high = tl.dot(qw, tl.trans(r_high), input_precision=PRECISION)
            score += _to_keys(low, high, BLOCK)
        t = i[:, None] + M - j[None, :]
        visible = (t >= 0) & (t <= window[:, None]) & (i < L)[:, None]
        kept = visible
        if DROPS:
            kept = _kept(seed, row_head, i[:, None], j[None, :], dropout)
        d_weight = tl.dot(d_read, tl.trans(v), input_precision=PRECISION)
        _, d_score = _gradient_by_score(score, d_weight, log_sum, delta, visible, kept, scale, dropout, DROPS)
        d_qu = tl.dot(d_score.to(k.dtype), k, d_qu, input_precision=PRECISION)
        if RELATIVE:
            rotated = _rotated_to_places(d_score, BLOCK)
            by_place = pending + tl.where(is_low, rotated, 0.0)
            d_qw = tl.dot(by_place.to(k.dtype), r_low, d_qw, input_precision=PRECISION)
            pending = tl.where(is_low, 0.0, rotated)
            low, r_low = high, r_high
    if RELATIVE:
        d_qw = tl.dot(pending.to(q.dtype), r_low, d_qw, input_precision=PRECISION)
    pointers = DQ + own + i.to(tl.int64)[:, None] * (num_heads * D) + d[None, :]
    tl.store(pointers, (d_qu + d_qw).to(DQ.dtype.element_ty), mask=(i < L)[:, None] & (d < D)[None, :])
    part = (tile * num_rows * num_heads + row_head) * D + d
    tl.store(DU + part, tl.sum(d_qu, 0), mask=d < D)
    tl.store(DW + part, tl.sum(d_qw, 0), mask=d < D)


@triton.jit
def key_gradient_kernel(
    Q, K, V, R, U, W, WINDOW, DO, LOG_SUM, DELTA, DK, DV,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head, r_step, r_head, window_row,
    num_rows, num_heads, L, M, T, first_key, num_tiles, scale, dropout, seed,
    BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DROPS: tl.constexpr, PRECISION: tl.constexpr,
    RELATIVE: tl.constexpr,
):  # fmt: skip
    """One tile of the keys from `first_key` on: DK and DV [B, K, H, D]."""
    program = tl.program_id(0)
    j0 = first_key + (program % num_tiles) * BLOCK
    row_head = (program // num_tiles).to(tl.int64)
    row, head = row_head // num_heads, row_head % num_heads
    keys = M + L
    a, d = tl.arange(0, BLOCK), tl.arange(0, DP)
    j = j0 + a
    k = _tile(K + row * k_row + head * k_head, j, k_step, j < keys, d, D)
    v = _tile(V + row * v_row + head * v_head, j, v_step, j < keys, d, D)
    u = tl.load(U + head * D + d, mask=d < D, other=0.0)
    w = tl.load(W + head * D + d, mask=d < D, other=0.0)
    q_base, r_base, own = Q + row * q_row + head * q_head, R + head * r_head, (row * L * num_heads + head) * D
    dk = tl.zeros([BLOCK, DP], tl.float32)
    dv = tl.zeros([BLOCK, DP], tl.float32)
    begin = tl.maximum(j0 - M, 0) // BLOCK * BLOCK
    if RELATIVE:
        r_high = _encodings(r_base, L - begin + j0 + a, r_step, keys, T, d, D)
    for i0 in range(begin, L, BLOCK):
        i = i0 + a
        window = tl.load(WINDOW + row * window_row + i, mask=i < L, other=0)
        window = tl.minimum(window, keys).to(tl.int32)
        q = _tile(q_base, i, q_step, i < L, d, D)
        qu, qw = (q + u[None, :]).to(q.dtype), (q + w[None, :]).to(q.dtype)
        d_read = _tile(DO + own, i, num_heads * D, i < L, d, D)
        log_sum = tl.load(LOG_SUM + row_head * L + i, mask=i < L, other=float("inf"))
        delta = tl.load(DELTA + row_head * L + i, mask=i < L, other=0.0)
        score = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
        if RELATIVE:
            r_low = _encodings(r_base, L - i0 - BLOCK + j0 + a, r_step, keys, T, d, D)
            low = tl.dot(qw, tl.trans(r_low), input_precision=PRECISION)
            high = tl.dot(qw, tl.trans(r_high), input_precision=PRECISION)
            score += _to_keys(low, high, BLOCK)
            r_high = r_low
        t = i[:, None] + M - j[None, :]
        visible = (t >= 0) & (t <= window[:, None]) & (i < L)[:, None]
        kept = visible
        if DROPS:
            kept = _kept(seed, row_head, i[:, None], j[None, :], dropout)
        d_weight = tl.dot(d_read, tl.trans(v), input_precision=PRECISION)
        weight, d_score = _gradient_by_score(score, d_weight, log_sum, delta, visible, kept, scale, dropout, DROPS)
        dv = tl.dot(tl.trans(weight.to(d_read.dtype)), d_read, dv, input_precision=PRECISION)
        dk = tl.dot(tl.trans(d_score.to(q.dtype)), qu, dk, input_precision=PRECISION)
    pointers = (row * keys * num_heads + head) * D + j.to(tl.int64)[:, None] * (num_heads * D) + d[None, :]
    mask = (j < keys)[:, None] & (d < D)[None, :]
    tl.store(DK + pointers, dk.to(DK.dtype.element_ty), mask=mask)
    tl.store(DV + pointers, dv.to(DV.dtype.element_ty), mask=mask)


@triton.jit
def distance_gradient_kernel(
    Q, K, V, R, U, W, WINDOW, DO, LOG_SUM, DELTA, DR,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head, r_step, r_head, window_row,
    num_rows, num_heads, L, M, T, num_tiles, rows_each, scale, dropout, seed,
    BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DROPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of places over some rows: DR [S, K, H, D] by distance, not yet folded where the table is shorter."""
    program = tl.program_id(0)
    p0 = (program % num_tiles) * BLOCK
    head = ((program // num_tiles) % num_heads).to(tl.int64)
    split = program // num_tiles // num_heads
    keys = M + L
    a, d = tl.arange(0, BLOCK), tl.arange(0, DP)
    place = p0 + a
    r = _encodings(R + head * r_head, place, r_step, keys, T, d, D)
    u = tl.load(U + head * D + d, mask=d < D, other=0.0)
    w = tl.load(W + head * D + d, mask=d < D, other=0.0)
    dr = tl.zeros([BLOCK, DP], tl.float32)
    begin = tl.maximum(L - p0 - BLOCK, 0) // BLOCK * BLOCK
    for number in range(split * rows_each, tl.minimum((split + 1) * rows_each, num_rows)):
        row = number + tl.zeros([], tl.int64)
        row_head = row * num_heads + head
        k_base, v_base = K + row * k_row + head * k_head, V + row * v_row + head * v_head
        for i0 in range(begin, L, BLOCK):
            i = i0 + a
            window = tl.load(WINDOW + row * window_row + i, mask=i < L, other=0)
            window = tl.minimum(window, keys).to(tl.int32)
            q = _tile(Q + row * q_row + head * q_head, i, q_step, i < L, d, D)
            qu, qw = (q + u[None, :]).to(q.dtype), (q + w[None, :]).to(q.dtype)
            d_read = _tile(DO + (row * L * num_heads + head) * D, i, num_heads * D, i < L, d, D)
            log_sum = tl.load(LOG_SUM + row_head * L + i, mask=i < L, other=float("inf"))
            delta = tl.load(DELTA + row_head * L + i, mask=i < L, other=0.0)
            j = p0 - L + 1 + i0 + a
            k = _tile(k_base, j, k_step, (j >= 0) & (j < keys), d, D)
            v = _tile(v_base, j, v_step, (j >= 0) & (j < keys), d, D)
            low = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
            d_low = tl.dot(d_read, tl.trans(v), input_precision=PRECISION)
            j = j + BLOCK
            k = _tile(k_base, j, k_step, (j >= 0) & (j < keys), d, D)
            v = _tile(v_base, j, v_step, (j >= 0) & (j < keys), d, D)
            high = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
            d_high = tl.dot(d_read, tl.trans(v), input_precision=PRECISION)
            score = _to_places(low, high, BLOCK) + tl.dot(qw, tl.trans(r), input_precision=PRECISION)
            t = keys - 1 - place
            key = i[:, None] + M - t[None, :]
            visible = (key >= 0) & (t >= 0)[None, :] & (t[None, :] <= window[:, None]) & (i < L)[:, None]
            kept = visible
            if DROPS:
                kept = _kept(seed, row_head, i[:, None], key, dropout)
            d_weight = _to_places(d_low, d_high, BLOCK)
            _, d_score = _gradient_by_score(score, d_weight, log_sum, delta, visible, kept, scale, dropout, DROPS)
            dr = tl.dot(tl.trans(d_score.to(q.dtype)), qw, dr, input_precision=PRECISION)
    t = keys - 1 - place
    pointers = ((split.to(tl.int64) * keys + t)[:, None] * num_heads + head) * D + d[None, :]
    tl.store(DR + pointers, dr, mask=(t >= 0)[:, None] & (d < D)[None, :])


@triton.jit
def kept_kernel(KEPT, num_heads, L, K, dropout, seed, BLOCK: tl.constexpr):
    """KEPT [B, H, L, K] int8: what dropout leaves, for tests that replay it."""
    program = tl.program_id(0)
    row_head, query = (program // L).to(tl.int64), program % L
    for j0 in range(0, K, BLOCK):
        j = j0 + tl.arange(0, BLOCK)
        kept = _kept(seed, row_head, (query + j * 0), j, dropout)
        tl.store(KEPT + (row_head * L + query) * K + j, kept.to(tl.int8), mask=j < K)


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
    tiles: Tiles | None = None
    """Of all kernels. None: each as it was tuned."""
    relative: bool = True
    """Without it the position term is left out: a twin to measure what that term costs."""


def relative_attention(tensors: Tensors, settings: Settings) -> Tensor:
    """[B, L, H, D]; differentiable once by the first six tensors. See the package for what they are."""
    read_BLHD: Tensor = _RelativeAttention.apply(*tensors, settings)
    return read_BLHD


class _RelativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        tensors, settings = Tensors(*arguments[:7]), arguments[7]
        read_BLHD, log_sum_BHL = forward(tensors, settings)
        ctx.save_for_backward(*tensors, read_BLHD, log_sum_BHL)
        ctx.settings = settings
        return read_BLHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_read_BLHD: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, read_BLHD, log_sum_BHL = ctx.saved_tensors
        return *backward(Tensors(*tensors), ctx.settings, read_BLHD, log_sum_BHL, d_read_BLHD.contiguous()), None, None


class _Shape(NamedTuple):
    rows: int
    queries: int
    heads: int
    width: int
    keys: int
    distances: int


def _shape(tensors: Tensors) -> _Shape:
    rows, queries, heads, width = tensors.q_BLHD.shape
    return _Shape(rows, queries, heads, width, tensors.k_BKHD.shape[1], tensors.r_THD.shape[0])


def _strides(tensors: Tensors) -> tuple[int, ...]:
    q, k, v, r = tensors[:4]
    return (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *r.stride()[:2], tensors.window_BL.stride(0))


def padded(width: int) -> int:
    """Of a head in registers: products want a power of two, 16 at least."""
    return max(16, triton.next_power_of_2(width))


def _tiles(kernel: Kernel, tensors: Tensors, settings: Settings) -> Tiles:
    width = padded(tensors.q_BLHD.shape[-1])
    return settings.tiles or tiles_for(kernel, width, architecture_of(tensors.q_BLHD.device))


def _constants(tiles: Tiles, tensors: Tensors, settings: Settings) -> dict[str, Any]:
    """The keyword arguments that all kernels share."""
    width = tensors.q_BLHD.shape[-1]
    return {
        "BLOCK": tiles.block,
        "D": width,
        "DP": padded(width),
        "DROPS": settings.dropout > 0.0,
        "PRECISION": float32_products(tensors.q_BLHD.dtype),
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def forward(tensors: Tensors, settings: Settings) -> tuple[Tensor, Tensor]:
    """Read [B, L, H, D], and the base-2 logarithm of each query's sum [B, H, L]."""
    shape, tiles = _shape(tensors), _tiles("forward", tensors, settings)
    num_tiles = triton.cdiv(shape.queries, tiles.block)
    splits = settings.splits or _splits(shape, tiles.block, tensors.q_BLHD.device)
    like = tensors.q_BLHD
    kind = like.dtype if splits == 1 else torch.float32
    read_SBLHD = torch.empty(splits, *like.shape, dtype=kind, device=like.device)
    log_sum_SBHL = torch.empty(splits, shape.rows, shape.heads, shape.queries, dtype=torch.float32, device=like.device)
    forward_kernel[(num_tiles * shape.rows * shape.heads * splits,)](
        *tensors, read_SBLHD, log_sum_SBHL, *_strides(tensors),
        shape.rows, shape.heads, shape.queries, shape.keys - shape.queries, shape.distances, num_tiles, splits,
        1.0 / math.sqrt(shape.width), settings.dropout, settings.seed, RELATIVE=settings.relative,
        **_constants(tiles, tensors, settings),
    )  # fmt: skip
    if splits == 1:
        return read_SBLHD[0], log_sum_SBHL[0]
    log_sum_BHL = torch.logsumexp(log_sum_SBHL * math.log(2.0), 0) / math.log(2.0)
    share_SBLH1 = torch.exp2(log_sum_SBHL - log_sum_BHL).transpose(2, 3).unsqueeze(-1)
    return (read_SBLHD * share_SBLH1).sum(0).to(like.dtype), log_sum_BHL


def _splits(shape: _Shape, block: int, device: torch.device) -> int:
    """Into so many parts the keys are split, that few queries over a long memory still keep a GPU busy."""
    if device.type != "cuda":
        return 1
    programs = triton.cdiv(shape.queries, block) * shape.rows * shape.heads
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    longest = triton.cdiv(shape.keys, block)
    return max(1, min(2 * processors // programs, longest // 4))


def backward(
    tensors: Tensors, settings: Settings, read_BLHD: Tensor, log_sum_BHL: Tensor, d_read_BLHD: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of the first six tensors; memory's keys and values get zeros where it has no gradient."""
    shape, (q, k, v, r, u, w) = _shape(tensors), tensors[:6]
    memory, scale = shape.keys - shape.queries, 1.0 / math.sqrt(shape.width)
    delta_BHL = (read_BLHD.float() * d_read_BLHD.float()).sum(-1).transpose(1, 2).contiguous()
    given = (*tensors, d_read_BLHD, log_sum_BHL, delta_BHL)
    sizes = (shape.rows, shape.heads, shape.queries, memory, shape.distances)
    random, strides = (scale, settings.dropout, settings.seed), _strides(tensors)

    tiles = _tiles("query_gradient", tensors, settings)
    num_tiles = triton.cdiv(shape.queries, tiles.block)
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    parts = (num_tiles, shape.rows, shape.heads, shape.width)
    du, dw = (torch.empty(parts, dtype=torch.float32, device=q.device) for _ in range(2))
    query_gradient_kernel[(num_tiles * shape.rows * shape.heads,)](
        *given, dq, du, dw, *strides, *sizes, num_tiles, *random, RELATIVE=settings.relative,
        **_constants(tiles, tensors, settings),
    )  # fmt: skip

    first_key = 0 if settings.memory_gradient else memory
    dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
    dk[:, :first_key], dv[:, :first_key] = 0, 0
    tiles = _tiles("key_gradient", tensors, settings)
    num_tiles = triton.cdiv(shape.keys - first_key, tiles.block)
    key_gradient_kernel[(num_tiles * shape.rows * shape.heads,)](
        *given, dk, dv, *strides, *sizes, first_key, num_tiles, *random, RELATIVE=settings.relative,
        **_constants(tiles, tensors, settings),
    )  # fmt: skip

    dr = _distance_gradient(given, tensors, settings) if settings.relative else torch.zeros_like(r)
    return dq, dk, dv, dr, du.sum((0, 1)).to(u.dtype), dw.sum((0, 1)).to(w.dtype)


def _distance_gradient(given: tuple[Tensor, ...], tensors: Tensors, settings: Settings) -> Tensor:
    """[T, H, D], summed over rows, and over the distances that share the table's last entry."""
    shape, r, tiles = _shape(tensors), tensors.r_THD, _tiles("distance_gradient", tensors, settings)
    num_tiles = triton.cdiv(shape.keys, tiles.block)
    rows_each = _rows_each(shape, num_tiles, r.device)
    splits = triton.cdiv(shape.rows, rows_each)
    dr_SKHD = torch.empty(splits, shape.keys, shape.heads, shape.width, dtype=torch.float32, device=r.device)
    distance_gradient_kernel[(num_tiles * shape.heads * splits,)](
        *given, dr_SKHD, *_strides(tensors),
        shape.rows, shape.heads, shape.queries, shape.keys - shape.queries, shape.distances, num_tiles, rows_each,
        1.0 / math.sqrt(shape.width), settings.dropout, settings.seed, **_constants(tiles, tensors, settings),
    )  # fmt: skip
    dr_KHD = dr_SKHD.sum(0)
    dr_THD = torch.zeros(r.shape, dtype=torch.float32, device=r.device)
    shared = min(shape.keys, shape.distances)
    dr_THD[:shared] = dr_KHD[:shared]
    dr_THD[-1] += dr_KHD[shape.distances :].sum(0)
    return dr_THD.to(r.dtype)


def _rows_each(shape: _Shape, num_tiles: int, device: torch.device) -> int:
    """Rows that one program sums: fewer where there are too few programs to keep a GPU busy."""
    if device.type != "cuda":
        return shape.rows
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, num_tiles * shape.heads * shape.rows // (2 * processors))


def kept(rows: int, heads: int, queries: int, keys: int, *, dropout: float, seed: int, device: torch.device) -> Tensor:
    """[B, H, L, K] bool: which weights dropout leaves under this seed."""
    kept_BHLK = torch.empty(rows, heads, queries, keys, dtype=torch.int8, device=device)
    kept_kernel[(rows * heads * queries,)](kept_BHLK, heads, queries, keys, dropout, seed, BLOCK=128)
    return kept_BHLK.bool()
