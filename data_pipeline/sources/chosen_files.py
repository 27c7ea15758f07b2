"""The files of a corpus that a field of its recipe names: by name or glob, of text and of media alike."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from data_pipeline.config import BadInput
from data_pipeline.redaction import redact
from data_pipeline.sources.folder import Folder


def check_exists(directory: str, folder: Folder) -> None:
    """BadInput if there is no such folder."""
    if not folder.exists():
        raise BadInput(f"corpus.directory {directory}: no such directory; give the one that holds the files")


def chosen_files(folder: Folder, field: str, patterns: Iterable[str], *, example: str) -> dict[str, int]:
    """The size of each file in bytes, by name and in order; `example` is a glob for who wrote none.

    BadInput for a name or glob that leaves the folder, is none, matches nothing or cannot be looked for, and for a file
    whose name is not UTF-8: it is part of ids, which are written in it.
    """
    sizes: dict[str, int] = {}
    for pattern in patterns:
        if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
            raise BadInput(f"corpus.{field} {pattern}: must be relative to corpus.directory, and within it")
        try:
            found = folder.matching(pattern)
        except OSError as error:
            raise BadInput(
                f"corpus.directory {folder.shown}: cannot be reached ({redact(str(error))}); see that it is there, "
                f"and may be read, or name files elsewhere in corpus.{field}"
            ) from None
        except BadInput:
            raise
        except ValueError as error:
            raise BadInput(f"corpus.{field} {pattern}: is no glob ({error}); write one such as {example}") from None
        if not found:
            raise BadInput(f"corpus.{field} {pattern}: no such file in {folder.shown}; correct the path or glob")
        sizes |= found
    for name in sizes:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise BadInput(f"corpus.{field}: the name {name!a} in {folder.shown} is not UTF-8; rename the file")
    return dict(sorted(sizes.items()))
