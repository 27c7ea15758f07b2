"""Tunes in ABC notation (https://abcnotation.com/wiki/abc:standard:v2.1), one by one through symusic's abc2midi.

It is a program of its own: it gets one tune in a directory of its own, an end in time, and no directive that would have
it read another file.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.media.item import Unfit
from data_pipeline.media.libraries import library

SECONDS = 20
"""For one tune; a whole book takes less."""
MOST_MIDI = 1 << 24
"""Bytes of what comes out of a tune, whose repeats can be nested."""
INCLUDES = re.compile(rb"^(%%|I:)\s*abc-include", re.MULTILINE | re.IGNORECASE)
BEGIN = re.compile(rb"^X:", re.MULTILINE)


def tunes_in(content: bytes) -> Iterator[tuple[str, bytes]]:
    """(number in the book, its text) of each; the lines before the first belong to all. Unfit where there is none."""
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    begins = [found.start() for found in BEGIN.finditer(content)]
    if not begins:
        raise Unfit("broken" if content.strip() else "empty", "there is no tune in it, which begins with X:")
    header = content[: begins[0]]
    for number, (begin, end) in enumerate(zip(begins, [*begins[1:], len(content)], strict=True)):
        yield f"{number:04d}", header + content[begin:end]


def abc_to_midi(tune: bytes) -> bytes:
    """Unfit where the program cannot read it."""
    if INCLUDES.search(tune):
        raise Unfit("broken", "it has the directive abc-include, and no other file is read")
    program = Path(library("symusic").__file__).parent / "bin" / "abc2midi"
    with tempfile.TemporaryDirectory(prefix="segue-abc-") as folder:
        source, made = Path(folder, "tune.abc"), Path(folder, "tune.mid")
        source.write_bytes(tune)
        command = [str(program), source.name, "-o", made.name, "-silent"]
        limited = {"PATH": os.defpath}
        try:
            subprocess.run(command, cwd=folder, env=limited, timeout=SECONDS, capture_output=True, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unfit("broken", f"abc2midi was not done after {SECONDS} seconds") from error
        if not made.is_file():
            raise Unfit("broken", "abc2midi could make nothing of it")
        if made.stat().st_size > MOST_MIDI:
            raise Unfit("expands_too_far", f"abc2midi made {made.stat().st_size:,} bytes of it")
        return made.read_bytes()
