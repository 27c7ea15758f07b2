"""Relative attention with memory: the kernels of backward. Each recomputes the weights from the kept logarithms.

Of queries, of keys, and of distances; the last is not needed where the first has stored the gradients of the scores in
the order of distances (STORES), which leaves two plain products to the caller. See `triton.py` for the rest.
"""

import triton
import triton.language as tl

from kernels.relative_attention.triton import (
    LOG2_E,
    encodings,
    in_matrix,
    is_kept,
    is_low_place,
    rotated_to_places,
    rows_of,
    to_keys,
    to_places,
)


@triton.jit
def delta_kernel(
    O, DO, DELTA, num_heads, L, num_tiles, BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr
):  # fmt: skip
    """DELTA [B, H, L]: of one tile of queries the sums of DO times O, what the weights' gradients have in common."""
    program = tl.program_id(0)
    row_head = (program // num_tiles).to(tl.int64)
    i, d = (program % num_tiles) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, DP)
    own = (row_head // num_heads * L * num_heads + row_head % num_heads) * D
    read = rows_of(O + own, i, num_heads * D, i < L, d, D).to(tl.float32)
    d_read = rows_of(DO + own, i, num_heads * D, i < L, d, D).to(tl.float32)
    tl.store(DELTA + row_head * L + i, tl.sum(read * d_read, 1), mask=i < L)


@triton.jit
def _gradient_by_score(score, read_gradient, log_sum, delta, visible, kept, scale, dropout, DROPS: tl.constexpr):
    """Weight [a, b] after dropout, and the gradient by the score before it was scaled."""
    weight = tl.where(visible, tl.exp2(score * (scale * LOG2_E) - log_sum[:, None]), 0.0)
    dropped = weight
    if DROPS:
        read_gradient = tl.where(kept, read_gradient, 0.0) / (1.0 - dropout)
        dropped = tl.where(kept, weight, 0.0) / (1.0 - dropout)
    return dropped, weight * (read_gradient - delta[:, None]) * scale


@triton.jit(do_not_specialize=["seed"])
def query_gradient_kernel(
    Q, K, V, R, U, W, WINDOW, DO, LOG_SUM, DELTA, POSITION, DQ, DU, DW, DS,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head, r_step, r_head, window_row,
    num_rows, num_heads, L, M, T, pitch, num_tiles, scale, dropout, seed,
    BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DROPS: tl.constexpr, PRECISION: tl.constexpr,
    TERM: tl.constexpr, STORES: tl.constexpr,
):  # fmt: skip
    """One tile of queries: DQ [B, L, H, D], and its part of the biases' gradients, DU and DW [N, B, H, D].

    With STORES instead of what comes through the position term: DS [H, B, L, pitch], by place, zero before.
    """
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
    q = rows_of(Q + row * q_row + head * q_head, i, q_step, i < L, d, D)
    u = tl.load(U + head * D + d, mask=d < D, other=0.0)
    w = tl.load(W + head * D + d, mask=d < D, other=0.0)
    qu, qw = (q + u[None, :]).to(q.dtype), (q + w[None, :]).to(q.dtype)
    own = (row * L * num_heads + head) * D
    d_read = rows_of(DO + own, i, num_heads * D, i < L, d, D)
    log_sum = tl.load(LOG_SUM + row_head * L + i, mask=i < L, other=float("inf"))
    delta = tl.load(DELTA + row_head * L + i, mask=i < L, other=0.0)
    k_base, v_base, r_base = K + row * k_row + head * k_head, V + row * v_row + head * v_head, R + head * r_head

    first = tl.maximum(tl.min(tl.where(i < L, i + M - window, keys), 0), 0) // BLOCK
    last = (tl.minimum(keys, i0 + BLOCK + M) + BLOCK - 1) // BLOCK
    d_qu = tl.zeros([BLOCK, DP], tl.float32)
    d_qw = tl.zeros([BLOCK, DP], tl.float32)
    pending = tl.zeros([BLOCK, BLOCK], tl.float32)
    is_low = is_low_place(BLOCK)
    if TERM == "band":
        place = L - i0 - BLOCK + first * BLOCK + a
        r_low = encodings(r_base, place, r_step, keys, T, d, D)
        low = tl.dot(qw, tl.trans(r_low), input_precision=PRECISION)
    for j0 in range(first * BLOCK, last * BLOCK, BLOCK):
        j = j0 + a
        k = rows_of(k_base, j, k_step, j < keys, d, D)
        v = rows_of(v_base, j, v_step, j < keys, d, D)
        score = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
        if TERM == "band":
            place = L - i0 + j0 + a
            r_high = encodings(r_base, place, r_step, keys, T, d, D)
            high = tl.dot(qw, tl.trans(r_high), input_precision=PRECISION)
            score += to_keys(low, high, BLOCK)
        if TERM == "matrix":
            at = in_matrix(POSITION, head, row, num_rows, i, j, L, pitch)
            score += tl.load(at, mask=(i < L)[:, None] & (j[None, :] <= i[:, None] + M), other=0.0)
        t = i[:, None] + M - j[None, :]
        visible = (t >= 0) & (t <= window[:, None]) & (i < L)[:, None]
        kept = visible
        if DROPS:
            kept = is_kept(seed, row_head, i[:, None], j[None, :], dropout)
        d_weight = tl.dot(d_read, tl.trans(v), input_precision=PRECISION)
        _, d_score = _gradient_by_score(score, d_weight, log_sum, delta, visible, kept, scale, dropout, DROPS)
        d_qu = tl.dot(d_score.to(k.dtype), k, d_qu, input_precision=PRECISION)
        if TERM == "band":
            rotated = rotated_to_places(d_score, BLOCK)
            by_place = pending + tl.where(is_low, rotated, 0.0)
            if STORES:
                place = L - i0 - BLOCK + j0 + a
                at = in_matrix(DS, head, row, num_rows, i, place, L, pitch)
                valid = (i < L)[:, None] & ((place >= 0) & (place < keys))[None, :]
                tl.store(at, by_place.to(DS.dtype.element_ty), mask=valid)
            else:
                d_qw = tl.dot(by_place.to(k.dtype), r_low, d_qw, input_precision=PRECISION)
                r_low = r_high
            pending = tl.where(is_low, 0.0, rotated)
            low = high
        if TERM == "matrix":
            at = in_matrix(DS, head, row, num_rows, i, j, L, pitch) + (L - 1 - i)[:, None]
            tl.store(at, d_score.to(DS.dtype.element_ty), mask=visible)
    if TERM == "band":
        if STORES:
            place = L - i0 - BLOCK + last * BLOCK + a
            at = in_matrix(DS, head, row, num_rows, i, place, L, pitch)
            valid = (i < L)[:, None] & ((place >= 0) & (place < keys))[None, :]
            tl.store(at, pending.to(DS.dtype.element_ty), mask=valid)
        else:
            d_qw = tl.dot(pending.to(q.dtype), r_low, d_qw, input_precision=PRECISION)
    pointers = DQ + own + i.to(tl.int64)[:, None] * (num_heads * D) + d[None, :]
    tl.store(pointers, (d_qu + d_qw).to(DQ.dtype.element_ty), mask=(i < L)[:, None] & (d < D)[None, :])
    part = (tile * num_rows * num_heads + row_head) * D + d
    tl.store(DU + part, tl.sum(d_qu, 0), mask=d < D)
    if not STORES:
        tl.store(DW + part, tl.sum(d_qw, 0), mask=d < D)


@triton.jit(do_not_specialize=["seed"])
def key_gradient_kernel(
    Q, K, V, R, U, W, WINDOW, DO, LOG_SUM, DELTA, POSITION, DK, DV,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head, r_step, r_head, window_row,
    num_rows, num_heads, L, M, T, pitch, first_key, num_tiles, scale, dropout, seed,
    BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DROPS: tl.constexpr, PRECISION: tl.constexpr,
    TERM: tl.constexpr,
):  # fmt: skip
    """One tile of the keys from `first_key` on: DK and DV [B, K, H, D]."""
    program = tl.program_id(0)
    j0 = first_key + (program % num_tiles) * BLOCK
    row_head = (program // num_tiles).to(tl.int64)
    row, head = row_head // num_heads, row_head % num_heads
    keys = M + L
    a, d = tl.arange(0, BLOCK), tl.arange(0, DP)
    j = j0 + a
    k = rows_of(K + row * k_row + head * k_head, j, k_step, j < keys, d, D)
    v = rows_of(V + row * v_row + head * v_head, j, v_step, j < keys, d, D)
    u = tl.load(U + head * D + d, mask=d < D, other=0.0)
    w = tl.load(W + head * D + d, mask=d < D, other=0.0)
    q_base, r_base, own = Q + row * q_row + head * q_head, R + head * r_head, (row * L * num_heads + head) * D
    dk = tl.zeros([BLOCK, DP], tl.float32)
    dv = tl.zeros([BLOCK, DP], tl.float32)
    begin = tl.maximum(j0 - M, 0) // BLOCK * BLOCK
    if TERM == "band":
        r_high = encodings(r_base, L - begin + j0 + a, r_step, keys, T, d, D)
    for i0 in range(begin, L, BLOCK):
        i = i0 + a
        window = tl.load(WINDOW + row * window_row + i, mask=i < L, other=0)
        window = tl.minimum(window, keys).to(tl.int32)
        q = rows_of(q_base, i, q_step, i < L, d, D)
        qu, qw = (q + u[None, :]).to(q.dtype), (q + w[None, :]).to(q.dtype)
        d_read = rows_of(DO + own, i, num_heads * D, i < L, d, D)
        log_sum = tl.load(LOG_SUM + row_head * L + i, mask=i < L, other=float("inf"))
        delta = tl.load(DELTA + row_head * L + i, mask=i < L, other=0.0)
        score = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
        if TERM == "band":
            r_low = encodings(r_base, L - i0 - BLOCK + j0 + a, r_step, keys, T, d, D)
            low = tl.dot(qw, tl.trans(r_low), input_precision=PRECISION)
            high = tl.dot(qw, tl.trans(r_high), input_precision=PRECISION)
            score += to_keys(low, high, BLOCK)
            r_high = r_low
        if TERM == "matrix":
            at = in_matrix(POSITION, head, row, num_rows, i, j, L, pitch)
            score += tl.load(at, mask=(i < L)[:, None] & (j[None, :] <= i[:, None] + M), other=0.0)
        t = i[:, None] + M - j[None, :]
        visible = (t >= 0) & (t <= window[:, None]) & (i < L)[:, None]
        kept = visible
        if DROPS:
            kept = is_kept(seed, row_head, i[:, None], j[None, :], dropout)
        d_weight = tl.dot(d_read, tl.trans(v), input_precision=PRECISION)
        weight, d_score = _gradient_by_score(score, d_weight, log_sum, delta, visible, kept, scale, dropout, DROPS)
        dv = tl.dot(tl.trans(weight.to(d_read.dtype)), d_read, dv, input_precision=PRECISION)
        dk = tl.dot(tl.trans(d_score.to(q.dtype)), qu, dk, input_precision=PRECISION)
    pointers = (row * keys * num_heads + head) * D + j.to(tl.int64)[:, None] * (num_heads * D) + d[None, :]
    mask = (j < keys)[:, None] & (d < D)[None, :]
    tl.store(DK + pointers, dk.to(DK.dtype.element_ty), mask=mask)
    tl.store(DV + pointers, dv.to(DV.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["seed"])
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
    r = encodings(R + head * r_head, place, r_step, keys, T, d, D)
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
            q = rows_of(Q + row * q_row + head * q_head, i, q_step, i < L, d, D)
            qu, qw = (q + u[None, :]).to(q.dtype), (q + w[None, :]).to(q.dtype)
            d_read = rows_of(DO + (row * L * num_heads + head) * D, i, num_heads * D, i < L, d, D)
            log_sum = tl.load(LOG_SUM + row_head * L + i, mask=i < L, other=float("inf"))
            delta = tl.load(DELTA + row_head * L + i, mask=i < L, other=0.0)
            j = p0 - L + 1 + i0 + a
            k = rows_of(k_base, j, k_step, (j >= 0) & (j < keys), d, D)
            v = rows_of(v_base, j, v_step, (j >= 0) & (j < keys), d, D)
            low = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
            d_low = tl.dot(d_read, tl.trans(v), input_precision=PRECISION)
            j = j + BLOCK
            k = rows_of(k_base, j, k_step, (j >= 0) & (j < keys), d, D)
            v = rows_of(v_base, j, v_step, (j >= 0) & (j < keys), d, D)
            high = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
            d_high = tl.dot(d_read, tl.trans(v), input_precision=PRECISION)
            score = to_places(low, high, BLOCK) + tl.dot(qw, tl.trans(r), input_precision=PRECISION)
            t = keys - 1 - place
            key = i[:, None] + M - t[None, :]
            visible = (key >= 0) & (t >= 0)[None, :] & (t[None, :] <= window[:, None]) & (i < L)[:, None]
            kept = visible
            if DROPS:
                kept = is_kept(seed, row_head, i[:, None], key, dropout)
            d_weight = to_places(d_low, d_high, BLOCK)
            _, d_score = _gradient_by_score(score, d_weight, log_sum, delta, visible, kept, scale, dropout, DROPS)
            dr = tl.dot(tl.trans(d_score.to(q.dtype)), qw, dr, input_precision=PRECISION)
    t = keys - 1 - place
    pointers = ((split.to(tl.int64) * keys + t)[:, None] * num_heads + head) * D + d[None, :]
    tl.store(DR + pointers, dr, mask=(t >= 0)[:, None] & (d < D)[None, :])
