"""Preparing text against its peers: the same JSON lines to the same token ids, by processor seconds.

    python -m benchmarks.data_prepare [--quick]

Ours, `datasets.map(num_proc=2)`, datatrove's tokenizer pipeline and a loop in the style of Megatron-LM's
preprocess_data.py, each in processes of its own, two at work, from JSON lines to files of ids. Text: the unlabelled
reviews of IMDB in the directory of benchmark data (SEGUE_BENCHMARK_DATA, or ../shared/data), tokenized with GPT-2's
vocabulary; without it, the source code of the standard library, with a vocabulary trained on it. Every id is compared.

Counted are the processor seconds of all processes, without what the same program takes for a hundred documents: imports
and the start of processes, which are told apart. The raw engine is tiktoken's `encode_ordinary`, document by document,
of texts that are in memory. Last, a file with one document of 1 GB (of 100 MB with `--quick`, and a fifth of the text):
the most memory that a worker of ours ever had, as the kernel says.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tiktoken

from benchmarks.data_prepare_contenders import CONTENDERS, END
from benchmarks.table import Figure, conclude
from data_pipeline.sources.standard_library import StandardLibraryConfig
from data_pipeline.tokenizers.byte_alphabet import BYTE_OF, spelled
from data_pipeline.tokenizers.byte_pairs import BytePairConfig, BytePairTokenizer
from data_pipeline.tokenizers.gpt2 import GPT2Config

DATA = Path(os.environ.get("SEGUE_BENCHMARK_DATA") or Path(__file__).parents[2] / "shared" / "data")
ROOT = Path(__file__).parents[1]
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""As tiktoken has it for GPT-2."""
GOALS = {"datasets": 4.0, "datatrove": 4.0, "Megatron-style": 8.0}
"""Times as many processor seconds as ours."""
FEW = 100
MEMORY_GOAL = 600.0

LONG_DOCUMENT = """
import json, resource, sys
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.text import TextConfig
if __name__ == "__main__":
    with LocalExecutor(2) as executor:
        config = TextConfig.model_validate(json.loads(sys.argv[1]))
        tokens = prepare(config, executor=executor, report=lambda _: None).splits["train"].num_tokens
    kib = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"tokens": tokens, "kib": kib}))
"""


def texts(quick: bool) -> tuple[str, list[str]]:
    """What they are, and the documents."""
    path = DATA / "imdb" / "train_unsup.jsonl.zst"
    if path.exists():
        import zstandard

        with path.open("rb") as file:
            lines = zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()
        name, found = "IMDB's unlabelled reviews", [json.loads(line)["text"] for line in lines]
    else:
        library = StandardLibraryConfig(kind="standard_library")
        found = [document.text for split in ("train", "valid") for document in library.documents(split)]
        name = "the standard library's source code"
        while sum(map(len, found)) < 40_000_000:
            found += found[: len(found) // 2 + 1]
    return name, found[: len(found) // 5] if quick else found


def vocabulary(documents: list[str]) -> tuple[str, BytePairTokenizer]:
    """GPT-2's, or one of 16,384 tokens."""
    if (DATA / "gpt2_bpe").is_dir():
        return "GPT-2's vocabulary", GPT2Config(kind="gpt2", path=str(DATA / "gpt2_bpe")).build([], Counter())
    trained = BytePairConfig(kind="bpe", vocab_size=1 << 14).build(documents[::4], Counter())
    content = trained.vocabulary_json().replace('"<eos>"', json.dumps(END))
    return "a vocabulary trained here", BytePairTokenizer.parse(content, {"kind": "file", "end_of_document": END})


def lay_out(workspace: Path, documents: list[str], tokenizer: BytePairTokenizer) -> None:
    """The text in two files, and the tokenizer."""
    (workspace / "text").mkdir(parents=True)
    half = len(documents) // 2
    for number, part in enumerate((documents[:half], documents[half:])):
        with (workspace / "text" / f"{number}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in part)
    (workspace / "tokenizer.json").write_text(tokenizer.vocabulary_json(), encoding="utf-8")


def seconds_of(name: str, workspace: Path, out: Path) -> tuple[float, float]:
    """Processor seconds of a contender and all of its children, and seconds by the clock."""
    out.mkdir()
    command = [sys.executable, "-m", "benchmarks.data_prepare_contenders", name, str(workspace), str(out)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    after, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    if ended.returncode:
        sys.exit(f"{name} failed:\n{ended.stderr[-4000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock


def digest_of(tokens: Iterator[np.ndarray]) -> str:
    """SHA-256 over the ids as uint16."""
    digest = hashlib.sha256()
    for part in tokens:
        digest.update(part.astype("<u2").tobytes())
    return digest.hexdigest()


def raw_engine(documents: list[str], tokenizer: BytePairTokenizer) -> tuple[float, str]:
    """Processor seconds, and the digest of the ids."""
    model = json.loads(tokenizer.vocabulary_json())["model"]
    merged = ("".join(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"])
    names = [*BYTE_OF, *merged]
    spellings = [spelled(name) for name in names]
    ranks = {spelling: rank for rank, spelling in enumerate(spellings) if spelling is not None}
    core = tiktoken.Encoding("raw", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    began = time.process_time()
    encoded = [core.encode_ordinary(text) for text in documents]
    seconds = time.process_time() - began
    ids = np.array([model["vocab"][name] for name in names], dtype=np.uint16)
    end = np.array([tokenizer.end_of_document], dtype=np.uint16)
    return seconds, digest_of(part for ranks_of in encoded for part in (ids[ranks_of], end))


def memory_of_a_long_document(workspace: Path, documents: list[str], num_bytes: int) -> tuple[float, str]:
    """MB at the most of a worker; and a note."""
    corpus = workspace / "long"
    corpus.mkdir()
    line = " ".join(text.replace("\n", " ") for text in documents[:2000])
    with (corpus / "a.txt").open("w", encoding="utf-8") as file:
        file.write("a short line\n")
        for _ in range(num_bytes // len(line.encode())):
            file.write(line + " ")
        file.write("the end\nanother short line\n")
    fields = {
        "kind": "text",
        "directory": str(workspace / "long-out"),
        "corpus": {"kind": "files", "directory": str(corpus), "train": ["a.txt"], "document": "line", "held_out": 0},
        "tokenizer": {"kind": "file", "path": str(workspace / "tokenizer.json"), "end_of_document": END},
    }
    began = time.perf_counter()
    command = [sys.executable, "-c", LONG_DOCUMENT, json.dumps(fields)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"the long document failed:\n{ended.stderr[-4000:]}")
    found = json.loads(ended.stdout)
    driver, worker = (kib * 1024 / 1e6 for kib in found["kib"])
    size = (corpus / "a.txt").stat().st_size
    note = (
        f"a line of {size / 1e9:.2f} GB: {found['tokens']:,} tokens in {time.perf_counter() - began:.0f} s, at most "
        f"{worker:.0f} MB in a worker, {driver:.0f} MB in the driver"
    )
    return max(driver, worker), note


def main() -> None:
    """All contenders in turn, then the long document."""
    quick = "--quick" in sys.argv
    name, documents = texts(quick)
    size = sum(len(text.encode()) for text in documents) / 1e6
    kind, tokenizer = vocabulary(documents)
    raw, expected = raw_engine(documents, tokenizer)
    notes = [f"{name}: {len(documents):,} documents, {size:.1f} MB; {kind}"]
    notes.append(f"raw engine: {raw:.2f} processor seconds ({size / raw:.1f} MB/s)")
    spent: dict[str, float] = {}
    same = True
    with TemporaryDirectory() as place:
        lay_out(Path(place, "few"), documents[:FEW], tokenizer)
        lay_out(Path(place, "all"), documents, tokenizer)
        for contender, (_, written) in CONTENDERS.items():
            start, _ = seconds_of(contender, Path(place, "few"), Path(place, f"{contender}-few"))
            whole, clock = seconds_of(contender, Path(place, "all"), Path(place, contender))
            spent[contender] = whole - start
            equal = digest_of(written(Path(place, contender))) == expected
            same = same and equal
            notes.append(
                f"{contender}: {spent[contender]:.2f} processor seconds ({size / spent[contender]:.1f} MB/s), and "
                f"{start:.2f} for its start; {clock:.1f} s by the clock; ids equal: {equal}"
            )
            print(notes[-1], flush=True)
        memory, note = memory_of_a_long_document(Path(place, "all"), documents, 100_000_000 if quick else 1_000_000_000)
    notes.append(note)
    figures = [
        Figure(f"processor time, ours / {other}", spent["ours"] / spent[other], 1 / goal)
        for other, goal in GOALS.items()
    ]
    figures.append(Figure("processor time, ours / raw engine", spent["ours"] / raw, 1 / 0.7))
    figures.append(Figure("most memory of a process, one long document", memory, MEMORY_GOAL, "MB"))
    conclude("data_prepare", figures, same=same, notes=notes)


if __name__ == "__main__":
    main()
