"""The terminal: standard output and error, on which a message keeps its lines and no secret shows."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from data_pipeline.redaction import RedactedStream, redact

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80
"""Of tables where there is no terminal."""


def console(*, stderr: bool = False) -> "Console":
    """Standard output, or error."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    file = stream if isinstance(stream, RedactedStream) else RedactedStream(stream)
    return Console(file=cast(TextIO, file), width=None if stream.isatty() else WIDTH)


def say(line: str) -> None:
    """One line on standard output."""
    console().print(line, soft_wrap=True, highlight=False, markup=False)


def say_error(message: str) -> None:
    """One message on standard error."""
    _say_on_stderr("error: ", "bold red", message)


def say_stopped(message: str) -> None:
    """That a run ended as it was asked to: on standard error, but no error."""
    _say_on_stderr("stopped: ", "bold", message.removeprefix("stopped "))


def _say_on_stderr(word: str, style: str, message: str) -> None:
    from rich.text import Text

    text = Text.assemble((word, style), redact(message))
    console(stderr=True).print(text, soft_wrap=True, highlight=False)


def refuse_options(options: Mapping[str, object], why: str) -> None:
    """Raise BadInput for the first option, by name, that was given (is not None); `why` has rule and remedy."""
    from data_pipeline.config import BadInput

    for name, value in options.items():
        if value is not None:
            raise BadInput(f"{name}: {why}")


def check_writable(path: Path, option: str, *, make_directory: bool = False) -> None:
    """Raise BadInput, naming the option, where a file cannot be written; to be called before long work.

    `make_directory`: its directory need not be there yet.
    """
    from data_pipeline.config import BadInput

    directory = path.parent
    if make_directory:
        directory = next(above for above in (directory, *directory.absolute().parents) if above.exists())
    problem = None
    if path.is_dir():
        problem = "it is a directory"
    elif not directory.is_dir():
        problem = f"{directory} is {'a file' if directory.exists() else 'not there'}"
    elif not os.access(path if path.exists() else directory, os.W_OK):
        problem = "it may not be written"
    if problem:
        raise BadInput(f"{option} {path}: cannot be written: {problem}; choose another file")


def write_text(path: Path, option: str, text: str) -> None:
    """Raises BadInput, naming the option, where the file cannot be written."""
    from data_pipeline.config import BadInput

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{option} {path}: cannot be written: {error.strerror}") from error
