"""GPT-2's own vocabulary (Radford et al. 2019), from the files in which it is published.

https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{vocab.bpe,encoder.json}, or the `tokenizer.json` that
Hugging Face's `gpt2` has. Both give the same tokenizer, with the same hash.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, models

from data_pipeline.config import BadInput
from data_pipeline.tokenizers.byte_pairs import BytePairTokenizer, byte_level
from data_pipeline.tokenizers.tokenizer import TokenizerTraining

GPT2_VOCAB_SIZE = 50_257
GPT2_END_OF_DOCUMENT = "<|endoftext|>"

Merges = list[tuple[str, str]]


class GPT2Config(TokenizerTraining):
    """Nothing is trained, and the ids are GPT-2's."""

    kind: Literal["gpt2"]
    path: str
    """A directory with `vocab.bpe` and `encoder.json` (each may end in .gz), or a `tokenizer.json`."""

    def build(self, texts: Iterable[str], counts: Counter[str]) -> BytePairTokenizer:
        """BadInput if the files are not there, cannot be understood, or hold another vocabulary."""
        path = Path(self.path)
        try:
            vocabulary, merges = _of_two_files(path) if path.is_dir() else _of_one_file(path)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"tokenizer.path {self.path}: GPT-2's vocabulary cannot be read ({type(error).__name__}: {error}); "
                "give a directory with vocab.bpe and encoder.json, or a tokenizer.json"
            ) from error
        _check(self.path, vocabulary, merges)
        library = byte_level(models.BPE(vocab=vocabulary, merges=merges))
        library.add_special_tokens([AddedToken(GPT2_END_OF_DOCUMENT, special=True, normalized=False)])
        return BytePairTokenizer(library, kind="gpt2", end_of_document=GPT2_END_OF_DOCUMENT)


def _of_two_files(directory: Path) -> tuple[dict[str, int], Merges]:
    lines = _content(directory / "vocab.bpe").decode("utf-8").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    return json.loads(_content(directory / "encoder.json")), [_pair(line) for line in merges]


def _of_one_file(path: Path) -> tuple[dict[str, int], Merges]:
    model = json.loads(path.read_bytes())["model"]
    return model["vocab"], [_pair(merge) for merge in model["merges"]]


def _content(path: Path) -> bytes:
    packed = path.with_name(path.name + ".gz")
    return gzip.decompress(packed.read_bytes()) if packed.exists() and not path.exists() else path.read_bytes()


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _check(path: str, vocabulary: dict[str, int], merges: Merges) -> None:
    size, last = len(vocabulary), vocabulary.get(GPT2_END_OF_DOCUMENT)
    if (size, len(merges), last) != (GPT2_VOCAB_SIZE, GPT2_VOCAB_SIZE - 257, GPT2_VOCAB_SIZE - 1):
        raise BadInput(
            f"tokenizer.path {path}: {size} tokens, {len(merges)} merges and {GPT2_END_OF_DOCUMENT} as {last}, where "
            f"GPT-2 has {GPT2_VOCAB_SIZE}, {GPT2_VOCAB_SIZE - 257} and {GPT2_VOCAB_SIZE - 1}; give GPT-2's own files, "
            "or use tokenizer.kind file"
        )
