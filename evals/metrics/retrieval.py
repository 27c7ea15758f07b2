"""Retrieval precision: which share of the documents nearest to a query has the query's label.

As Hinton & Salakhutdinov 2006 (https://doi.org/10.1126/science.1127647): every document is a query against all others
(or other queries are given). `precision@k` is over the first k documents; `precision@recall r` over as many as it takes
to find the share r of those that are relevant, without interpolation.

Ties: documents at equal distance have no order, and a rank within them counts the mean over all their orders
(McSherry & Najork 2008). So nothing depends on the order of documents. Squared Euclidean distance and cosine are
taken as equal where they agree to 2^-29 of their scale (the two squared lengths, or 1), far above the rounding of
float64; Hamming distance is exact.

Shape legend: N documents, Q queries of a block, D width of a code.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average

Distance = Literal["cosine", "euclidean", "hamming"]
BLOCK = 1 << 21
"""Distances held at once: queries go in blocks, so that 100,000 against 100,000 need less than a gigabyte."""
QUANTUM = 2.0**-29


def retrieval_precision(
    documents_ND: Tensor,
    labels_N: Tensor,
    *,
    queries: tuple[Tensor, Tensor] | None = None,
    distance: Distance,
    at: Sequence[int] = (1, 3, 7, 15, 31, 63, 127, 255, 511, 1023),
    recalls: Sequence[float] = (),
    protocol: Mapping[str, Any],
) -> tuple[Metric, ...]:
    """A metric for each k of `at` and each share of `recalls`, in per cent, over queries.

    `queries` are (codes, labels); None: every document, itself left out. Queries without any relevant document have no
    recall and are left out there. Raises BadInput for a k above the number of documents.
    """
    codes_ND = _checked(documents_ND, labels_N, distance)
    query_codes, query_labels = (codes_ND, labels_N) if queries is None else queries
    if queries is not None:
        query_codes = _checked(query_codes, query_labels, distance)
    if query_codes.shape[1] != codes_ND.shape[1]:
        raise BadInput(f"codes are {codes_ND.shape[1]} wide, queries {query_codes.shape[1]}; must be equal")
    candidates = len(codes_ND) - (queries is None)
    _check_ranks(at, recalls, candidates)
    by_rank: list[Tensor] = []
    by_recall: list[Tensor] = []
    for distance_QN, relevant_QN in _blocks(codes_ND, labels_N, query_codes, query_labels, distance, queries is None):
        hits_QN = expected_hits(distance_QN, relevant_QN)[:, :candidates]
        by_rank.append(torch.stack([100 * hits_QN[:, k - 1] / k for k in at], -1) if at else hits_QN[:, :0])
        by_recall.append(_precision_at_recall(hits_QN, recalls))
    known = {
        **protocol,
        "distance": distance,
        "queries": "every document against the others" if queries is None else "given",
        "candidates": candidates,
        "width": codes_ND.shape[1],
        "ties": "mean over orders",
    }
    found = [(f"precision@{k}", column) for k, column in zip(at, torch.cat(by_rank).T, strict=True)]
    found += [(f"precision@recall {r:g}", column) for r, column in zip(recalls, torch.cat(by_recall).T, strict=True)]
    return tuple(average(name, column, unit="%", better="higher", protocol=known) for name, column in found)


def expected_hits(distance_QN: Tensor, relevant_QN: Tensor) -> Tensor:
    """[Q, N] how many of the first k = 1..N documents are relevant, in the mean over the orders of equal distances."""
    places = distance_QN.shape[1]
    sorted_QN, order_QN = distance_QN.sort(-1)
    hits_QN = F.pad(relevant_QN.gather(-1, order_QN).cumsum(-1, dtype=torch.float64), (1, 0))
    new_QN = F.pad(sorted_QN[:, 1:] != sorted_QN[:, :-1], (1, 1), value=True)
    rank_N = torch.arange(places + 1)
    begin_QN = torch.where(new_QN, rank_N, 0).cummax(-1).values[:, :-1]
    end_QN = torch.where(new_QN, rank_N, places).flip(-1).cummin(-1).values.flip(-1)[:, 1:]
    before_QN, after_QN = hits_QN.gather(-1, begin_QN), hits_QN.gather(-1, end_QN)
    share_QN = (rank_N[1:] - begin_QN).double() / (end_QN - begin_QN)
    return before_QN + share_QN * (after_QN - before_QN)


def _precision_at_recall(hits_QN: Tensor, recalls: Sequence[float]) -> Tensor:
    """[queries with anything relevant, recalls] per cent at the first rank that reaches each."""
    hits_QN = hits_QN[hits_QN[:, -1] > 0].contiguous()
    columns = [hits_QN.new_empty(len(hits_QN), 0)]
    for recall in recalls:
        needed_Q1 = recall * hits_QN[:, -1:] * (1 - 1e-12)
        rank_Q1 = torch.searchsorted(hits_QN, needed_Q1)
        columns.append(100 * hits_QN.gather(-1, rank_Q1) / (rank_Q1 + 1))
    return torch.cat(columns, -1)


def _blocks(
    codes_ND: Tensor, labels_N: Tensor, queries: Tensor, query_labels: Tensor, distance: Distance, leave_out: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """(distances [Q, N], relevant [Q, N]) of queries, block by block; a query's own document is last and irrelevant."""
    size, start = max(1, BLOCK // len(codes_ND)), 0
    for block_QD, block_labels_Q in zip(queries.split(size), query_labels.split(size), strict=True):
        distance_QN = _distances(block_QD, codes_ND, distance)
        relevant_QN = block_labels_Q[:, None] == labels_N
        if leave_out:
            own_Q = torch.arange(len(block_QD))
            distance_QN[own_Q, start + own_Q] = torch.iinfo(distance_QN.dtype).max
            relevant_QN[own_Q, start + own_Q] = False
        yield distance_QN, relevant_QN
        start += len(block_QD)


def _distances(queries_QD: Tensor, codes_ND: Tensor, distance: Distance) -> Tensor:
    """[Q, N] int32: order and equality are those of the distance."""
    dot_QN = queries_QD @ codes_ND.T
    if distance == "cosine":
        return (-dot_QN / QUANTUM).round().int()
    lengths_N = codes_ND.square().sum(-1)
    lengths_Q1 = queries_QD.square().sum(-1, keepdim=True)
    squared_QN = lengths_Q1 + lengths_N - 2 * dot_QN
    if distance == "hamming":
        return squared_QN.round().int()
    scale_Q1 = lengths_Q1 + lengths_N.max()
    return (squared_QN / (QUANTUM * scale_Q1.clamp(min=torch.finfo(torch.float64).tiny))).round().int()


def _checked(codes_ND: Tensor, labels_N: Tensor, distance: Distance) -> Tensor:
    if codes_ND.ndim != 2 or labels_N.shape != codes_ND.shape[:1] or len(codes_ND) == 0:
        shapes = f"{tuple(codes_ND.shape)} and {tuple(labels_N.shape)}"
        raise BadInput(f"codes and labels have shapes {shapes}; must be [N, D] and [N], N at least 1")
    codes_ND = codes_ND.detach().to("cpu", torch.float64)
    if not codes_ND.isfinite().all():
        raise BadInput("codes hold numbers that are not finite")
    if distance == "hamming" and not ((codes_ND == 0) | (codes_ND == 1)).all():
        raise BadInput("codes hold values other than 0 and 1; Hamming distance is of bits")
    if distance == "cosine":
        lengths_N1 = codes_ND.norm(dim=-1, keepdim=True)
        if not lengths_N1.all():
            raise BadInput(f"code {int((lengths_N1[:, 0] == 0).nonzero()[0])} is zero; it has no cosine with any other")
        codes_ND = codes_ND / lengths_N1
    return codes_ND


def _check_ranks(at: Sequence[int], recalls: Sequence[float], candidates: int) -> None:
    if any(not 1 <= k <= candidates for k in at):
        raise BadInput(f"at {list(at)}: ranks must lie between 1 and {candidates}, the documents of a query")
    if any(not 0 < recall <= 1 for recall in recalls):
        raise BadInput(f"recalls {list(recalls)}: must lie above 0 and at most 1")
