"""Symbolic music as it is stored: which of a piano's 88 keys sound at each step of a time grid.

MIDI and ABC are read by symusic (ABC by its abc2midi); JSON has lists of pieces, each a list of steps, each a list of
MIDI note numbers, as the chorales of Boulanger-Lewandowski et al. 2012 are published. In MIDI a note sounds from the
step nearest to its begin until the one nearest to its end, one step at least; drums are left out.

Legend: T steps, K keys, N notes.
"""

import io
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field

from data_pipeline.archives.decompression import DAMAGE, CutOff, ExpandsTooFar, decompressed
from data_pipeline.arrays import npy_array, npy_bytes
from data_pipeline.config import Config
from data_pipeline.media.abc_tunes import abc_to_midi, tunes_in
from data_pipeline.media.item import Caps, Entry, Stored, Unfit
from data_pipeline.media.libraries import library

KEYS = 88
LOWEST = 21
"""The MIDI note number of a piano's lowest key, A0."""
Form = Literal["roll", "notes"]
"""[T, K] of zeros and ones; or [N, 3] of begin, key and steps of each note: small where much time passes."""
TONES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SILENT = (-1,)
"""What stands for no note of a voice in a step."""


class MusicConverter(Config):
    """MIDI, ABC and JSON to rolls of 88 keys or to sets of notes."""

    kind: Literal["music"] = "music"
    steps_per_quarter: int = Field(default=4, gt=0)
    """Of MIDI and ABC; JSON has steps of its own."""
    form: Form = "roll"
    outside: Literal["drop_notes", "unfit"] = "drop_notes"
    """Notes that no piano has are left out; or the piece is."""

    @property
    def endings(self) -> tuple[str, ...]:
        return (".mid", ".midi", ".abc", ".json", ".json.gz")

    @property
    def suffix(self) -> str:
        return "npy"

    def parts(self, entry: Entry, caps: Caps) -> list[Entry]:
        assert isinstance(entry.content, bytes), "arrays are images"
        name = entry.name.lower()
        if name.endswith((".mid", ".midi")):
            return [entry]
        found = tunes_in(entry.content) if name.endswith(".abc") else json_pieces(entry.content, caps)
        return [Entry(f"{entry.name}#{key}", content) for key, content in found]

    def convert(self, entry: Entry, caps: Caps) -> Stored:
        notes_N3, steps = self._notes(entry, caps)
        if len(notes_N3) > caps.notes:
            raise Unfit("too_many_notes", f"{len(notes_N3):,} notes, more than {caps.notes:,}")
        if steps > caps.steps:
            raise Unfit("too_long", f"{steps:,} steps, more than {caps.steps:,}")
        on_piano_N = (notes_N3[:, 1] >= 0) & (notes_N3[:, 1] < KEYS)
        outside = int((~on_piano_N).sum())
        if outside and self.outside == "unfit":
            raise Unfit("outside_keys", f"{outside:,} notes below {LOWEST} or above {LOWEST + KEYS - 1}")
        notes_N3 = notes_N3[on_piano_N]
        if not len(notes_N3):
            raise Unfit("silent", "there is no note of a piano in it")
        roll_TK = roll_of(notes_N3, steps)
        stored = roll_TK if self.form == "roll" else notes_of(roll_TK)
        return Stored(npy_bytes(stored), steps, {"notes": len(notes_N3), "outside_keys": outside, "steps": steps})

    def _notes(self, entry: Entry, caps: Caps) -> tuple[np.ndarray, int]:
        """int64 [N, 3], and the number of steps."""
        assert isinstance(entry.content, bytes), "arrays are images"
        name = entry.name.lower()
        if name.endswith((".mid", ".midi")):
            return midi_notes(entry.content, self.steps_per_quarter, caps)
        if ".abc#" in name:
            return midi_notes(abc_to_midi(entry.content), self.steps_per_quarter, caps)
        return json_notes(entry.content, caps)


def midi_notes(content: bytes, steps_per_quarter: int, caps: Caps) -> tuple[np.ndarray, int]:
    """int64 [N, 3], and the step that ends the last; Unfit where it is no MIDI or too large."""
    try:
        score = library("symusic").Score.from_midi(content)
    except (RuntimeError, ValueError) as error:
        raise Unfit("broken", str(error)) from error
    tracks = [track for track in score.tracks if not track.is_drum]
    if sum(len(track.notes) for track in tracks) > caps.notes:
        raise Unfit("too_many_notes", f"more than {caps.notes:,} notes")
    if not any(len(track.notes) for track in tracks) or score.ticks_per_quarter <= 0:
        raise Unfit("silent", "there is no note in it")
    columns = [track.notes.numpy() for track in tracks]
    begin_N, length_N, pitch_N = (
        np.concatenate([one[name] for one in columns]).astype(np.int64) for name in ("time", "duration", "pitch")
    )
    ticks = score.ticks_per_quarter
    start_N, stop_N = (
        (2 * place * steps_per_quarter + ticks) // (2 * ticks) for place in (begin_N, begin_N + length_N)
    )
    stop_N = np.maximum(stop_N, start_N + 1)
    return np.stack([start_N, pitch_N - LOWEST, stop_N - start_N], axis=1), int(stop_N.max())


def json_pieces(content: bytes, caps: Caps) -> Iterator[tuple[str, bytes]]:
    """(key, JSON of its steps) of each piece in {group: [piece, ...]} or [piece, ...]; Unfit for anything else."""
    try:
        if content[:2] == b"\x1f\x8b":
            with decompressed(io.BytesIO(content), "packed.json.gz", caps.expansion) as stream:
                content = stream.read()
        whole: Any = json.loads(content)
    except ExpandsTooFar as error:
        raise Unfit("expands_too_far", str(error)) from error
    except (OSError, ValueError, RecursionError, *DAMAGE) as error:
        raise Unfit("cut_off" if isinstance(error, CutOff) else "broken", f"no JSON ({error})") from error
    groups = whole if isinstance(whole, dict) else {"": whole}
    if not all(isinstance(pieces, list) for pieces in groups.values()):
        raise Unfit("broken", "no list of pieces, nor an object of such lists")
    for group, pieces in groups.items():
        prefix = re.sub(r"[^\w-]", "_", group) + "/" if group else ""
        for number, piece in enumerate(pieces):
            yield f"{prefix}{number:04d}", json.dumps(piece).encode()


def json_notes(content: bytes, caps: Caps) -> tuple[np.ndarray, int]:
    """int64 [N, 3] of notes of one step, and the number of steps."""
    steps = json.loads(content)
    if not isinstance(steps, list) or not all(isinstance(step, list) for step in steps):
        raise Unfit("broken", "a piece is a list of steps, a step a list of MIDI note numbers")
    if len(steps) > caps.steps or sum(map(len, steps)) > caps.notes:
        raise Unfit("too_long", f"{len(steps):,} steps with {sum(map(len, steps)):,} notes")
    notes = []
    for place, step in enumerate(steps):
        for pitch in step:
            if isinstance(pitch, float) and math.isnan(pitch):
                continue
            if isinstance(pitch, bool) or not isinstance(pitch, int | float) or pitch != int(pitch):
                raise Unfit("broken", f"step {place} has {pitch!r}, no MIDI note number")
            if pitch not in SILENT:
                notes.append((place, int(pitch) - LOWEST, 1))
    return np.array(notes, dtype=np.int64).reshape(-1, 3), len(steps)


def note_name(key: int) -> str:
    """Of a piano's key, from 0 on, in scientific pitch notation.

    >>> [note_name(key) for key in (0, 39, 49, 87)]
    ['A0', 'C4', 'A#4', 'C8']
    """
    octave, tone = divmod(LOWEST + key, len(TONES))
    return f"{TONES[tone]}{octave - 1}"


def roll_of(notes_N3: np.ndarray, steps: int) -> np.ndarray:
    """uint8 [T, K]: ones where a key sounds."""
    roll_TK = np.zeros((steps, KEYS), dtype=np.uint8)
    for start, key, length in notes_N3.tolist():
        roll_TK[start : start + length, key] = 1
    return roll_TK


def notes_of(roll_TK: np.ndarray) -> np.ndarray:
    """int32 [N, 3], by begin and then key: each stretch in which a key sounds without a break."""
    change_TK = np.diff(roll_TK.astype(np.int8), axis=0, prepend=0, append=0)
    key_N, start_N = np.nonzero(change_TK.T == 1)
    _, stop_N = np.nonzero(change_TK.T == -1)
    order_N = np.lexsort((key_N, start_N))
    return np.stack([start_N, key_N, stop_N - start_N], axis=1)[order_N].astype("<i4")


def decode_music(content: bytes, form: Form, steps: int) -> np.ndarray:
    """uint8 [T, K]; ValueError where it is none."""
    array = npy_array(content)
    return array if form == "roll" else roll_of(array, steps)
