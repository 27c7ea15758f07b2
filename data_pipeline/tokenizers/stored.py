"""Reading back a tokenizer that `Tokenizer.save` wrote."""

import json
from pathlib import Path

from data_pipeline.config import BadInput, Corrupt
from data_pipeline.tokenizers.byte import ByteTokenizer
from data_pipeline.tokenizers.byte_pairs import BytePairTokenizer
from data_pipeline.tokenizers.characters import CharacterTokenizer
from data_pipeline.tokenizers.tokenizer import SETTINGS_FILE, VOCABULARY_FILE, Tokenizer
from data_pipeline.tokenizers.word import WordTokenizer

READERS: dict[str, type[Tokenizer]] = {
    "byte": ByteTokenizer,
    "word": WordTokenizer,
    "bpe": BytePairTokenizer,
    "unigram": BytePairTokenizer,
    "gpt2": BytePairTokenizer,
    "file": BytePairTokenizer,
    "char": CharacterTokenizer,
}


def load_tokenizer(directory: Path, expected_hash: str | None = None) -> Tokenizer:
    """BadInput if there is none; Corrupt if it cannot be read, or is not the one with the expected hash."""
    try:
        vocabulary = (directory / VOCABULARY_FILE).read_text(encoding="utf-8")
        settings = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
        tokenizer = parse_tokenizer(vocabulary, settings)
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: no tokenizer here; prepare the data with `launch.py prepare`") from error
    except (OSError, ValueError, KeyError, TypeError, BadInput) as error:
        raise Corrupt(
            f"{directory / VOCABULARY_FILE}: not a stored tokenizer ({error}); prepare the data anew"
        ) from error
    if expected_hash is not None and tokenizer.hash != expected_hash:
        raise Corrupt(
            f"{directory / VOCABULARY_FILE}: its hash is {tokenizer.hash}, but the shards were made with "
            f"{expected_hash}; restore the file, or prepare the data anew in another directory"
        )
    return tokenizer


def parse_tokenizer(vocabulary: str, settings: dict[str, str | int | bool]) -> Tokenizer:
    """From the content of the two files; ValueError, KeyError, TypeError or BadInput if it is not understood."""
    return READERS[str(settings["kind"])].parse(vocabulary, settings)
