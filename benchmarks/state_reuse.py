"""What memory saves in evaluation: a Transformer-XL read segment by segment against one that recomputes its window.

    python -m benchmarks.state_reuse

At attention lengths 800 to 3,800 (Dai et al. 2019, table 9: up to 1,874 times faster, on a GPU), one thread, one
process, all with the full relative attention and the same random weights; processor seconds per token, medians:

    ours          segments of 128 tokens, memory of the attention length carried on
    (a) window    the paper's baseline: for every token, the whole window before it is computed anew
    (b) strided   a window of the attention length for every 128 tokens
    (c) token     memory carried on, one token at a time

Beside each the difference of its nats per token from ours, on the same tokens. They differ by rights: memory reaches
back further than a window, layer by layer, and (b) sees less at the beginning of each stride. (c) is the same
computation, so results are equal where it differs by rounding alone.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.table import Figure, conclude
from pretrain.contract import Carry
from pretrain.models import TransformerXLConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXL

SEGMENT = 128
ATTENTION_LENGTHS = (800, 1800, 2800, 3800)
WINDOWS, TOKENS, SEGMENTS = 3, 16, 4
"""How many of each are timed."""
GOALS = {"(a) window": 1000.0, "(b) strided": 8.0}
"""At 3,800: so many times faster, at least."""


def build(memory_length: int) -> TransformerXL:
    """12 layers as narrow as a run of minutes wants them; each position sees `memory_length` earlier ones."""
    torch.manual_seed(0)
    config = TransformerXLConfig.model_validate({
        "kind": "transformer_xl", "vocab_size": 256, "num_layers": 12, "width": 64, "num_heads": 2, "head_width": 32,
        "inner_width": 256, "segment_length": SEGMENT, "memory_length": memory_length, "same_length": True,
        "initial_std": 0.1,
    })  # fmt: skip
    model = config.build().eval()
    model.vocabulary.impl = "reference"  # type: ignore[attr-defined]
    return model


class Reader:
    """One text under one model."""

    def __init__(self, attention_length: int) -> None:
        self.length, self.model = attention_length, build(attention_length)
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
        return self.model.vocabulary.nats(hidden_1LW, self.text_T[None, start + 1 : start + count + 1])[0], carry

    def window(self, end: int, scored: int) -> Tensor:
        """[scored] nats of the last tokens of the window that ends there, computed from nothing."""
        start = end - self.length
        tokens_1L, age_1L = self.text_T[None, start:end], torch.arange(self.length)[None]
        hidden_1LW, _ = self.model.hidden(tokens_1L, age_1L, {})
        labels_1L = self.text_T[None, end - scored + 1 : end + 1]
        return self.model.vocabulary.nats(hidden_1LW[:, -scored:], labels_1L)[0]


def timed(calls: list[Callable[[], Tensor]], tokens_each: int) -> tuple[float, Tensor]:
    """Median seconds per token, and all nats one after another; the first call is made once more, unmeasured."""
    calls[0]()
    seconds, found = [], []
    for call in calls:
        begun = time.process_time()
        found.append(call())
        seconds.append((time.process_time() - begun) / tokens_each)
    return statistics.median(seconds), torch.cat(found)


class Carried:
    """Calls that hand memory on."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def calls(self, count: int, length: int) -> list[Callable[[], Tensor]]:
        carries = {0: self.reader.full}

        def call(number: int) -> Tensor:
            nats, following = self.reader.read(self.reader.begin + number * length, length, carries[number])
            carries[number + 1] = following
            return nats

        return [lambda number=number: call(number) for number in range(count)]  # type: ignore[misc]


@torch.no_grad()
def compare(length: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds per token, and nats per token from ours, of each way."""
    reader = Reader(length)
    ours, nats_T = timed(Carried(reader).calls(SEGMENTS, SEGMENT), SEGMENT)
    begin = reader.begin
    ways = {
        "(a) window": timed([lambda n=n: reader.window(begin + n + 1, 1) for n in range(WINDOWS)], 1),  # type: ignore[misc]
        "(b) strided": timed(
            [lambda n=n: reader.window(begin + (n + 1) * SEGMENT, SEGMENT) for n in range(2)],  # type: ignore[misc]
            SEGMENT,
        ),
        "(c) token": timed(Carried(reader).calls(TOKENS, 1), 1),
    }
    seconds = {"ours": ours} | {name: taken for name, (taken, _) in ways.items()}
    return seconds, {name: float((found - nats_T[: len(found)]).abs().mean()) for name, (_, found) in ways.items()}


def main() -> None:
    """All lengths, the shortest first."""
    torch.set_num_threads(1)
    figures, notes, worst = [], [], 0.0
    notes.append(f"{'attention':>9} {'ours ms/token':>14} " + " ".join(f"{name:>12} {'nats':>8}" for name in
                 ("(a) window", "(b) strided", "(c) token")))  # fmt: skip
    for length in ATTENTION_LENGTHS:
        seconds, differences = compare(length)
        ratios = {name: taken / seconds["ours"] for name, taken in seconds.items() if name != "ours"}
        worst = max(worst, differences["(c) token"])
        notes.append(
            f"{length:9,} {1e3 * seconds['ours']:14.3f} "
            + " ".join(f"{ratios[name]:11.1f}x {differences[name]:8.1e}" for name in ratios)
        )
        print(notes[-1], flush=True)
        if length == ATTENTION_LENGTHS[-1]:
            figures += [Figure(f"ours / {name} at {length}", 1 / ratios[name], 1 / GOALS[name]) for name in GOALS]
    conclude("state_reuse", figures, same=worst < 1e-4, notes=notes)


if __name__ == "__main__":
    main()
