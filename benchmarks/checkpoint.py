"""Saving and loading over 1 GB of state against DeepSpeed's own checkpoints and torch's, with one worker and with two.

    python -m benchmarks.checkpoint

One GPT of about 100 million parameters in DeepSpeed's engine (ZeRO 1, bfloat16): float32 masters and two moments, what
all three contenders save; DeepSpeed saves the bfloat16 weights as well, as it does by default. The contenders take
turns after each of some steps of training; a piece of work takes as long as its slowest worker; compared are medians
over rounds of the ratio of the wall times in a round.

- *Stall*: all that training waits for at an asynchronous save: the whole of `Saving.save`, with the hashes that
  replicas are compared by and the probe's score, and then, before the update of the next step, what is left of the
  copy; against all of DeepSpeed's `save_checkpoint`, which writes to the page cache and does not wait for the disk.
  The step (of two rows of eight tokens) is far shorter than a real one. *First stall*: of a run's first save, whose
  memory was made while the first step was computed. How long the step takes alone and beside a save is told as well.
- *Full save*: until every byte is hashed and durable, against `save_checkpoint` followed by an fsync of its files.
- *Load*: into the same engine, every byte verified, against `load_checkpoint`, which verifies none; files lie in the
  page cache for all.

What is loaded is compared with what was saved, bit for bit, for all three.
"""

import io
import os
import pickle
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from torch import Tensor

from benchmarks.table import Figure, conclude
from pretrain import checkpoint
from pretrain.config import load, recipe_path
from pretrain.engines.deepspeed import DeepSpeedEngine
from pretrain.experiment import Experiment
from pretrain.group import Group, join
from pretrain.hardware import resident_bytes
from pretrain.replicas import check_replicas
from pretrain.saving import Saving

ROUNDS = 3
SIZE = (
    "model={kind: gpt, vocab_size: 4096, num_layers: 13, width: 768, num_heads: 12, inner_width: 3072, "
    "context_length: 8}"
)


def recipe() -> Experiment:
    return load(
        Experiment,
        recipe_path("tiny_gpt"),
        (
            SIZE,
            "data={kind: markov, num_symbols: 4096, num_documents: 64, document_length: 64}",
            "engine={kind: deepspeed, zero_stage: 1, precision: bfloat16}",
            "batch={micro_batches: 2, rows: 1}",
            "checkpoint={every: 1000, keep: 1}",
            "steps=100",
        ),
    )


def durable(folder: Path) -> None:
    """An fsync of every file and directory."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


@dataclass
class Measured:
    """Of one number of workers; all workers have the same."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    """By piece of work, of each round, of the slowest worker."""
    processor_seconds: dict[str, list[float]] = field(default_factory=dict)
    """As `seconds`, of the thread that trains; what else the machine does hardly moves them."""
    state_bytes: int = 0
    bytes_on_disk: int = 0
    extra_bytes: int = 0
    """The most memory above that before the first save, of all workers together."""
    different: list[str] = field(default_factory=list)

    def ratio(self, work: tuple[str, ...], other: tuple[str, ...]) -> float:
        """The median over rounds of the time of some works by that of others."""
        ours, theirs = ([sum(t) for t in zip(*(self.seconds[w] for w in s), strict=True)] for s in (work, other))
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


class Bench:
    """The contenders over one engine, on one worker; each method is one timed piece of work."""

    def __init__(self, group: Group, folder: Path) -> None:
        self.group, self.folder, self.experiment = group, folder, recipe()
        self.trainer = self.experiment.trainer(group)
        self.engine = self.trainer.engine
        assert isinstance(self.engine, DeepSpeedEngine)
        (self.player,) = self.engine.players.values()
        self.training = self.trainer.steps()
        self.waited = 0.0
        self.saving = self.fresh_saving()

    def fresh_saving(self) -> Saving:
        """With no memory for a copy yet."""
        return Saving(self.trainer, self.experiment, self.folder / "ours")

    @property
    def pieces(self) -> list[checkpoint.Piece]:
        """Asked for anew each time: loading may put other tensors in their place."""
        return self.trainer.pieces()

    def step(self) -> None:
        next(self.training)

    def our_stall(self) -> None:
        self.saving.save()

    def step_alone(self) -> None:
        self.step()

    def step_beside(self) -> None:
        """With a save in flight; `waited` has what of it is part of the stall."""
        self.waited = 0.0
        before = self.trainer.before_change

        def wait() -> None:
            begun = time.perf_counter()
            before()
            self.waited += time.perf_counter() - begun

        self.trainer.before_change = wait
        self.step()
        self.trainer.before_change = before

    def our_wait(self) -> None:
        assert self.saving.settle() is not None

    def replica_check(self) -> None:
        check_replicas(self.trainer.engine, step=self.trainer.step)

    def probe(self) -> None:
        self.trainer.probe(self.trainer.stream.micro_batch(0, 0))

    def our_save(self) -> None:
        checkpoint.save(
            self.folder / "ours",
            step=self.trainer.step,
            pieces=self.pieces,
            description=checkpoint.Description(),
            group=self.group,
            keep=1,
        )

    def our_load(self) -> None:
        reader = checkpoint.newest_good(self.folder / "ours", log=print, group=self.group)
        assert reader is not None
        self.engine.restore(reader, self.trainer.updates)

    def deepspeed_save(self) -> None:
        self.player.engine.save_checkpoint(str(self.folder / "deepspeed"), tag="one")

    def deepspeed_sync(self) -> None:
        self._sync("deepspeed")

    def deepspeed_load(self) -> None:
        with redirect_stdout(io.StringIO()):  # it prints what it does
            path, _ = self.player.engine.load_checkpoint(str(self.folder / "deepspeed"), tag="one")
        assert path is not None

    def torch_save(self) -> None:
        dcp.save(self._state(), checkpoint_id=self.folder / "torch")

    def torch_sync(self) -> None:
        self._sync("torch")

    def torch_load(self) -> None:
        dcp.load(self._state(), checkpoint_id=self.folder / "torch")

    def _sync(self, name: str) -> None:
        if self.group.leads:
            durable(self.folder / name)

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


def work(rank: int, workers: int, port: int, folder: Path) -> None:
    """What each of the processes does; the leader leaves what was measured."""
    torch.set_num_threads(1)
    device, timeout = torch.device("cpu"), timedelta(minutes=10)
    group = join(rank, workers, rank, address="127.0.0.1", port=port, timeout=timeout, device=device)
    measured = measure(Bench(group, folder))
    if group.leads:
        (folder / "measured").write_bytes(pickle.dumps(measured))
    group.barrier()


def measure(bench: Bench) -> Measured:
    found, group = Measured(), bench.group

    def timed(work: Callable[[], None], name: str | None = None) -> None:
        group.barrier()
        begun = time.perf_counter(), time.thread_time()
        work()
        taken = group.gather((time.perf_counter() - begun[0], time.thread_time() - begun[1]))
        name = name or work.__name__
        found.seconds.setdefault(name, []).append(max(wall for wall, _ in taken))
        found.processor_seconds.setdefault(name, []).append(max(processor for _, processor in taken))

    def stalled(which: str) -> None:
        timed(bench.our_stall, f"{which}stall")
        timed(bench.step_beside, f"{which}step_beside")
        found.seconds.setdefault(f"{which}copy_waited_for", []).append(max(group.gather(bench.waited)))

    bench.step()
    found.state_bytes = sum(
        group.gather(sum(piece.tensor.numel() * piece.tensor.element_size() for piece in bench.pieces))
    )
    with Peak().watching() as saving:
        timed(bench.our_stall, "first_stall_unprepared")
        bench.our_wait()
    found.extra_bytes = sum(group.gather(saving.bytes))
    for _ in range(ROUNDS):
        bench.saving = bench.fresh_saving()
        bench.saving.prepare()
        bench.step()
        stalled("first_")
        bench.our_wait()
    for _ in range(ROUNDS):
        if group.leads:
            shutil.rmtree(bench.folder / "deepspeed", ignore_errors=True)
            shutil.rmtree(bench.folder / "torch", ignore_errors=True)
            os.sync()
        timed(bench.step_alone)
        stalled("our_")
        for work in (bench.our_wait, bench.our_save, bench.replica_check, bench.probe):
            timed(work)
        for work in (bench.deepspeed_save, bench.deepspeed_sync, bench.torch_save, bench.torch_sync):
            timed(work)
        for work in (bench.our_load, bench.deepspeed_load, bench.torch_load):
            timed(work)
    kept = {piece.name: piece.tensor.detach().clone() for piece in bench.pieces}
    different = [
        f"worker {group.rank}, {load.__name__}: {name} differs"
        for load in (bench.our_load, bench.deepspeed_load, bench.torch_load)
        for name in different_after(load, bench, kept)
    ]
    found.different = [line for lines in group.gather(different) for line in lines]
    (info,) = checkpoint.list_checkpoints(bench.folder / "ours")
    found.bytes_on_disk = info.bytes
    return found


def measure_with(workers: int, folder: Path) -> Measured:
    """In processes of their own."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(workers, port, folder), nprocs=workers)
    measured: Measured = pickle.loads((folder / "measured").read_bytes())
    shutil.rmtree(folder)
    return measured


def figures(measured: Measured, which: str) -> list[Figure]:
    deepspeed, durable = ("deepspeed_save",), ("deepspeed_save", "deepspeed_sync")
    ratio, state = measured.ratio, measured.state_bytes
    return [
        Figure(f"{which}: our stall / DeepSpeed's save", ratio(("our_stall", "our_copy_waited_for"), deepspeed), 0.15),
        Figure(
            f"{which}: our first stall / DeepSpeed's save",
            ratio(("first_stall", "first_copy_waited_for"), deepspeed),
            0.15,
        ),
        Figure(f"{which}: our durable save / DeepSpeed's with fsync", ratio(("our_save",), durable), 1.3),
        Figure(f"{which}: our verified load / DeepSpeed's load", ratio(("our_load",), ("deepspeed_load",)), 1.3),
        Figure(f"{which}: our bytes on disk / the state's", measured.bytes_on_disk / state, 1.02),
        Figure(f"{which}: memory of the copy / the state's", measured.extra_bytes / state, 1.1),
    ]


def notes(measured: Measured, which: str) -> list[str]:
    median = statistics.median
    return [
        f"{which}: {measured.state_bytes / 1e9:.2f} GB of float32 masters and moments; peak extra memory of the first "
        f"save in the background {measured.extra_bytes / 1e9:.2f} GB; seconds, median (least - most), and the "
        "processor's, of the thread that trains:",
        *(
            f"{name}: {median(t):.2f} ({min(t):.2f} - {max(t):.2f})"
            + (f", {median(measured.processor_seconds[name]):.2f}" if name in measured.processor_seconds else "")
            for name, t in measured.seconds.items()
        ),
        *measured.different[:10],
    ]


def main() -> None:
    Path("runs").mkdir(exist_ok=True)  # where runs lie by default: on a disk, and not in memory as /tmp may be
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir="runs"))
    before = os.getloadavg()[0]
    try:
        found = {f"{n} worker{'s' * (n > 1)}": measure_with(n, folder / str(n)) for n in (1, 2)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    load = f"load average of the machine {before:.1f} at the beginning, {os.getloadavg()[0]:.1f} at the end, on "
    conclude(
        "checkpoint",
        [figure for which, measured in found.items() for figure in figures(measured, which)],
        same=not any(measured.different for measured in found.values()),
        notes=[line for which, measured in found.items() for line in notes(measured, which)]
        + [f"{load}{os.cpu_count()} processors"],
    )


if __name__ == "__main__":
    main()
