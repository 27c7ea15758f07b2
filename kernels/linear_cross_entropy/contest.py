"""What linear cross-entropy is compared with, for `kernels.bench`.

`ours`; `blocked`, the reference, which holds the errors of all rows; `eager`, torch's two operations, which hold logits
and their gradients; `compiled`, the same two under `torch.compile`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.bench import Contender, Contest, Timing
from kernels.linear_cross_entropy import reference, triton


@dataclass(frozen=True)
class Case:
    """Rows, width and vocabulary."""

    name: str
    rows: int
    width: int
    vocabulary: int


RECIPES = (
    Case("wt103-base head", 60 * 150, 410, 20_003),
    Case("gpt2-124m", 8 * 1024, 768, 50_257),
    Case("gpt2-1558m", 8 * 1024, 1600, 50_257),
)
"""The head of an adaptive softmax (Dai et al. 2019, released script), and full ones (Radford et al. 2019)."""

SMALL = (Case("ragged", 37, 24, 101), Case("one row", 1, 16, 40))
ROWS_COMPARED = 256


def contests(device: str) -> Iterator[Contest]:
    """Heads of recipes on a GPU, small ones on a CPU."""
    for case in RECIPES if device != "cpu" else SMALL:
        yield contest(case, torch.bfloat16 if device != "cpu" else torch.float32, device)


def contest(case: Case, dtype: torch.dtype, device: str) -> Contest:
    """All contenders of one case."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).div(shape[-1] ** 0.25).to(device, dtype)

    labels_N = torch.randint(case.vocabulary, (case.rows,), generator=generator).to(device)
    product = 2.0 * case.rows * case.width * case.vocabulary

    def contender(name: str, run: Callable[..., Tensor]) -> Contender:
        return Contender(name, lambda x: run(*x), lambda x: _eager(*x), (product, 3 * product))

    return Contest(
        case.name,
        [draw(case.rows, case.width), draw(case.vocabulary, case.width), draw(1, case.vocabulary)[0], labels_N],
        [
            contender("ours", triton.linear_cross_entropy),
            contender("blocked", reference.linear_cross_entropy),
            contender("eager", _eager),
            *([contender("compiled", torch.compile(_eager))] if device != "cpu" else []),
        ],
        small=lambda x: [x[0][:ROWS_COMPARED], x[1], x[2], x[3][:ROWS_COMPARED]],
        by_rows=(0,),
    )


def _eager(hidden_NW: Tensor, weight_VW: Tensor, bias_V: Tensor, labels_N: Tensor) -> Tensor:
    logits_NV = F.linear(hidden_NW, weight_VW, bias_V)
    at_least_float32 = torch.promote_types(logits_NV.dtype, torch.float32)
    return F.cross_entropy(logits_NV.to(at_least_float32), labels_N, reduction="none")


def goals(timings: Sequence[Timing]) -> Iterator[str]:
    """How much less memory it takes; no bound was set."""
    timed: dict[Any, Timing] = {(one.case, one.contender): one for one in timings if one.both_mib is not None}
    for case in RECIPES:
        if (case.name, "ours") in timed and (case.name, "eager") in timed:
            ours, eager = timed[case.name, "ours"], timed[case.name, "eager"]
            yield f"{case.name:16} memory of eager / ours: {(eager.both_mib or 0) / max(ours.both_mib or 0, 1):.1f}"
