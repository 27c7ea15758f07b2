"""Relative attention with memory: the forward kernel, and what it shares with backward's; README.md derives them.

A program takes one tile of queries (or of keys, or of distances) of one row and head and walks over the others. The
position term of a tile of queries i0.. and keys j0.. needs the encodings of 2 BLOCK - 1 distances: two tiles of the
table, of which the second is the first of the next tile of keys, so one product a tile is enough. A select and a
rotation of the columns bring both into the order of the keys (`to_keys`); backward undoes them (`to_places`).

The place p = K - 1 - t of a distance t grows with the key, which makes the walk run upwards. Softmax is in base 2 and
float32. Nothing is added atomically: the same inputs give the same bits.

TERM says where the position term comes from: `band`, computed as above; `matrix`, read from one that
`position_kernel` wrote; `none`, left out.

Shape legend: B rows, L queries, M memory, K = M + L keys, H heads, D head width, T distances in the table, S splits,
N tiles.
"""

import math

import triton
import triton.language as tl

LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def rows_of(base, index, stride, valid, columns, width: tl.constexpr):
    """[BLOCK, DP] rows `index` of a matrix whose columns lie together; zeros where not valid."""
    pointers = base + index.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(pointers, mask=valid[:, None] & (columns < width)[None, :], other=0.0)


@triton.jit
def encodings(base, place, stride, num_keys, num_distances, columns, width: tl.constexpr):
    """[BLOCK, DP] encodings at these places; beyond the table its last, and where there is no such distance any."""
    distance = tl.minimum(tl.maximum(num_keys - 1 - place, 0), num_distances - 1)
    return rows_of(base, distance, stride, distance >= 0, columns, width)


@triton.jit
def to_keys(low, high, BLOCK: tl.constexpr):
    """[a, b] = (low, high)[a, b - a + BLOCK - 1]: from places to keys."""
    a, b = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return tl.gather(tl.where(b >= BLOCK - 1 - a, low, high), (b - a - 1) & (BLOCK - 1), 1)


@triton.jit
def rotated_to_places(by_key, BLOCK: tl.constexpr):
    """The rotation of `to_keys` undone; which columns belong to the low tile of places says `is_low_place`."""
    a, b = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return tl.gather(by_key, (b + a + 1) & (BLOCK - 1), 1)


@triton.jit
def is_low_place(BLOCK: tl.constexpr):
    a, b = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return b >= BLOCK - 1 - a


@triton.jit
def to_places(low, high, BLOCK: tl.constexpr):
    """[a, y] = (low, high)[a, a + y]: from two tiles of keys to one of places."""
    a, y = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return tl.gather(tl.where(y >= a, low, high), (a + y) & (BLOCK - 1), 1)


@triton.jit
def is_kept(seed, row_head, query, key, dropout):
    """Whether dropout leaves a weight: a function of its place alone (Philox, Salmon et al. 2011), so that backward
    finds it again."""
    zero = (query + key) * 0
    place = zero + row_head.to(tl.int32)
    random, _, _, _ = tl.philox(
        seed, (zero + key).to(tl.uint32), (zero + query).to(tl.uint32), place.to(tl.uint32), zero.to(tl.uint32)
    )
    return tl.uint_to_uniform_float(random) >= dropout


@triton.jit
def in_matrix(base, head, row, num_rows, query, column, L, pitch):
    """Pointers into a matrix [H, B, L, pitch] of one number for each pair."""
    line = ((head * num_rows + row) * L + query.to(tl.int64)) * pitch
    return base + line[:, None] + column[None, :]


@triton.jit
def position_kernel(
    Q, R, W, POSITION, q_row, q_step, q_head, r_step, r_head,
    num_rows, num_heads, L, M, T, pitch, num_tiles,
    BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of queries and places: POSITION [H, B, L, pitch] in the order of keys, unscaled; not of the future."""
    program = tl.program_id(0)
    i0, p0 = (program % num_tiles) * BLOCK, tl.program_id(1) * BLOCK
    row_head = (program // num_tiles).to(tl.int64)
    row, head = row_head // num_heads, row_head % num_heads
    keys = M + L
    a, d = tl.arange(0, BLOCK), tl.arange(0, DP)
    i, place = i0 + a, p0 + a
    q = rows_of(Q + row * q_row + head * q_head, i, q_step, i < L, d, D)
    w = tl.load(W + head * D + d, mask=d < D, other=0.0)
    r = encodings(R + head * r_head, place, r_step, keys, T, d, D)
    score = tl.dot((q + w[None, :]).to(q.dtype), tl.trans(r), input_precision=PRECISION)
    at = in_matrix(POSITION, head, row, num_rows, i, place, L, pitch) + (i - (L - 1))[:, None]
    key = place[None, :] + (i - (L - 1))[:, None]
    tl.store(at, score.to(POSITION.dtype.element_ty), mask=(i < L)[:, None] & (key >= 0) & (place < keys)[None, :])


@triton.jit(do_not_specialize=["seed"])
def forward_kernel(
    Q, K, V, R, U, W, WINDOW, POSITION, O, LOG_SUM,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head, r_step, r_head, window_row,
    num_rows, num_heads, L, M, T, pitch, num_tiles, num_splits, scale, dropout, seed,
    BLOCK: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DROPS: tl.constexpr, PRECISION: tl.constexpr,
    TERM: tl.constexpr,
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
    q = rows_of(Q + row * q_row + head * q_head, i, q_step, i < L, d, D)
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
    if TERM == "band":
        place = L - i0 - BLOCK + first * BLOCK + a
        low = tl.dot(qw, tl.trans(encodings(r_base, place, r_step, keys, T, d, D)), input_precision=PRECISION)
    for j0 in range(first * BLOCK, last * BLOCK, BLOCK):
        j = j0 + a
        k = rows_of(k_base, j, k_step, j < keys, d, D)
        score = tl.dot(qu, tl.trans(k), input_precision=PRECISION)
        if TERM == "band":
            place = L - i0 + j0 + a
            high = tl.dot(qw, tl.trans(encodings(r_base, place, r_step, keys, T, d, D)), input_precision=PRECISION)
            score += to_keys(low, high, BLOCK)
            low = high
        if TERM == "matrix":
            at = in_matrix(POSITION, head, row, num_rows, i, j, L, pitch)
            score += tl.load(at, mask=(i < L)[:, None] & (j[None, :] <= i[:, None] + M), other=0.0)
        t = i[:, None] + M - j[None, :]
        score = tl.where((t >= 0) & (t <= window[:, None]), score * (scale * LOG2_E), -float("inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        safe = tl.where(new_top == -float("inf"), 0.0, new_top)
        weight = tl.exp2(score - safe[:, None])
        shrink = tl.exp2(top - safe)
        total = total * shrink + tl.sum(weight, 1)
        if DROPS:
            weight = tl.where(is_kept(seed, row_head, i[:, None], j[None, :], dropout), weight, 0.0)
        v = rows_of(v_base, j, v_step, j < keys, d, D)
        read = tl.dot(weight.to(v.dtype), v, read * shrink[:, None], input_precision=PRECISION)
        top = new_top
    read = read / tl.where(total == 0.0, 1.0, total)[:, None]
    if DROPS:
        read = read / (1.0 - dropout)
    out = O + (((split * num_rows + row) * L) * num_heads + head) * D
    pointers = out + i.to(tl.int64)[:, None] * (num_heads * D) + d[None, :]
    tl.store(pointers, read.to(O.dtype.element_ty), mask=(i < L)[:, None] & (d < D)[None, :])
    log_sum = top + tl.log2(tl.where(total == 0.0, 1.0, total))
    tl.store(LOG_SUM + (split * num_rows * num_heads + row_head) * L + i, log_sum, mask=i < L)


@triton.jit(do_not_specialize=["seed"])
def kept_kernel(KEPT, num_heads, L, K, dropout, seed, BLOCK: tl.constexpr):
    """KEPT [B, H, L, K] int8: what dropout leaves, for tests that replay it."""
    program = tl.program_id(0)
    row_head, query = (program // L).to(tl.int64), program % L
    for j0 in range(0, K, BLOCK):
        j = j0 + tl.arange(0, BLOCK)
        kept = is_kept(seed, row_head, (query + j * 0), j, dropout)
        tl.store(KEPT + (row_head * L + query) * K + j, kept.to(tl.int8), mask=j < K)
