"""From a corpus to token shards: list, scan, sample, train the tokenizer, encode, and last the manifest.

The same corpus and settings give the same bytes, whatever the executor, the number of workers, and how often it was
interrupted: pieces, splits and sample depend on the corpus alone, and a finished piece is kept if its bytes still are
what was written.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput, Config, Corrupt, Refused
from data_pipeline.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    SHARD_FOLDER,
    Manifest,
    SplitRecord,
    check_unchanged,
    read_manifest,
)
from data_pipeline.prepare.executor import Executor
from data_pipeline.prepare.pieces import (
    WORK_FOLDER,
    Encoded,
    EncodeTask,
    SampleTask,
    Scan,
    ScanTask,
    encode,
    first_of,
    sample,
    scan,
)
from data_pipeline.prepare.progress import Progress
from data_pipeline.sources import Corpus
from data_pipeline.sources.document import Piece, Split
from data_pipeline.steps.cleaned_corpus import CleanedCorpus
from data_pipeline.steps.cleaning import cleaned, files_of, forget
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from data_pipeline.text import TextConfig

Listener = Callable[[Progress], None]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Trained(Config):
    """Which tokenizer an earlier run trained, and on what."""

    source: str
    tokenizer_hash: str


def prepare(config: "TextConfig", *, executor: Executor, report: Listener) -> Manifest:
    """Makes `config.directory`, or finishes or repairs it; a finished one is left as it is.

    BadInput if the corpus or the directory cannot be used; Refused if the directory was prepared with other settings,
    or finished from other files.
    """
    directory = Path(config.directory).resolve()
    pieces = config.corpus.pieces(config.shard_bytes)
    listed: list[Any] = [[piece.split, [list(_fields(span)) for span in piece.spans]] for piece in pieces]
    listing = _sha256(json.dumps(listed + files_of(config.steps)))
    report(Progress("list", len(pieces), len(pieces)))
    finished = _finished(config, directory, listing)
    if finished is not None:
        report(Progress("finished", len(pieces), len(pieces)))
        return finished
    _start(directory, config.identity())
    corpus = _cleaned(config, directory, pieces, executor, report)
    scans = _scan(config, corpus, pieces, executor, report)
    source = _sha256("".join(one.content for one in scans))
    tokenizer = _tokenizer(config, corpus, directory, pieces, scans, source, executor, report)
    encoded = _encode(config, corpus, directory, pieces, scans, tokenizer, executor, report)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        config=config.identity(),
        listing=listing,
        source=source,
        tokenizer_hash=tokenizer.hash,
        vocab_size=tokenizer.vocab_size,
        splits=_splits(encoded),
        report=dict(sorted(sum((one.report.counts for one in scans), Counter[str]()).items())),
    )
    write_atomically(directory / MANIFEST_FILE, manifest.model_dump_json(indent=1).encode())
    _sweep(directory, manifest)
    forget(directory / WORK_FOLDER)
    report(Progress("finished", len(pieces), len(pieces)))
    return manifest


def _fields(span: Any) -> tuple[str, int, int]:
    return span.name, span.start, span.stop


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _finished(config: "TextConfig", directory: Path, listing: str) -> Manifest | None:
    """The manifest of a directory that needs no work; None if there is some to do."""
    if not (directory / MANIFEST_FILE).exists():
        return None
    manifest = read_manifest(directory)
    check_unchanged(config.directory, manifest.config, config.identity())
    if manifest.listing != listing:
        raise Refused(
            f"data.directory {config.directory}: was prepared from other files (names or sizes in the corpus have "
            "changed); restore the corpus, or choose another data.directory"
        )
    try:
        load_tokenizer(directory, manifest.tokenizer_hash)
        for split in manifest.splits.values():
            for shard in split.shards:
                shard.check_sizes(directory)
    except (Corrupt, BadInput):
        return None
    return manifest


def _start(directory: Path, identity: dict[str, Any]) -> None:
    """Claims the directory for these settings; Refused if it was begun with others."""
    path = directory / WORK_FOLDER / "started.json"
    try:
        check_unchanged(str(directory), json.loads(path.read_text(encoding="utf-8")), identity)
    except (OSError, json.JSONDecodeError):
        write_atomically(path, json.dumps(identity, indent=1, sort_keys=True).encode())


def _cleaned(
    config: "TextConfig", directory: Path, pieces: Sequence[Piece], executor: Executor, report: Listener
) -> Corpus | CleanedCorpus:
    """The corpus after its steps."""
    if not config.steps:
        return config.corpus.located()
    return cleaned(
        config.corpus,
        config.steps,
        pieces,
        work_folder=directory / WORK_FOLDER,
        executor=executor,
        told=lambda *numbers: report(Progress("clean", *numbers)),
    )


def _scan(
    config: "TextConfig",
    corpus: Corpus | CleanedCorpus,
    pieces: Sequence[Piece],
    executor: Executor,
    report: Listener,
) -> list[Scan]:
    tokenizer = config.tokenizer
    tasks = [ScanTask(corpus, piece, tokenizer.wanted_sample_bytes, tokenizer.counts_words) for piece in pieces]
    scans: list[Scan] = []
    documents = num_bytes = 0
    for one in executor.map(scan, tasks):
        scans.append(one)
        documents, num_bytes = documents + one.num_documents.total(), num_bytes + one.num_bytes
        report(Progress("scan", len(scans), len(pieces), documents, num_bytes))
    _check_no_split_is_empty(pieces, scans)
    return scans


def _check_no_split_is_empty(pieces: Sequence[Piece], scans: Sequence[Scan]) -> None:
    counts = sum((one.num_documents for one in scans), Counter[Split]())
    expected = {split for piece in pieces for split in ((piece.split,) if piece.split else ("train", "valid"))}
    if not counts.total() and not any(one.report.counts for one in scans):
        raise BadInput("corpus: its files are empty, there is no document in them; name files with text")
    for split in SPLITS:
        if split in expected and not counts[split]:
            left_out = sum((one.report.counts for one in scans), Counter[str]())
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "none"
            raise BadInput(
                f"corpus: no document for the split {split} ({counts.total()} for others; left out: {reasons}); give "
                "more text, cut it in smaller documents, or name files for the split"
            )


def _tokenizer(
    config: "TextConfig",
    corpus: Corpus | CleanedCorpus,
    directory: Path,
    pieces: Sequence[Piece],
    scans: Sequence[Scan],
    source: str,
    executor: Executor,
    report: Listener,
) -> Tokenizer:
    """Trained on the sample, or the one that an earlier run trained on the same text."""
    record = directory / WORK_FOLDER / "tokenizer.json"
    try:
        trained = Trained.model_validate_json(record.read_bytes())
        if trained.source == source:
            return load_tokenizer(directory, trained.tokenizer_hash)
    except (OSError, ValueError, Corrupt):
        record.unlink(missing_ok=True)
    texts = _sample(config, corpus, pieces, scans, executor, report)
    report(Progress("tokenizer", 0, 1))
    tokenizer = config.tokenizer.build(texts, sum((one.words for one in scans), Counter[str]()))
    tokenizer.save(directory)
    write_atomically(record, Trained(source=source, tokenizer_hash=tokenizer.hash).model_dump_json().encode())
    report(Progress("tokenizer", 1, 1))
    return tokenizer


def _sample(
    config: "TextConfig",
    corpus: Corpus | CleanedCorpus,
    pieces: Sequence[Piece],
    scans: Sequence[Scan],
    executor: Executor,
    report: Listener,
) -> Iterable[str]:
    """The texts to train on, in the corpus's order."""
    chosen = first_of([one for scan in scans for one in scan.sample], config.tokenizer.wanted_sample_bytes)
    if not chosen:
        return []
    highest = chosen[-1][0]
    wanted = [piece for piece, scan in zip(pieces, scans, strict=True) if any(p <= highest for p, _ in scan.sample)]
    texts: list[str] = []
    num_bytes = 0
    for number, found in enumerate(executor.map(sample, [SampleTask(corpus, piece, highest) for piece in wanted])):
        texts += found
        num_bytes += sum(len(text.encode()) for text in found)
        report(Progress("sample", number + 1, len(wanted), len(texts), num_bytes))
    return texts


def _encode(
    config: "TextConfig",
    corpus: Corpus | CleanedCorpus,
    directory: Path,
    pieces: Sequence[Piece],
    scans: Sequence[Scan],
    tokenizer: Tokenizer,
    executor: Executor,
    report: Listener,
) -> list[Encoded]:
    tasks = [
        EncodeTask(corpus, piece, number, one.content, directory, tokenizer.hash, config.shard_bytes)
        for number, (piece, one) in enumerate(zip(pieces, scans, strict=True))
    ]
    encoded: list[Encoded] = []
    documents = num_bytes = 0
    for one in executor.map(encode, tasks):
        encoded.append(one)
        documents, num_bytes = documents + one.num_documents, num_bytes + one.num_bytes
        report(Progress("encode", len(encoded), len(pieces), documents, num_bytes))
    return encoded


def _splits(encoded: Sequence[Encoded]) -> dict[str, SplitRecord]:
    shards = {split: [shard for one in encoded for shard in one.shards.get(split, ())] for split in SPLITS}
    return {split: SplitRecord(shards=tuple(records)) for split, records in shards.items() if records}


def _sweep(directory: Path, manifest: Manifest) -> None:
    """Removes what interrupted runs left behind."""
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    wanted = {shard.path(directory, kind) for shard in shards for kind in shard.files}
    for path in (directory / SHARD_FOLDER).iterdir():
        if path not in wanted and path.suffix in (".npy", ".tmp"):
            path.unlink()
    for folder in (directory, directory / WORK_FOLDER):
        for path in folder.glob("*.tmp"):
            path.unlink()
