"""`data inspect`: the tree of sources, and a batch as the model sees it."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from cluster.data_verbs.batches import batch_lines
from cluster.data_verbs.target import Target
from cluster.data_verbs.tree import Branch
from cluster.sampling import check_picture, write_vectors
from data_pipeline.batch import Batch, VectorBatch
from data_pipeline.config import BadInput
from data_pipeline.data import DataConfig
from data_pipeline.markov import MarkovConfig
from data_pipeline.media.media_data import MediaData
from data_pipeline.mixture import MixtureConfig
from data_pipeline.pair_data import PairData
from data_pipeline.prepared_text import PreparedText
from data_pipeline.streams import Stream
from data_pipeline.summary import counted, summarize
from data_pipeline.text import TextConfig
from data_pipeline.vector_data import VectorData

LENGTH = 128
"""Tokens of a row, where no model says how many it reads, and there are so many."""


def inspect_target(
    target: Target, *, split: str, draw: int, rows: int, picture: Path | None, as_json: bool, console: Console
) -> None:
    """Print both; with `picture`, images as a grid, or waves as spectrograms, beside their values as .npy."""
    if picture is not None:
        check_picture(picture)
        if not isinstance(target.data, VectorData):
            raise BadInput(f"--png {picture}: {target.name} holds no images, points or waves")
    sources = {name: _details(source) for name, source in target.sources().items()}
    if as_json:
        print(json.dumps({"target": target.name, **_head(target.data), "sources": sources}, indent=2))
    else:
        for line in _tree(target, sources).lines():
            console.print(line, soft_wrap=True, highlight=False)
    if as_json and picture is None:
        return
    stream = _stream(target, split, rows)
    batch = stream.micro_batch(draw, 0)
    if not as_json:
        console.print(
            f"batch {draw} of the split {split!r}, {draw // stream.draws_per_epoch} epochs in:", highlight=False
        )
        for line in batch_lines(batch, target.data, rows=rows):
            console.print(line, soft_wrap=True, highlight=False)
    if picture is not None:
        assert isinstance(target.data, VectorData)
        _draw(batch, target.data, picture)
        if not as_json:
            console.print(f"{picture} and {picture.with_suffix('.npy')}: the batch", soft_wrap=True, highlight=False)


def _stream(target: Target, split: str, rows: int) -> Stream:
    """The experiment's own, whose batches its model sees; of a directory samples of some tokens, or rows."""
    if target.experiment is not None:
        return target.experiment.stream(split)
    if isinstance(target.data, MediaData):
        rows = max(1, min(rows, len(target.data.vectors(split).labels)))
        return target.data.stream(reads="vectors", length=None, micro_batches=1, rows=rows, seed=0, split=split)
    assert isinstance(target.data, PreparedText)
    length = max(1, min(LENGTH, (target.data.shards(split).num_tokens - 1) // rows))
    return target.data.stream(reads="samples", length=length, micro_batches=1, rows=rows, seed=0, split=split)


def _head(data: DataConfig) -> dict[str, Any]:
    """Of a mixture what it is besides its sources."""
    if not isinstance(data, MixtureConfig):
        return {"kind": data.kind}
    weights = [{"from_step": one.from_step, "numbers": one.numbers()} for one in data.weights]
    return {"kind": data.kind, "fingerprint": data.fingerprint(), "weights": weights}


def _details(source: DataConfig) -> dict[str, Any]:
    """What is known of a source, as JSON."""
    found: dict[str, Any] = {"kind": source.kind}
    if isinstance(source, PreparedText):
        if isinstance(source, TextConfig):
            source.manifest()  # whether it was prepared so
        found |= summarize(Path(source.directory), damaged=source.damaged).to_json()
        return found | {"shards_left_out": _damage(source)}
    found["fingerprint"] = source.fingerprint()
    if isinstance(source, MarkovConfig):
        counts = {split: source.documents(split).tokens_DT.shape for split in source.splits()}
        found["splits"] = [{"name": s, "num_documents": n, "num_tokens": n * each} for s, (n, each) in counts.items()]
        found["entropy_rate"] = source.entropy_rate()
    elif isinstance(source, VectorData):
        found |= {"shape": list(source.shape), "values": source.values}
        found |= _of_media(source) if isinstance(source, MediaData) else {}
        found["splits"] = [_vector_split(source, split) for split in source.splits()]
    elif isinstance(source, PairData):
        found["splits"] = [
            {"name": split, "num_pairs": len(source.pairs(split)), "left_out": source.left_out(split)}
            for split in source.splits()
        ]
    return found


def _damage(source: PreparedText) -> list[str]:
    """What is left out of every split."""
    return [line for split in source.splits() for line in source.shards(split).left_out_lines()]


def _of_media(source: MediaData) -> dict[str, Any]:
    manifest = source.manifest()
    return {"directory": source.directory, "items": manifest.source, "left_out": manifest.report}


def _vector_split(source: VectorData, split: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": split}
    if isinstance(source, MediaData):
        record = source.manifest().splits[split]
        found |= {"num_items": record.num_items, "num_bytes": record.num_bytes, "num_tars": len(record.shards)}
    return found | {"num_vectors": len(source.vectors(split).labels)}


def _tree(target: Target, sources: dict[str, dict[str, Any]]) -> Branch:
    head = _head(target.data)
    tree = Branch(Text(f"{target.name}: {head.pop('kind')}", style="bold"))
    for name, value in head.items():
        for each in value if isinstance(value, list) else [value]:
            tree.add(f"{name} {_shares(each) if isinstance(each, dict) else each}")
    for name, details in sources.items():
        branch = tree.add(f"{name}: {details['kind']}", "bold") if name else tree
        source = target.sources()[name]
        if isinstance(source, PreparedText):
            _add_shards(branch, source)
        else:
            _add_plain(branch, details)
    return tree


def _shares(weights: dict[str, Any]) -> str:
    total = sum(weights["numbers"].values())
    shares = ", ".join(f"{name} {number / total:.2%}" for name, number in weights["numbers"].items())
    return f"from step {weights['from_step']}: {shares}"


def _add_shards(branch: Branch, source: PreparedText) -> None:
    summary = summarize(Path(source.directory), damaged=source.damaged)
    for line in (source.directory, *summary.lines()):
        branch.add(line)
    for line in _damage(source):
        branch.add(line, "red")
    for split in summary.splits:
        branch.add(str(split)).add(repr(split.sample), "dim")


def _add_plain(branch: Branch, details: dict[str, Any]) -> None:
    for name, value in details.items():
        if name == "splits":
            for split in value:
                numbers = ", ".join(_said(key, number) for key, number in split.items() if key != "name" and number)
                branch.add(f"{split['name']}: {numbers}")
        elif name != "kind":
            branch.add(_said(name, value) if isinstance(value, dict) else f"{name} {value}")


def _said(key: str, number: Any) -> str:
    if isinstance(number, dict):
        return f"left out or altered: {', '.join(f'{count:,} {why}' for why, count in number.items()) or 'none'}"
    name = key.removeprefix("num_")
    return counted(number, name.removesuffix("s")) if key.startswith("num_") else f"{number:,} {name}"


def _draw(batch: Batch, data: VectorData, picture: Path) -> None:
    assert isinstance(batch, VectorBatch)
    write_vectors(torch.as_tensor(batch.values), picture, data)
