"""-log softmax(h W' + b)[label] as fused Triton kernels: no matrix of logits is ever whole in memory.

Forward walks over the vocabulary with a running maximum and sum in float32 and keeps a logarithm per row. Backward
computes the errors p - [v = label], times the row's factor, for some columns at a time (a bounded buffer), and
contracts them with the weights (summed in float32 over all columns) and with the hidden states. Where all rows of a
tile are ignored, nothing is computed: rows that are sorted by cluster need no count on the host. The product with the
hidden states is torch's, which is faster but skips nothing, unless most rows are ignored (SPARSE).

Shape legend: N rows, W width, V vocabulary, C columns of a buffer, S splits of the vocabulary.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.choice import float32_products, refuse_second_order

IGNORED = tl.constexpr(-100)

BUFFER_ELEMENTS = 2**25
"""Of the errors that backward holds at once: 64 MiB in bfloat16."""


class Tiles(NamedTuple):
    """Rows, columns of the vocabulary, and width of one step of a product."""

    rows: int = 64
    columns: int = 64
    width: int = 32
    warps: int = 4
    stages: int = 2


def tiles_for(dtype: torch.dtype) -> Tiles:
    """Of which no registers are spilled (`python -m kernels.aot`): exact float32 has no matrix instruction."""
    return Tiles(warps=8) if dtype == torch.float32 else Tiles()


@triton.jit
def _logits(
    HIDDEN, WEIGHT, BIAS, n, v, num_rows, num_columns, h_step, w_step,
    W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BIASED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """[ROWS, COLUMNS] float32 of the rows n and the columns v."""
    logits = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, W, WIDTH):
        x = start + tl.arange(0, WIDTH)
        h_at = HIDDEN + n.to(tl.int64)[:, None] * h_step + x[None, :]
        w_at = WEIGHT + v.to(tl.int64)[:, None] * w_step + x[None, :]
        h = tl.load(h_at, mask=(n < num_rows)[:, None] & (x < W)[None, :], other=0.0)
        w = tl.load(w_at, mask=(v < num_columns)[:, None] & (x < W)[None, :], other=0.0)
        logits = tl.dot(h, tl.trans(w), logits, input_precision=PRECISION)
    if BIASED:
        logits += tl.load(BIAS + v, mask=v < num_columns, other=0.0).to(tl.float32)[None, :]
    return logits


@triton.jit
def forward_kernel(
    HIDDEN, WEIGHT, BIAS, LABELS, LOG_SUM, LABEL_LOGIT,
    num_rows, num_columns, h_step, w_step, columns_each,
    W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BIASED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of rows over one split of the vocabulary: LOG_SUM and LABEL_LOGIT [S, N], zero where ignored."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    label = tl.load(LABELS + n, mask=n < num_rows, other=IGNORED)
    top = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    found = tl.zeros([ROWS], tl.float32)
    begin, end = split * columns_each, tl.minimum((split + 1) * columns_each, num_columns)
    end = tl.where(tl.max(label, 0) == IGNORED, begin, end)  # nothing to do
    for start in range(begin, end, COLUMNS):
        v = start + tl.arange(0, COLUMNS)
        logits = _logits(
            HIDDEN, WEIGHT, BIAS, n, v, num_rows, num_columns, h_step, w_step, W, ROWS, COLUMNS, WIDTH, BIASED,
            PRECISION,
        )  # fmt: skip
        found += tl.sum(tl.where(v[None, :] == label[:, None], logits, 0.0), 1)
        logits = tl.where((v < num_columns)[None, :], logits, -float("inf"))
        new_top = tl.maximum(top, tl.max(logits, 1))
        safe = tl.where(new_top == -float("inf"), 0.0, new_top)
        total = total * tl.exp(top - safe) + tl.sum(tl.exp(logits - safe[:, None]), 1)
        top = new_top
    outside = (label >= num_columns) | ((label < 0) & (label != IGNORED))
    found = tl.where(outside, float("nan"), found)  # never a number that looks right
    out = split.to(tl.int64) * num_rows + n
    tl.store(LOG_SUM + out, top + tl.log(total), mask=n < num_rows)  # -inf where nothing was seen
    tl.store(LABEL_LOGIT + out, found, mask=n < num_rows)


@triton.jit
def error_kernel(
    HIDDEN, WEIGHT, BIAS, LABELS, LOG_SUM, FACTOR, ERROR,
    num_rows, num_columns, h_step, w_step, first, num_buffered,
    W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BIASED: tl.constexpr,
    PRECISION: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    """ERROR [N, C] = (p - [v = label]) factor, of the columns from `first` on; zero where ignored, but with SPARSE of
    tiles of rows that are ignored nothing is written."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    v = first + c
    label = tl.load(LABELS + n, mask=n < num_rows, other=IGNORED)
    error = tl.zeros([ROWS, COLUMNS], tl.float32)
    if tl.max(label, 0) != IGNORED:
        logits = _logits(
            HIDDEN, WEIGHT, BIAS, n, v, num_rows, num_columns, h_step, w_step, W, ROWS, COLUMNS, WIDTH, BIASED,
            PRECISION,
        )  # fmt: skip
        log_sum = tl.load(LOG_SUM + n, mask=n < num_rows, other=0.0)
        factor = tl.load(FACTOR + n, mask=n < num_rows, other=0.0)
        error = tl.exp(logits - log_sum[:, None]) - tl.where(v[None, :] == label[:, None], 1.0, 0.0)
        error = tl.where((label != IGNORED)[:, None], error * factor[:, None], 0.0)
        outside = (label >= num_columns) | ((label < 0) & (label != IGNORED))
        error = tl.where(outside[:, None], float("nan"), error)
    out = ERROR + n.to(tl.int64)[:, None] * num_buffered + c[None, :]
    written = (n < num_rows)[:, None] & (c < num_buffered)[None, :]
    if SPARSE:
        if tl.max(label, 0) != IGNORED:
            tl.store(out, error.to(ERROR.dtype.element_ty), mask=written)
    else:
        tl.store(out, error.to(ERROR.dtype.element_ty), mask=written)


@triton.jit
def hidden_gradient_kernel(
    ERROR, WEIGHT, LABELS, SUM, num_rows, num_buffered, w_step,
    W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """SUM [N, W] float32 += ERROR [N, C] WEIGHT [C, W]: one tile of rows and width."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    x = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    out = SUM + n.to(tl.int64)[:, None] * W + x[None, :]
    mask = (n < num_rows)[:, None] & (x < W)[None, :]
    total = tl.load(out, mask=mask, other=0.0)
    label = tl.load(LABELS + n, mask=n < num_rows, other=IGNORED)
    end = tl.where(tl.max(label, 0) == IGNORED, 0, num_buffered)  # nothing to do
    for start in range(0, end, COLUMNS):
        c = start + tl.arange(0, COLUMNS)
        e_at = ERROR + n.to(tl.int64)[:, None] * num_buffered + c[None, :]
        e = tl.load(e_at, mask=(n < num_rows)[:, None] & (c < num_buffered)[None, :], other=0.0)
        w_at = WEIGHT + c.to(tl.int64)[:, None] * w_step + x[None, :]
        w = tl.load(w_at, mask=(c < num_buffered)[:, None] & (x < W)[None, :], other=0.0)
        total = tl.dot(e, w, total, input_precision=PRECISION)
    tl.store(out, total, mask=mask)


@triton.jit
def weight_gradient_kernel(
    ERROR, HIDDEN, LABELS, D_WEIGHT, D_BIAS, num_rows, num_buffered, h_step,
    W: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BIASED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """D_WEIGHT [C, W] = ERROR' HIDDEN and D_BIAS [C], one tile of columns and width; skips tiles of rows ignored."""
    x_tile = tl.program_id(1)
    c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    x = x_tile * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros([COLUMNS, WIDTH], tl.float32)
    bias = tl.zeros([COLUMNS], tl.float32)
    for start in range(0, num_rows, ROWS):
        n = start + tl.arange(0, ROWS)
        label = tl.load(LABELS + n, mask=n < num_rows, other=IGNORED)
        if tl.max(label, 0) != IGNORED:
            e_at = ERROR + n.to(tl.int64)[:, None] * num_buffered + c[None, :]
            e = tl.load(e_at, mask=(n < num_rows)[:, None] & (c < num_buffered)[None, :], other=0.0)
            h_at = HIDDEN + n.to(tl.int64)[:, None] * h_step + x[None, :]
            h = tl.load(h_at, mask=(n < num_rows)[:, None] & (x < W)[None, :], other=0.0)
            total = tl.dot(tl.trans(e), h, total, input_precision=PRECISION)
            if BIASED:
                bias += tl.sum(e.to(tl.float32), 0)
    out = D_WEIGHT + c.to(tl.int64)[:, None] * W + x[None, :]
    tl.store(out, total.to(D_WEIGHT.dtype.element_ty), mask=(c < num_buffered)[:, None] & (x < W)[None, :])
    if BIASED:
        tl.store(D_BIAS + c, bias.to(D_BIAS.dtype.element_ty), mask=(c < num_buffered) & (x_tile + c * 0 == 0))


def linear_cross_entropy(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    bias_V: Tensor | None,
    labels_N: Tensor,
    *,
    mostly_ignored: bool = False,
    tiles: Tiles | None = None,
) -> Tensor:
    """[N] nats in float32; see the package."""
    chosen = tiles or tiles_for(hidden_NW.dtype)
    with torch.cuda.device_of(hidden_NW):
        bias_V, labels_N = None if bias_V is None else bias_V.contiguous(), labels_N.contiguous()
        nats_N: Tensor = _LinearCrossEntropy.apply(hidden_NW, weight_VW, bias_V, labels_N, mostly_ignored, chosen)
    return nats_N


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        hidden_NW, weight_VW, bias_V, labels_N, ctx.sparse, tiles = arguments
        num_rows, num_columns = labels_N.shape[0], weight_VW.shape[0]
        splits = _splits(triton.cdiv(num_rows, tiles.rows), triton.cdiv(num_columns, tiles.columns), hidden_NW.device)
        each = triton.cdiv(triton.cdiv(num_columns, splits), tiles.columns) * tiles.columns
        splits = triton.cdiv(num_columns, each)
        log_sum_SN, logit_SN = torch.empty(2, splits, num_rows, dtype=torch.float32, device=hidden_NW.device)
        forward_kernel[(triton.cdiv(num_rows, tiles.rows), splits)](
            hidden_NW, weight_VW, weight_VW if bias_V is None else bias_V, labels_N, log_sum_SN, logit_SN,
            num_rows, num_columns, hidden_NW.stride(0), weight_VW.stride(0), each,
            **_constants(hidden_NW, bias_V, tiles),
        )  # fmt: skip
        log_sum_N = log_sum_SN.logsumexp(0)
        ctx.save_for_backward(hidden_NW, weight_VW, bias_V, labels_N, log_sum_N)
        ctx.tiles = tiles
        return (log_sum_N - logit_SN.sum(0)).masked_fill(labels_N == IGNORED.value, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order("linear_cross_entropy")
        hidden_NW, weight_VW, bias_V, labels_N, log_sum_N = ctx.saved_tensors
        tiles, (num_rows, width), num_columns = ctx.tiles, hidden_NW.shape, weight_VW.shape[0]
        factor_N = gradient_N.contiguous().float()
        constants = _constants(hidden_NW, bias_V, tiles)
        sum_NW = torch.zeros(num_rows, width, dtype=torch.float32, device=hidden_NW.device)
        d_weight_VW = torch.empty(weight_VW.shape, dtype=weight_VW.dtype, device=weight_VW.device)
        d_bias_V = None if bias_V is None else torch.empty_like(bias_V)
        unbiased = {name: value for name, value in constants.items() if name != "BIASED"}
        fits = BUFFER_ELEMENTS // num_rows // tiles.columns * tiles.columns
        buffered = min(num_columns, max(tiles.columns, fits))
        for first in range(0, num_columns, buffered):
            part = slice(first, min(first + buffered, num_columns))
            count = part.stop - first
            error_NC = torch.empty(num_rows, count, dtype=hidden_NW.dtype, device=hidden_NW.device)
            error_kernel[(triton.cdiv(num_rows, tiles.rows), triton.cdiv(count, tiles.columns))](
                hidden_NW, weight_VW, weight_VW if bias_V is None else bias_V, labels_N, log_sum_N, factor_N, error_NC,
                num_rows, num_columns, hidden_NW.stride(0), weight_VW.stride(0), first, count, SPARSE=ctx.sparse,
                **constants,
            )  # fmt: skip
            hidden_gradient_kernel[(triton.cdiv(num_rows, tiles.rows), triton.cdiv(width, tiles.width))](
                error_NC, weight_VW[part], labels_N, sum_NW, num_rows, count, weight_VW.stride(0), **unbiased
            )  # fmt: skip
            if ctx.sparse:
                weight_gradient_kernel[(triton.cdiv(count, tiles.columns), triton.cdiv(width, tiles.width))](
                    error_NC, hidden_NW, labels_N, d_weight_VW[part],
                    d_weight_VW if d_bias_V is None else d_bias_V[part],
                    num_rows, count, hidden_NW.stride(0), **constants,
                )  # fmt: skip
                continue
            d_weight_VW[part] = error_NC.t() @ hidden_NW
            if d_bias_V is not None:
                d_bias_V[part] = error_NC.sum(0, dtype=torch.float32)
        return sum_NW.to(hidden_NW.dtype), d_weight_VW, d_bias_V, None, None, None


def _splits(row_tiles: int, column_tiles: int, device: torch.device) -> int:
    """Of the vocabulary, so that few rows still keep a GPU busy."""
    if device.type != "cuda":
        return 1
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(2 * processors // row_tiles, column_tiles // 4))


def _constants(hidden_NW: Tensor, bias_V: Tensor | None, tiles: Tiles) -> dict[str, Any]:
    return {
        "W": hidden_NW.shape[1],
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
        "WIDTH": min(tiles.width, max(16, triton.next_power_of_2(hidden_NW.shape[1]))),
        "BIASED": bias_V is not None,
        "PRECISION": float32_products(hidden_NW.dtype),
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }
