"""Loading tokens: our shuffled stream against a sequential read of a memory map, and against WebDataset.

    python -m benchmarks.data_load [--full]

The reviews of aclImdb's unlabelled part (the first 10,000; `--full`: all 50,000) are tokenized by GPT-2's byte pairs
and kept three times: as Segue's shards, as one array of uint16 (nanoGPT's train.bin), and as tars with one .npy a
document. Each loader fills batches of 16 rows x 1024 tokens, inputs and labels as int64 tensors (ours the ages too, in
an order that is shuffled anew each epoch; the others go through the tokens in their order), in one process and one
thread. Compared are processor seconds per token, the best of several rounds in turn. Results are equal where all three,
unshuffled, give the same tokens in the same batches.

Beside it: seconds from nothing but imports to the first batch (files in the page cache), and the time of a first batch
at step 1,000,000 over that at step 0, each of a stream that was just opened.
"""

import io
import json
import os
import statistics
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import webdataset
import zstandard
from torch import Tensor

from benchmarks.table import Figure, conclude
from data_pipeline.batch import TokenBatch
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.shards import TokenShards
from data_pipeline.streams import Stream
from data_pipeline.text import TextConfig

DATA = Path(os.environ.get("SEGUE_BENCHMARK_DATA") or Path(__file__).parents[2] / "shared" / "data")
ROWS, LENGTH = 16, 1024
DOCUMENTS = {False: 10_000, True: 50_000}
TAR_DOCUMENTS = 2000
"""In one tar, about a megabyte of tokens."""
ROUNDS, BATCHES, TAR_BATCHES = 7, 100, 20
FAR = 1_000_000

Batches = Iterator[tuple[Tensor, Tensor]]


def write_text(directory: Path, count: int) -> None:
    """A review a line."""
    with zstandard.open(DATA / "imdb" / "train_unsup.jsonl.zst", "rt", encoding="utf-8") as file:
        reviews = [" ".join(json.loads(line)["text"].split()) for line in islice(file, count)]
    directory.mkdir()
    (directory / "reviews.txt").write_text("\n".join(reviews) + "\n", encoding="utf-8")


def prepared(place: Path, count: int) -> TextConfig:
    """The shards."""
    write_text(place / "text", count)
    config = TextConfig.model_validate({
        "kind": "text", "directory": str(place / "shards"),
        "corpus": {"kind": "files", "directory": str(place / "text"), "train": ["*.txt"], "document": "line"},
        "tokenizer": {"kind": "gpt2", "path": str(DATA / "gpt2_bpe")},
    })  # fmt: skip
    with LocalExecutor(os.cpu_count() or 1) as executor:
        prepare(config, executor=executor, report=lambda _: None)
    return config


def write_peers(place: Path, shards: TokenShards) -> None:
    """The same tokens as one array, and as tars."""
    documents = [tokens.astype(np.uint16) for tokens, _ in shards.documents()]
    np.concatenate(documents).tofile(place / "tokens.bin")
    for first in range(0, len(documents), TAR_DOCUMENTS):
        with tarfile.open(place / f"part-{first // TAR_DOCUMENTS:04d}.tar", "w") as tar:
            for number, tokens in enumerate(documents[first : first + TAR_DOCUMENTS], first):
                content = io.BytesIO()
                np.save(content, tokens)
                header = tarfile.TarInfo(f"{number:08d}.npy")
                header.size = len(content.getvalue())
                tar.addfile(header, io.BytesIO(content.getvalue()))


def from_stream(stream: Stream, first: int = 0) -> Batches:
    """Ours."""
    draw = first
    while True:
        batch = stream.micro_batch(draw, 0)
        assert isinstance(batch, TokenBatch)
        yield batch.inputs, batch.labels
        draw += 1


def from_memory_map(path: Path) -> Batches:
    """As nanoGPT's get_batch, but from the beginning to the end, and again."""
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    while True:
        for begin in range(0, len(tokens) - ROWS * LENGTH, ROWS * LENGTH):
            starts = range(begin, begin + ROWS * LENGTH, LENGTH)
            inputs = torch.stack([torch.from_numpy(tokens[i : i + LENGTH].astype(np.int64)) for i in starts])
            labels = torch.stack([torch.from_numpy(tokens[i + 1 : i + 1 + LENGTH].astype(np.int64)) for i in starts])
            yield inputs, labels


def from_tars(place: Path) -> Batches:
    """WebDataset's own reader of tars; documents end to end, cut as ours."""
    urls = sorted(str(path) for path in place.glob("part-*.tar"))
    while True:
        dataset = webdataset.WebDataset(urls, shardshuffle=False).decode().to_tuple("npy")
        kept, held, needed = list[np.ndarray](), 0, ROWS * LENGTH + 1
        for (tokens,) in dataset:
            kept.append(tokens)
            held += len(tokens)
            while held >= needed:
                whole = np.concatenate(kept)
                block = torch.from_numpy(whole[:needed].astype(np.int64))
                yield block[:-1].view(ROWS, LENGTH).clone(), block[1:].view(ROWS, LENGTH).clone()
                kept, held = [whole[needed - 1 :]], len(whole) - needed + 1


def seconds_per_token(batches: Batches, count: int) -> float:
    """Of processor time."""
    begun = time.process_time()
    for _ in islice(batches, count):
        pass
    return (time.process_time() - begun) / (count * ROWS * LENGTH)


def open_stream(config: TextConfig, *, shuffle: bool = True) -> Stream:
    plain = config.model_copy(update={"shuffle": shuffle})
    return plain.stream(reads="samples", length=LENGTH, micro_batches=1, rows=ROWS, seed=0)


def first_batch(config: TextConfig, draw: int) -> tuple[float, float]:
    """Wall seconds from nothing to the batch, and processor seconds of the batch alone."""
    begun = time.perf_counter()
    stream = open_stream(config)
    opened = time.process_time()
    stream.micro_batch(draw, 0)
    return time.perf_counter() - begun, time.process_time() - opened


def same_tokens(config: TextConfig, place: Path) -> bool:
    """Whether the three, in the corpus's order, give the same batches; through one epoch."""
    stream = open_stream(config, shuffle=False)
    three = (from_stream(stream), from_memory_map(place / "tokens.bin"), from_tars(place))
    for one, other, third in islice(zip(*three, strict=True), stream.draws_per_epoch):
        for field in (0, 1):
            if not (torch.equal(one[field], other[field]) and torch.equal(one[field], third[field])):
                return False
    return True


def main() -> None:
    """Write the data, compare, measure in turn."""
    if not DATA.is_dir():
        sys.exit(f"there is no {DATA}: set SEGUE_BENCHMARK_DATA to the directory of the benchmark texts")
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        place = Path(name)
        config = prepared(place, DOCUMENTS["--full" in sys.argv])
        shards = config.shards()
        write_peers(place, shards)
        same = same_tokens(config, place)
        contenders: dict[str, tuple[Callable[[], Batches], int]] = {
            "memory map": (lambda: from_memory_map(place / "tokens.bin"), BATCHES),
            "ours": (lambda: from_stream(open_stream(config), 1), BATCHES),
            "ours, unshuffled": (lambda: from_stream(open_stream(config, shuffle=False), 1), BATCHES),
            "webdataset": (lambda: from_tars(place), TAR_BATCHES),
        }
        batches = {who: make() for who, (make, _) in contenders.items()}
        for one in batches.values():
            next(one)
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(ROUNDS):
            for who, (_, count) in contenders.items():
                best[who] = min(best[who], seconds_per_token(batches[who], count))
        near, far = ([first_batch(config, draw) for _ in range(ROUNDS)] for draw in (0, FAR))
    opening = statistics.median(wall for wall, _ in near)
    seek = statistics.median(one for _, one in far) / statistics.median(one for _, one in near)
    figures = [
        Figure("processor time per token, ours / sequential memory map", best["ours"] / best["memory map"], 1 / 0.6),
        Figure("processor time per token, ours / webdataset", best["ours"] / best["webdataset"], 1 / 5),
        Figure("first batch, from opening on", opening, 0.2, "s"),
        Figure("first batch at step 1,000,000 / at step 0", seek, 1.2),
    ]
    speeds = ", ".join(f"{who} {1e-6 / seconds:.0f}" for who, seconds in best.items())
    notes = [
        f"{shards.num_documents:,} documents, {shards.num_tokens:,} tokens; rows {ROWS} x length {LENGTH}",
        f"million tokens per processor second: {speeds}",
    ]
    conclude("data_load", figures, same=same, notes=notes)


if __name__ == "__main__":
    main()
