"""Text from a language model, token by token, as a pure function of its weights, the prompt and a seed.

Shape legend: R rows, P tokens of the prompt, T tokens written, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from data_pipeline.config import BadInput
from pretrain.contract import LanguageModel
from pretrain.rng import seed_at


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompt_ids: Sequence[int],
    *,
    num_tokens: int,
    rows: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop_id: int | None = None,
) -> Tensor:
    """[R, T] continuations of one prompt, without it; T is `num_tokens`, or less where every row stopped before.

    Temperature 0 takes the likeliest token; otherwise logits are divided by it, then the `top_k` likeliest are kept,
    then the fewest of those whose probability reaches `top_p`. A row that wrote `stop_id` repeats it to the end. Each
    row draws from its own generator, on the CPU, seeded by (seed, row): more rows or more tokens change no earlier one.

    Raises BadInput naming the argument that is out of its range.
    """
    _check(prompt_ids, num_tokens=num_tokens, rows=rows, temperature=temperature, top_k=top_k, top_p=top_p)
    generators = [torch.Generator().manual_seed(seed_at(seed, "sample", row)) for row in range(rows)]
    stopped_R = torch.zeros(rows, dtype=torch.bool)
    written: list[Tensor] = []
    with evaluating(model):
        state = model.begin(rows)
        device = next(iter(state.values())).device
        tokens_RL = torch.tensor(prompt_ids, dtype=torch.int64).expand(rows, -1)
        while len(written) < num_tokens and not bool(stopped_R.all()):
            logits_RV, state = model.advance(tokens_RL.to(device), state)
            next_R = _draw(logits_RV.cpu().double(), generators, temperature=temperature, top_k=top_k, top_p=top_p)
            if stop_id is not None:
                next_R = next_R.masked_fill(stopped_R, stop_id)
                stopped_R = next_R == stop_id
            written.append(next_R)
            tokens_RL = next_R[:, None]
    return torch.stack(written, dim=1)


def _draw(
    logits_RV: Tensor,
    generators: Sequence[torch.Generator],
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> Tensor:
    """[R] one token a row."""
    if temperature == 0.0:
        return logits_RV.argmax(-1)
    logits_RV = logits_RV / temperature
    if top_k is not None:
        logits_RV = keep_top_k(logits_RV, top_k)
    if top_p is not None:
        logits_RV = keep_top_p(logits_RV, top_p)
    probability_RV = logits_RV.softmax(-1)
    draws = [torch.multinomial(p_V, 1, generator=own) for p_V, own in zip(probability_RV, generators, strict=True)]
    return torch.cat(draws)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """[..., V] with all but the k largest set to -inf; among equals at the edge, some are kept, k in all."""
    kept = logits.topk(min(k, logits.shape[-1]), dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, kept.indices, kept.values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """[..., V] with all set to -inf but the smallest set of tokens whose probability is p or more."""
    falling, order = logits.sort(dim=-1, descending=True, stable=True)
    mass = falling.softmax(-1)
    before = mass.cumsum(-1) - mass
    falling = falling.masked_fill(before >= p, float("-inf"))
    return torch.empty_like(logits).scatter(-1, order, falling)


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Without dropout; the model's mode is put back after."""
    if not isinstance(model, nn.Module):
        yield
        return
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _check(
    prompt_ids: Sequence[int], *, num_tokens: int, rows: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    rules = (
        (len(prompt_ids) > 0, "prompt_ids is empty; a model needs at least one token to go on from"),
        (num_tokens > 0, f"num_tokens is {num_tokens}; it must be 1 or more"),
        (rows > 0, f"rows is {rows}; it must be 1 or more"),
        (0.0 <= temperature < float("inf"), f"temperature is {temperature}; it must be 0 (greedy) or more"),
        (top_k is None or top_k > 0, f"top_k is {top_k}; it must be 1 or more, or None to keep every token"),
        (top_p is None or 0.0 < top_p <= 1.0, f"top_p is {top_p}; it must be above 0 and at most 1, or None"),
    )
    for holds, message in rules:
        if not holds:
            raise BadInput(message)
