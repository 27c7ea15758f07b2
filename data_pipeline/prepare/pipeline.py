"""From a corpus to token shards: list, scan, sample, train the tokenizer, encode, and last the manifest.

The same corpus and settings give the same bytes, whatever the executor, the number of workers, and how often it was
interrupted: pieces, splits and sample depend on the corpus alone, and a finished piece is kept if its bytes still are
what was written. With a tokenizer that does not depend on the text, pieces are scanned and encoded in one pass.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput, Config, Corrupt, Refused
from data_pipeline.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Manifest,
    SplitRecord,
    read_manifest,
)
from data_pipeline.prepare.directory import WORK_FOLDER, check_same, claimed, note_pieces, sizes_of, start, sweep
from data_pipeline.prepare.executor import Executor
from data_pipeline.prepare.job import Findings, Job
from data_pipeline.prepare.pieces import Encoded
from data_pipeline.prepare.progress import Listener, Progress
from data_pipeline.sources import Corpus
from data_pipeline.sources.document import SPLITS, Piece
from data_pipeline.sources.whole_documents import with_whole_documents
from data_pipeline.steps.cleaned_corpus import CleanedCorpus
from data_pipeline.steps.cleaning import cleaned, files_of, forget
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from data_pipeline.text import TextConfig


class Trained(Config):
    """Which tokenizer an earlier run trained, and on what."""

    source: str
    tokenizer_hash: str


def prepare(config: "TextConfig", *, executor: Executor, report: Listener) -> Manifest:
    """Makes `config.directory`, or finishes or repairs it; a finished one is left as it is.

    BadInput if the corpus or the directory cannot be used; Refused if the directory was prepared with other settings,
    or finished from other files, or if another driver works on it.
    """
    directory = Path(config.directory).resolve()
    config.corpus.check_apart(directory)
    pieces = config.corpus.pieces(config.shard_bytes)
    listed: list[Any] = [[piece.split, [list(config.corpus.listed(span)) for span in piece.spans]] for piece in pieces]
    listing = _sha256(json.dumps(listed + files_of(config.steps)))
    report(Progress("list", len(pieces), len(pieces)))
    manifest = _finished(config, directory, listing, pieces)
    if manifest is None:
        with claimed(directory):
            manifest = _made(config, directory, pieces, listing, executor, report)
    report(Progress("finished", len(pieces), len(pieces)))
    return manifest


def _made(
    config: "TextConfig", directory: Path, pieces: list[Piece], listing: str, executor: Executor, report: Listener
) -> Manifest:
    start(directory, config.identity())
    repairing = (directory / MANIFEST_FILE).exists()
    tokenizer = None if config.tokenizer.needs_corpus else _ready_made(config, directory)
    if config.steps or (tokenizer is not None and not tokenizer.divisible):
        pieces = with_whole_documents(pieces)
    note_pieces(directory, listing, len(pieces), _files(pieces))
    corpus = _cleaned(config, directory, pieces, executor, report)
    job = Job(config, corpus, directory, pieces, executor, report)
    if tokenizer is not None and not repairing:
        findings, encoded = job.scan_and_encode(tokenizer.hash)
        _check_no_split_is_empty(pieces, findings)
    else:
        findings = job.scan()
        if repairing:
            _check_same_text(config, read_manifest(directory), findings)
        _check_no_split_is_empty(pieces, findings)
        tokenizer = tokenizer or _trained(job, findings)
        encoded = job.encode(findings, tokenizer.hash)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        config=config.identity(),
        listing=listing,
        source=_source(findings),
        tokenizer_hash=tokenizer.hash,
        vocab_size=tokenizer.vocab_size,
        splits=_splits(encoded),
        report=dict(sorted(findings.report.items())),
    )
    findings.left_out.write(directory)
    write_atomically(directory / MANIFEST_FILE, manifest.model_dump_json(indent=1).encode())
    sweep(directory, manifest)
    _sweep_work(directory / WORK_FOLDER)
    forget(directory / WORK_FOLDER)
    return manifest


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


def _files(pieces: Sequence[Piece]) -> dict[str, int]:
    return sizes_of(span for piece in pieces for span in piece.spans)


def _source(findings: Findings) -> str:
    return _sha256("".join(findings.contents))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _finished(config: "TextConfig", directory: Path, listing: str, pieces: Sequence[Piece]) -> Manifest | None:
    """The manifest of a directory that needs no work; None if there is some to do."""
    if not (directory / MANIFEST_FILE).exists():
        return None
    manifest = read_manifest(directory)
    check_same(config.directory, manifest, config.identity(), listing, lambda: _files(pieces))
    _check_same_tokenizer(config, manifest)
    try:
        load_tokenizer(directory, manifest.tokenizer_hash)
        manifest.check_sizes(directory)
    except (Corrupt, BadInput):
        return None
    return manifest


def _check_same_text(config: "TextConfig", manifest: Manifest, findings: Findings) -> None:
    """What is missing can only be made anew of the same text."""
    if _source(findings) != manifest.source:
        raise Refused(
            f"data.directory {config.directory}: some of its files are missing or damaged, and cannot be made anew, "
            "since the corpus's text is no longer what they were made of; restore the corpus, or choose another "
            "data.directory"
        )


def _check_same_tokenizer(config: "TextConfig", manifest: Manifest) -> None:
    """A finished tokenizer's file may have moved, and need not be there any more; it must not be another's."""
    if config.tokenizer.kind != "file" or not Path(config.tokenizer.path).exists():
        return
    given = config.tokenizer.build([], Counter()).hash
    if given != manifest.tokenizer_hash:
        raise Refused(
            f"tokenizer.path {config.tokenizer.path}: its hash is {given}, but data.directory {config.directory} was "
            f"prepared with {manifest.tokenizer_hash}; give that tokenizer, or choose another data.directory"
        )


def _check_no_split_is_empty(pieces: Sequence[Piece], findings: Findings) -> None:
    counts = findings.documents
    expected = {split for piece in pieces for split in ((piece.split,) if piece.split else ("train", "valid"))}
    if not counts.total() and not findings.report:
        raise BadInput("corpus: its files are empty, there is no document in them; name files with text")
    for split in SPLITS:
        if split in expected and not counts[split]:
            reasons = findings.left_out.counted(findings.report)
            raise BadInput(
                f"corpus: no document for the split {split} ({counts.total()} for others; left out: {reasons}); give "
                "more text, cut it in smaller documents, or name files for the split"
            )


def _ready_made(config: "TextConfig", directory: Path) -> Tokenizer:
    """One that does not depend on the text."""
    tokenizer = config.tokenizer.build([], Counter())
    try:
        return load_tokenizer(directory, tokenizer.hash)
    except (BadInput, Corrupt):
        tokenizer.save(directory)
        return tokenizer


def _trained(job: Job, findings: Findings) -> Tokenizer:
    """Trained on the sample, or the one that an earlier run trained on the same text."""
    record, source = job.directory / WORK_FOLDER / "tokenizer.json", _source(findings)
    try:
        trained = Trained.model_validate_json(record.read_bytes())
        if trained.source == source:
            return load_tokenizer(job.directory, trained.tokenizer_hash)
    except (OSError, ValueError, Corrupt):
        record.unlink(missing_ok=True)
    texts = job.sample(findings)
    job.report(Progress("tokenizer", 0, 1))
    tokenizer = job.config.tokenizer.build(texts, findings.counts)
    tokenizer.save(job.directory)
    write_atomically(record, Trained(source=source, tokenizer_hash=tokenizer.hash).model_dump_json().encode())
    job.report(Progress("tokenizer", 1, 1))
    return tokenizer


def _splits(encoded: Sequence[Encoded]) -> dict[str, SplitRecord]:
    shards = {split: [shard for one in encoded for shard in one.shards.get(split, ())] for split in SPLITS}
    return {split: SplitRecord(shards=tuple(records)) for split, records in shards.items() if records}


def _sweep_work(work: Path) -> None:
    for path in (*work.glob("scan-*.json"), *work.glob("part-*.json")):
        path.unlink()  # a scan says when the corpus's files changed, which is no part of what was prepared
