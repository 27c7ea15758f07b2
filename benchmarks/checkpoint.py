"""Saving and loading over 1 GB of state against DeepSpeed's own checkpoints and torch's, in one process.

    python -m benchmarks.checkpoint

One GPT of about 100 million parameters in DeepSpeed's engine (ZeRO 1, bfloat16): float32 masters and two moments, what
all three contenders save; DeepSpeed saves the bfloat16 weights as well, as it does by default. The contenders take
turns; compared are medians over rounds of the ratio of their wall times in a round.

- *Stall*: how long training waits for an asynchronous save to take its copy, with the copy's memory warm, against all
  of DeepSpeed's `save_checkpoint`, which writes to the page cache and does not wait for the disk.
- *Full save*: until every byte is hashed and durable, against `save_checkpoint` followed by an fsync of its files.
- *Load*: into the same engine, every byte verified, against `load_checkpoint`, which verifies none; files lie in the
  page cache for all.

What is loaded is compared with what was saved, bit for bit, for all three.
"""

import io
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from benchmarks.table import Figure, conclude
from pretrain import checkpoint
from pretrain.config import load, recipe_path
from pretrain.engines.deepspeed import DeepSpeedEngine
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.hardware import resident_bytes

ROUNDS = 3
SIZE = (
    "model={kind: gpt, vocab_size: 4096, num_layers: 13, width: 768, num_heads: 12, inner_width: 3072, "
    "context_length: 8}"
)


def build() -> DeepSpeedEngine:
    """After one step, so that there are moments."""
    recipe = load(
        Experiment,
        recipe_path("tiny_gpt"),
        (
            SIZE,
            "data={kind: markov, num_symbols: 4096, num_documents: 64, document_length: 64}",
            "engine={kind: deepspeed, zero_stage: 1, precision: bfloat16}",
            "batch={micro_batches: 1, rows: 1}",
            "steps=1",
        ),
    )
    trainer = recipe.trainer(Group())
    next(trainer.steps())
    engine = trainer.engine
    assert isinstance(engine, DeepSpeedEngine)
    return engine


def durable(folder: Path) -> None:
    """An fsync of every file and directory."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


class Bench:
    """The contenders over one engine; each method is one timed piece of work."""

    def __init__(self, engine: DeepSpeedEngine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        (self.player,) = engine.players.values()
        self.updates = dict.fromkeys(engine.players, 1)
        self.saver = checkpoint.Saver(folder / "ours", Group(), keep=1, timeout_seconds=600)
        self.steps = iter(range(1, 1000))

    @property
    def pieces(self) -> list[checkpoint.Piece]:
        """Asked for anew each time: loading may put other tensors in their place."""
        return self.engine.pieces()

    def our_stall(self) -> None:
        self.saver.start(step=next(self.steps), pieces=self.pieces, description=checkpoint.Description())

    def our_wait(self) -> None:
        assert self.saver.join() is not None

    def our_save(self) -> None:
        checkpoint.save(
            self.folder / "ours",
            step=next(self.steps),
            pieces=self.pieces,
            description=checkpoint.Description(),
            group=Group(),
            keep=1,
        )

    def our_load(self) -> None:
        reader = checkpoint.newest_good(self.folder / "ours", log=print)
        assert reader is not None
        self.engine.restore(reader, self.updates)

    def deepspeed_save(self) -> None:
        self.player.engine.save_checkpoint(str(self.folder / "deepspeed"), tag="one")

    def deepspeed_sync(self) -> None:
        durable(self.folder / "deepspeed")

    def deepspeed_load(self) -> None:
        with redirect_stdout(io.StringIO()):  # it prints what it does
            path, _ = self.player.engine.load_checkpoint(str(self.folder / "deepspeed"), tag="one")
        assert path is not None

    def torch_save(self) -> None:
        dcp.save(self._state(), checkpoint_id=self.folder / "torch")

    def torch_sync(self) -> None:
        durable(self.folder / "torch")

    def torch_load(self) -> None:
        dcp.load(self._state(), checkpoint_id=self.folder / "torch")

    def _state(self) -> dict[str, Any]:
        return {f"{piece.name}|{piece.start}": piece.tensor for piece in self.pieces}


class Peak:
    """The most resident memory of this process above that at the beginning, looked at every few milliseconds."""

    def __init__(self) -> None:
        self.bytes, self._ended = 0, threading.Event()

    @contextmanager
    def watching(self) -> Iterator["Peak"]:
        before = resident_bytes()

        def watch() -> None:
            while not self._ended.wait(0.005):
                self.bytes = max(self.bytes, resident_bytes() - before)

        thread = threading.Thread(target=watch)
        thread.start()
        yield self
        self._ended.set()
        thread.join()


def different_after(load: Callable[[], None], bench: Bench, wanted: dict[str, Tensor]) -> list[str]:
    """Tensors that loading does not bring back in every bit once they were overwritten."""
    for piece in bench.pieces:
        piece.tensor.detach().zero_()
    load()
    return [piece.name for piece in bench.pieces if not torch.equal(piece.tensor, wanted[piece.name])]


def main() -> None:
    torch.set_num_threads(1)
    Path("runs").mkdir(exist_ok=True)  # where runs lie by default: on a disk, and not in memory as /tmp may be
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir="runs"))
    try:
        measure(Bench(build(), folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(bench: Bench) -> None:
    seconds: dict[str, list[float]] = {}

    def timed(work: Callable[[], None]) -> None:
        begun = time.perf_counter()
        work()
        seconds.setdefault(work.__name__, []).append(time.perf_counter() - begun)

    state = sum(piece.tensor.numel() * piece.tensor.element_size() for piece in bench.pieces)
    with Peak().watching() as saving:
        begun = time.perf_counter()
        bench.our_stall()
        first_stall = time.perf_counter() - begun
        bench.our_wait()
    for _ in range(ROUNDS):
        shutil.rmtree(bench.folder / "deepspeed", ignore_errors=True)
        shutil.rmtree(bench.folder / "torch", ignore_errors=True)
        os.sync()
        for work in (bench.our_save, bench.our_stall, bench.our_wait, bench.deepspeed_save, bench.deepspeed_sync):
            timed(work)
        for work in (bench.torch_save, bench.torch_sync, bench.our_load, bench.deepspeed_load, bench.torch_load):
            timed(work)
    kept = {piece.name: piece.tensor.detach().clone() for piece in bench.pieces}
    different = [
        f"{load.__name__}: {name} differs"
        for load in (bench.our_load, bench.deepspeed_load, bench.torch_load)
        for name in different_after(load, bench, kept)
    ]
    report(bench, seconds, state, saving.bytes, first_stall, different)


def report(
    bench: Bench, seconds: dict[str, list[float]], state: int, extra: int, first_stall: float, different: list[str]
) -> None:
    seconds["deepspeed_durable"] = [
        sum(t) for t in zip(seconds["deepspeed_save"], seconds["deepspeed_sync"], strict=True)
    ]
    seconds["torch_durable"] = [sum(t) for t in zip(seconds["torch_save"], seconds["torch_sync"], strict=True)]

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))

    (info,) = checkpoint.list_checkpoints(bench.folder / "ours")
    load = f"load average of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    conclude(
        "checkpoint",
        [
            Figure("our stall / DeepSpeed's save", ratio("our_stall", "deepspeed_save"), 0.15),
            Figure("our durable save / DeepSpeed's with fsync", ratio("our_save", "deepspeed_durable"), 1.3),
            Figure("our verified load / DeepSpeed's load", ratio("our_load", "deepspeed_load"), 1.3),
            Figure("our bytes on disk / the state's", info.bytes / state, 1.02),
            Figure("memory of the copy / the state's", extra / state, 1.1),
        ],
        same=not different,
        notes=[
            f"{state / 1e9:.2f} GB of float32 masters and moments; seconds of {ROUNDS} rounds, median (least - most):"
        ]
        + [f"{name}: {statistics.median(t):.2f} ({min(t):.2f} - {max(t):.2f})" for name, t in seconds.items()]
        + [f"first stall, in which the copy's memory is made: {first_stall:.2f}"]
        + [f"peak extra memory of the first save in the background: {extra / 1e9:.2f} GB"]
        + [load, *different[:10]],
    )


if __name__ == "__main__":
    main()
