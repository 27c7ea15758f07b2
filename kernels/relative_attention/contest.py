"""What relative attention is compared with, for `kernels.bench`.

`ours`, by the route that was tuned; `ours, stored` and `semi-fused`, other routes (`tiles.py`); `twin`, ours without
the position term; `flash`, torch's attention, which has none either; `flex`, FlexAttention, to whose scores a matrix
of position terms is added by distance; `eager`, the reference, which shifts that matrix as the paper's code does.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from kernels.bench import Contender, Contest, Timing
from kernels.relative_attention import fused, reference
from kernels.relative_attention.cases import RAGGED, RECIPES, Case
from kernels.relative_attention.tiles import Route

WITH_POSITIONS, WITHOUT = (3, 11), (2, 7)
"""Products of the visible pairs: forward, and forward with backward in one pass."""


def contests(device: str) -> Iterator[Contest]:
    """The shapes of recipes on a GPU, small ones on a CPU; all with windows to the beginning of the memory."""
    cases = [case for case in RAGGED if case.window == "memory"][:4] if device == "cpu" else RECIPES
    for case in cases:
        yield contest(case, torch.float32 if device == "cpu" else torch.bfloat16, device)


def contest(case: Case, dtype: torch.dtype, device: str) -> Contest:
    """All contenders of one case."""
    on_gpu = device != "cpu"
    flex = _flex(case, device)

    def contender(name: str, run: Callable[..., Tensor], exact: Callable[..., Tensor], products: tuple[int, int],
                  *, has_backward: bool = True) -> Contender:  # fmt: skip
        unit = 2.0 * case.visible_pairs * case.width
        flops = (unit * products[0], unit * products[1])
        return Contender(name, lambda x: run(*x), lambda x: exact(*x), flops, has_backward)

    return Contest(
        case.name,
        case.tensors(dtype, device),
        [
            contender("ours", _ours(None), _eager, WITH_POSITIONS),
            contender("ours, stored", _ours("stored"), _eager, WITH_POSITIONS),
            contender("semi-fused", _ours("semi_fused"), _eager, WITH_POSITIONS),
            contender("twin", _twin, _without_positions, WITHOUT),
            contender("flash", _flash if on_gpu else _flash_on_cpu, _content_alone, WITHOUT),
            contender("flex", flex, _eager, WITH_POSITIONS, has_backward=on_gpu),
            contender("eager", _eager, _eager, WITH_POSITIONS),
        ],
        small=lambda inputs: [x[:1] if index in (0, 1, 2, 6) else x for index, x in enumerate(inputs)],
        by_rows=(0, 1, 2),
    )


def _ours(route: Route | None) -> Callable[..., Tensor]:
    settings = fused.Settings(0.0, 0, route=route)
    return lambda *inputs: fused.relative_attention(fused.Tensors(*inputs), settings)


def _twin(*inputs: Tensor) -> Tensor:
    return fused.relative_attention(fused.Tensors(*inputs), fused.Settings(0.0, 0, relative=False))


def _eager(*inputs: Tensor) -> Tensor:
    return reference.relative_attention(*inputs[:6], window_BL=inputs[6])


def _without_positions(q: Tensor, k: Tensor, v: Tensor, r: Tensor, u: Tensor, w: Tensor, window: Tensor) -> Tensor:
    return reference.relative_attention(q, k, v, r * 0, u, w, window_BL=window)


def _content_alone(q: Tensor, k: Tensor, v: Tensor, r: Tensor, u: Tensor, w: Tensor, window: Tensor) -> Tensor:
    return reference.relative_attention(q, k, v, r * 0, u * 0, w, window_BL=window)


def _flash(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return _flash_on_cpu(q, k, v)


def _flash_on_cpu(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
    seen = causal_lower_right(q.shape[1], k.shape[1])
    read = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=seen)
    return read.transpose(1, 2)


def _flex(case: Case, device: str) -> Callable[..., Tensor]:
    """Compiled on a GPU; a CPU has no backward of it."""
    memory = case.memory
    mask = create_block_mask(lambda b, h, i, j: j <= i + memory, None, None, case.queries, case.keys, device=device)
    attend = flex_attention if device == "cpu" else torch.compile(flex_attention)

    def run(q: Tensor, k: Tensor, v: Tensor, r: Tensor, u: Tensor, w: Tensor, _: Tensor) -> Tensor:
        position_BHLT = (q + w).transpose(1, 2) @ r.permute(1, 2, 0) / q.shape[-1] ** 0.5

        def add_position(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return score + position_BHLT[b, h, i, (i + memory - j).clamp(0, r.shape[0] - 1)]

        given = ((q + u).transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        read: Tensor = attend(*given, score_mod=add_position, block_mask=mask).transpose(1, 2)
        return read

    return run


def _scores_mib(case: Case) -> float:
    return case.rows * case.heads * case.queries * case.keys * 2 / 2**20


GOALS: tuple[tuple[str, float, Callable[[dict[str, Any], Case], float]], ...] = (
    ("forward / twin", 2.3, lambda of, _: of["ours"].forward_ms / of["twin"].forward_ms),
    ("backward / twin", 3.0, lambda of, _: of["ours"].backward_ms / of["twin"].backward_ms),
    ("both / flash", 2.8, lambda of, _: of["ours"].both_ms / of["flash"].both_ms),
    ("both / eager", 1 / 3, lambda of, _: of["ours"].both_ms / of["eager"].both_ms),
    ("forward MiB / one matrix of scores", 0.1, lambda of, case: of["ours"].forward_mib / _scores_mib(case)),
)
"""What must be, at most, for heads of width 64 and at least 384 queries over as much memory."""


def goals(timings: Sequence[Timing]) -> Iterator[str]:
    """Each goal of each case that it is meant for: measured, bound, met or missed."""
    for case in RECIPES:
        timed = {one.contender: one for one in timings if one.case == case.name and one.both_ms is not None}
        if case.width != 64 or case.memory != case.queries or case.queries < 384:
            continue
        for name, bound, ratio in GOALS:
            if {"ours", "twin", "flash", "eager"} <= timed.keys():
                figure = ratio(timed, case)
                verdict = "met" if figure <= bound else "missed"
                yield f"{case.name:16} {name:34} {figure:6.2f}, goal <= {bound:.2f}: {verdict}"
