"""What `benchmarks.data_prepare` compares: each makes files of token ids of the same JSON lines, with two processes.

    python -m benchmarks.data_prepare_contenders NAME WORKSPACE OUT

WORKSPACE has text/0.jsonl and text/1.jsonl, one {"text": ...} a line, and tokenizer.json; OUT is a new directory.
"""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PROCESSES = 2
END = "<|endoftext|>"


def ours(workspace: Path, out: Path) -> None:
    """Segue."""
    from data_pipeline.prepare import LocalExecutor, prepare
    from data_pipeline.text import TextConfig

    corpus = {"kind": "jsonl", "directory": str(workspace / "text"), "train": ["*.jsonl"], "held_out": 0}
    tokenizer = {"kind": "file", "path": str(workspace / "tokenizer.json"), "end_of_document": END}
    fields = {"kind": "text", "directory": str(out), "corpus": corpus, "tokenizer": tokenizer}
    with LocalExecutor(PROCESSES) as executor:
        prepare(TextConfig.model_validate(fields), executor=executor, report=lambda _: None)


def of_ours(out: Path) -> Iterator[np.ndarray]:
    """Every token that was written, in order."""
    manifest = json.loads((out / "manifest.json").read_text())
    for shard in manifest["splits"]["train"]["shards"]:
        yield np.load(out / "shards" / f"{shard['name']}.tokens.npy")


def datasets(workspace: Path, out: Path) -> None:
    """`datasets.map` in two processes, in batches, with the fast tokenizer of transformers."""
    from datasets import load_dataset
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(workspace / "tokenizer.json"), eos_token=END)
    end = tokenizer.eos_token_id

    def encode(rows: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(rows["text"], return_attention_mask=False, return_token_type_ids=False)["input_ids"]
        return {"input_ids": [[*ids, end] for ids in found]}

    files = sorted(map(str, (workspace / "text").glob("*.jsonl")))
    data = load_dataset("json", data_files=files, split="train", cache_dir=str(out / "cache"))
    data.map(encode, batched=True, num_proc=PROCESSES, remove_columns=["text"]).save_to_disk(str(out / "saved"))


def of_datasets(out: Path) -> Iterator[np.ndarray]:
    """Every token that was written, in order."""
    from datasets import load_from_disk

    table = load_from_disk(str(out / "saved")).data
    for chunk in table.column("input_ids").chunks:
        yield chunk.flatten().to_numpy(zero_copy_only=False)


def datatrove(workspace: Path, out: Path) -> None:
    """Its reader and tokenizer, a file for each of two workers."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    steps = [
        JsonlReader(str(workspace / "text"), glob_pattern="*.jsonl"),
        DocumentTokenizer(
            str(out / "tokens"), str(workspace / "tokenizer.json"), eos_token=END, shuffle_documents=False
        ),
    ]
    LocalPipelineExecutor(
        steps, tasks=PROCESSES, workers=PROCESSES, logging_dir=str(out / "logs"), start_method="spawn"
    ).run()


def of_datatrove(out: Path) -> Iterator[np.ndarray]:
    """Every token that was written, in order."""
    for path in sorted((out / "tokens").rglob("*.ds")):
        yield np.fromfile(path, dtype="<u2")


_TOKENIZER: list[Any] = []


def _begin(path: str) -> None:
    from transformers import PreTrainedTokenizerFast

    _TOKENIZER.append(PreTrainedTokenizerFast(tokenizer_file=path, eos_token=END))


def _encode_line(line: str) -> tuple[list[int], int]:
    tokenizer = _TOKENIZER[0]
    ids = tokenizer(json.loads(line)["text"])["input_ids"]
    ids.append(tokenizer.eos_token_id)
    return ids, len(line)


def megatron(workspace: Path, out: Path) -> None:
    """As Megatron-LM's tools/preprocess_data.py goes about it: a pool, `imap` over lines in chunks of 32, each document
    encoded by a call of its own, and one process that writes what comes back."""
    with (
        multiprocessing.get_context("spawn").Pool(PROCESSES, _begin, (str(workspace / "tokenizer.json"),)) as pool,
        (out / "tokens.bin").open("wb") as tokens,
    ):
        lengths = []
        for path in sorted((workspace / "text").glob("*.jsonl")):
            with path.open(encoding="utf-8") as lines:
                for ids, _ in pool.imap(_encode_line, lines, 32):
                    tokens.write(np.array(ids, dtype=np.uint16).tobytes(order="C"))
                    lengths.append(len(ids))
        np.array(lengths, dtype=np.int32).tofile(out / "tokens.idx")
        pool.close()
        pool.join()


def of_megatron(out: Path) -> Iterator[np.ndarray]:
    """Every token that was written, in order."""
    yield np.fromfile(out / "tokens.bin", dtype="<u2")


CONTENDERS: dict[str, tuple[Callable[[Path, Path], None], Callable[[Path], Iterator[np.ndarray]]]] = {
    "ours": (ours, of_ours),
    "datasets": (datasets, of_datasets),
    "datatrove": (datatrove, of_datatrove),
    "Megatron-style": (megatron, of_megatron),
}


if __name__ == "__main__":
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_DATASETS_DISABLE_PROGRESS_BARS="1", RAYON_NUM_THREADS="1")
    CONTENDERS[sys.argv[1]][0](Path(sys.argv[2]), Path(sys.argv[3]))
