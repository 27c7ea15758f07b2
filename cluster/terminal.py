"""The terminal: standard output and error, on which a message keeps its lines whatever their length."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 160
"""Of tables where there is no terminal."""


def console(*, stderr: bool = False) -> "Console":
    """Standard output, or error."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDTH)


def say(line: str) -> None:
    """One line on standard output."""
    console().print(line, soft_wrap=True, highlight=False, markup=False)


def say_error(message: str) -> None:
    """One message on standard error."""
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True, highlight=False)


def write_text(path: Path, option: str, text: str) -> None:
    """Raises BadInput, naming the option, where the file cannot be written."""
    from data_pipeline.config import BadInput

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{option} {path}: cannot be written: {error.strerror}") from error
