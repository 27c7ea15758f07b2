"""A batch as the model sees it, in words: where its documents begin, what is not scored, which source a row is of.

Shape legend: R rows, L positions, T steps of time, K keys.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from rich.text import Text

from data_pipeline.batch import IGNORED, Batch, PairBatch, TokenBatch
from data_pipeline.data import DataConfig
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.music import note_name
from data_pipeline.media.music_data import MusicConfig
from data_pipeline.mixture import MixtureConfig
from data_pipeline.pair_data import PairData
from data_pipeline.prepared_text import PreparedText
from data_pipeline.streams.mixtures import source_of

MOST_STEPS = 16
"""Of music, a line each."""

Decode = Callable[[Sequence[int]], str]


def decoder(data: DataConfig) -> Decode:
    """From ids to text; ids stay numbers where they were never text."""
    if isinstance(data, PreparedText) or (isinstance(data, MixtureConfig) and data.texts()):
        return data.load_tokenizer().decode
    if isinstance(data, PairData):
        return data.text
    return lambda ids: " ".join(map(str, ids))


def batch_lines(batch: Batch, data: DataConfig, *, rows: int) -> Iterator[Text]:
    """The first rows, a few lines each."""
    decode = decoder(data)
    for row in range(min(rows, batch.rows)):
        yield Text(f"row {row}: {row_name(int(batch.sample_ids[row]), data)}", style="bold")
        if isinstance(batch, TokenBatch):
            yield from _stretches(batch, row, decode)
        elif isinstance(batch, PairBatch):
            yield from _pair(batch, row, decode)
        else:
            values = batch.values[row]
            label = int(batch.labels[row])
            said = "no class" if label == IGNORED else _class_name(label, data)
            yield Text(f"  {said}; {len(values)} values, {float(values.min()):.3g} to {float(values.max()):.3g}")
            if isinstance(data, MusicConfig):
                yield from _notes(values.numpy().reshape(data.shape[1:]))


def _class_name(label: int, data: DataConfig) -> str:
    name = data.corpus.classes[label] if isinstance(data, MediaData) and data.corpus.classes else str(label)
    return f"class {label}" if name == str(label) else f"class {label} ({name})"


def _notes(roll_TK: np.ndarray) -> Iterator[Text]:
    """What sounds at each of the first steps."""
    for step, keys_K in enumerate(roll_TK[:MOST_STEPS]):
        sounding = " ".join(note_name(int(key)) for key in np.flatnonzero(keys_K))
        yield Text(f"  step {step}: {sounding or 'silence'}")
    if len(roll_TK) > MOST_STEPS:
        yield Text(f"  and {len(roll_TK) - MOST_STEPS:,} more steps", style="dim")


def row_name(sample_id: int, data: DataConfig) -> str:
    """What an id tells."""
    if not isinstance(data, MixtureConfig):
        return f"sample {sample_id}"
    source, number = source_of(sample_id)
    return f"row {number:,} of the source {list(data.named())[source]}"


def stretches(age_L: np.ndarray) -> list[tuple[int, int]]:
    """From where to where positions belong together: each begins where memory begins anew.

    >>> stretches(np.array([3, 4, 0, 1, 0]))
    [(0, 2), (2, 4), (4, 5)]
    """
    begins = np.flatnonzero(np.concatenate([[True], np.diff(age_L) != 1]))
    return list(pairwise([*begins.tolist(), len(age_L)]))


def _stretches(batch: TokenBatch, row: int, decode: Decode) -> Iterator[Text]:
    inputs, labels, ages = (part[row].numpy() for part in (batch.inputs, batch.labels, batch.age))
    used = len(ages) - _padding(labels, ages)
    for begin, end in stretches(ages[:used]):
        how = (f"  goes on, sees {ages[begin]:,} back  ", "cyan") if ages[begin] else ("  begins anew  ", "green")
        yield Text.assemble(how, repr(decode(inputs[begin:end].tolist())))
    ignored = int((labels[:used] == IGNORED).sum())
    if ignored:
        yield Text(f"  {ignored} labels are not scored", style="dim")
    if used < len(ages):
        yield Text(f"  {len(ages) - used} positions of padding", style="dim")


def _padding(labels: np.ndarray, ages: np.ndarray) -> int:
    """Positions at the end that see themselves alone and are not scored."""
    is_token = (labels != IGNORED) | (ages > 0)
    return len(ages) - int(np.flatnonzero(is_token)[-1]) - 1 if is_token.any() else 0


def _pair(batch: PairBatch, row: int, decode: Decode) -> Iterator[Text]:
    source = batch.sources[row, : int(batch.source_lengths[row])].tolist()
    target = [token for token in batch.labels[row].tolist() if token != IGNORED][:-1]
    yield Text.assemble(("  source  ", "cyan"), repr(decode(source)))
    yield Text.assemble(("  target  ", "green"), repr(decode(target)))
