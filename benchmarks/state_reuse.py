"""What memory saves in evaluation: a Transformer-XL read segment by segment against one that recomputes its window.

    python -m benchmarks.state_reuse

At attention lengths 800 to 3,800 (Dai et al. 2019, table 9: up to 1,874 times faster, on a GPU), one thread, one
process, all with the full relative attention and the same random weights; processor seconds per token, medians:

    ours          segments of 128 tokens, memory of the attention length carried on
    (a) window    the paper's baseline: for every token, the whole window before it is computed anew
    (b) strided   a window of the attention length for every 128 tokens
    (c) token     memory carried on, one token at a time

A window starts from nothing. It is computed in two ways, and (a) and (b) are the faster: in one pass, whose scores are
all pairs of positions; and in segments of 128 whose memory grows, so that no score is computed in vain but within a
segment. Both must give the same nats.

Beside (a) and (b) stands the bound that counting tokens sets: so many are computed for one that is scored, the window's
length in (a) and a 128th of it in (b). A ratio above it is no merit of memory: there, a token of a window costs more
than one of ours. It may be below, as the first positions of a window see less than ours do.

Beside each the difference of its nats per token from ours, on the same tokens. They differ by rights: memory reaches
back further than a window, layer by layer, and (b) sees less at the beginning of each stride. (c) is the same
computation, so results are equal where it differs by rounding alone.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.table import Figure, conclude
from pretrain.contract import Carry
from pretrain.models import TransformerXLConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXL

SEGMENT = 128
ATTENTION_LENGTHS = (800, 1800, 2800, 3800)
SEGMENTS, WINDOWS, STRIDES, TOKENS = 9, 4, 3, 17
"""How many of each are computed; all but the first are timed, ours both before and after the others."""
GOALS = {"(a) window": 1000.0, "(b) strided": 8.0}
"""At 3,800: so many times faster, at least."""
ROUNDING = 1e-4
"""Of nats in float32: computations that are the same differ by less."""

Timing = tuple[float, Tensor]
"""Median seconds per token, and the nats of all tokens."""


def build(memory_length: int, *, same_length: bool = True) -> TransformerXL:
    """12 layers as narrow as a run of minutes wants them; each position sees `memory_length` earlier ones."""
    torch.manual_seed(0)
    config = TransformerXLConfig.model_validate({
        "kind": "transformer_xl", "vocab_size": 256, "num_layers": 12, "width": 64, "num_heads": 2, "head_width": 32,
        "inner_width": 256, "segment_length": SEGMENT, "memory_length": memory_length, "same_length": same_length,
        "initial_std": 0.1,
    })  # fmt: skip
    model = config.build().eval()
    model.vocabulary.impl = "reference"  # type: ignore[attr-defined]
    return model


class Reader:
    """One text under one model."""

    def __init__(self, attention_length: int) -> None:
        self.length, self.model = attention_length, build(attention_length)
        self.causal = build(attention_length, same_length=False)
        """The same weights; each position sees all before it in its window."""
        total = 2 * attention_length + (SEGMENTS + 2) * SEGMENT
        self.text_T = torch.randint(256, (total + 1,), generator=torch.Generator().manual_seed(1))
        self.begin = 2 * attention_length // SEGMENT * SEGMENT
        """Where timing begins: memory is full of what itself had full memory."""
        self.full = self._fill()

    def _fill(self) -> Carry:
        carry = self.model.initial_carry(1) or {}
        for start in range(0, self.begin, SEGMENT):
            _, carry = self.read(start, SEGMENT, carry)
        return carry

    def read(self, start: int, count: int, carry: Carry) -> tuple[Tensor, Carry]:
        """[count] nats of the tokens after `start`, and the memory after them."""
        tokens_1L = self.text_T[None, start : start + count]
        age_1L = torch.arange(start, start + count)[None]
        hidden_1LW, carry = self.model.hidden(tokens_1L, age_1L, carry)
        return self._nats(hidden_1LW, start + count), carry

    def in_one_pass(self, end: int, scored: int) -> Tensor:
        """[scored] nats of the last tokens of the window that ends there, computed from nothing."""
        hidden_1LW, _ = self._hidden(end - self.length, range(self.length), {})
        return self._nats(hidden_1LW[:, -scored:], end)

    def in_segments(self, end: int, scored: int) -> Tensor:
        """The same, with memory that grows by each segment. The last two hold the tokens that are scored."""
        memory = self.causal.empty_memory(1, SEGMENT)
        before_1LW = torch.empty(1, 0, self.causal.config.width)
        for first in range(0, self.length, SEGMENT):
            ages = range(first, min(first + SEGMENT, self.length))
            hidden_1LW, memory = self._hidden(end - self.length, ages, memory)
            last_1LW = torch.cat([before_1LW, hidden_1LW], dim=1)
            memory = {name: grown(memory_1MW, ages[-1] + 1 + SEGMENT) for name, memory_1MW in memory.items()}
            before_1LW = hidden_1LW
        return self._nats(last_1LW[:, -scored:], end)

    def _hidden(self, start: int, ages: range, memory: Carry) -> tuple[Tensor, Carry]:
        """Of these positions of the window that starts there."""
        tokens_1L = self.text_T[None, start + ages.start : start + ages.stop]
        return self.causal.hidden(tokens_1L, torch.arange(ages.start, ages.stop)[None], memory)

    def _nats(self, hidden_1LW: Tensor, end: int) -> Tensor:
        """[L] of the last L tokens up to the one at `end`, which is predicted."""
        labels_1L = self.text_T[None, end - hidden_1LW.shape[1] + 1 : end + 1]
        return self.model.vocabulary.nats(hidden_1LW, labels_1L)[0]


def grown(memory_1MW: Tensor, length: int) -> Tensor:
    """[1, length, W]: room for one more segment at the front, which no position sees before it is filled."""
    return torch.nn.functional.pad(memory_1MW, (0, 0, length - memory_1MW.shape[1], 0))


def timed(calls: Sequence[Callable[[], Tensor]], tokens_each: int) -> Timing:
    """Median seconds per token of all calls but the first, which warms up, and all nats one after another."""
    seconds, found = [], []
    for call in calls:
        begun = time.process_time()
        found.append(call())
        seconds.append((time.process_time() - begun) / tokens_each)
    return statistics.median(seconds[1:]), torch.cat(found)


def carried(reader: Reader, count: int, length: int) -> list[Callable[[], Tensor]]:
    """Calls that read so many segments of a length, one after another, and hand memory on."""
    carries = [reader.full]

    def call() -> Tensor:
        start = reader.begin + (len(carries) - 1) * length
        nats, following = reader.read(start, length, carries[-1])
        carries.append(following)
        return nats

    return [call] * count


def windows(reader: Reader, count: int, scored: int) -> tuple[Timing, float]:
    """The time of the faster way of windows in each of which so many tokens are scored, the nats of the one in
    segments, and how far the two ways are apart."""
    ends = [reader.begin + number * scored for number in range(1, count + 1)]
    seconds, whole_T = timed([partial(reader.in_one_pass, end, scored) for end in ends], scored)
    in_segments, parts_T = timed([partial(reader.in_segments, end, scored) for end in ends], scored)
    return (min(seconds, in_segments), parts_T), float((whole_T - parts_T).abs().max())


@torch.no_grad()
def compare(length: int) -> tuple[float, dict[str, Timing], dict[str, float], float]:
    """Seconds per token of ours; each other way, and its mean difference of nats from ours; how far the two ways of
    windows are apart."""
    reader = Reader(length)
    before, nats_T = timed(carried(reader, SEGMENTS, SEGMENT), SEGMENT)
    window, one_apart = windows(reader, WINDOWS, 1)
    strided, other_apart = windows(reader, STRIDES, SEGMENT)
    token = timed(carried(reader, TOKENS, 1), 1)
    after, _ = timed(carried(reader, SEGMENTS, SEGMENT), SEGMENT)
    ways = {"(a) window": window, "(b) strided": strided, "(c) token": token}
    differences = {name: float((found - nats_T[: len(found)]).abs().mean()) for name, (_, found) in ways.items()}
    return (before + after) / 2, ways, differences, max(one_apart, other_apart)


def bounds(length: int) -> dict[str, float]:
    """Tokens that are computed for one that is scored."""
    return {"(a) window": length, "(b) strided": length / SEGMENT}


def main() -> None:
    """All lengths, the shortest first."""
    torch.set_num_threads(1)
    figures, worst = [], 0.0
    notes = [
        f"{'attention':>9} {'ours ms/token':>14} "
        f"{'(a) window':>12} {'bound':>8} {'nats':>8} {'(b) strided':>12} {'bound':>8} {'nats':>8} "
        f"{'(c) token':>12} {'nats':>8}"
    ]
    for length in ATTENTION_LENGTHS:
        ours, ways, differences, apart = compare(length)
        worst = max(worst, differences["(c) token"], apart)
        cells = [f"{length:9,} {1e3 * ours:14.3f}"]
        for name, (seconds, _) in ways.items():
            bound = f" {bounds(length)[name]:7,.1f}x" if name in GOALS else ""
            cells.append(f"{seconds / ours:11,.1f}x{bound} {differences[name]:8.1e}")
        notes.append(" ".join(cells))
        print(notes[-1], flush=True)
    for name, goal in GOALS.items():
        figures.append(Figure(f"ours / {name} at {length}", ours / ways[name][0], 1 / goal))
    conclude("state_reuse", figures, same=worst < ROUNDING, notes=notes)


if __name__ == "__main__":
    main()
