"""Files as they were written, of token shards and of media alike: what is recorded of them, and whether they still are
so: by size whenever they are opened, by every byte when that is asked for."""

import abc
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from data_pipeline.config import BadInput, Config, Corrupt

SHARD_FOLDER = "shards"
BLOCK = 1 << 22
REMEDY = "run `launch.py prepare` again"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file."""

    kind: Literal["missing", "out of reach", "damage"]
    """Only of damage it is known that the file is not what was written: what is out of reach may be whole."""
    message: str

    def __str__(self) -> str:
        return self.message


class FileRecord(Config):
    """One file as it was written."""

    num_bytes: int = Field(ge=0)
    sha256: Sha256

    @classmethod
    def of(cls, content: bytes) -> "FileRecord":
        return cls(num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def size_problem(self, path: Path) -> Problem | None:
        """Whether a file is missing or has another size, without reading it."""
        try:
            found = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return Problem("missing", f"{path}: is missing; {REMEDY}")
        except OSError as error:
            return Problem("out of reach", out_of_reach(path, error))
        if found != self.num_bytes:
            return Problem("damage", f"{path}: has {found} bytes, but {self.num_bytes} were written; {REMEDY}")
        return None

    def problem(self, path: Path, see: Callable[[int], None] = lambda _: None) -> Problem | None:
        """What is wrong with a file, by every byte, or None; `see` is told of the bytes as they are read."""
        problem = self.size_problem(path)
        if problem is not None:
            return problem
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
                    see(len(block))
        except OSError as error:
            return Problem("out of reach", out_of_reach(path, error))
        if digest.hexdigest() != self.sha256:
            return Problem("damage", other_content(path))
        return None


class StoredShard(Config, abc.ABC):
    """The files of some consecutive documents or items of one split."""

    name: str = Field(pattern=r"^[a-z]+-\d{5,}-\d{3,}$")
    """Split, piece of the corpus, part of the piece."""

    @abc.abstractmethod
    def stored(self, directory: Path) -> Iterator[tuple[Path, FileRecord]]:
        """Each file, and what was written of it."""

    def check_sizes(self, directory: Path) -> None:
        """Corrupt, naming the file, if one is missing or has another size."""
        for path, record in self.stored(directory):
            _refuse(record.size_problem(path))

    def check_content(self, directory: Path) -> None:
        """Corrupt, naming the file, if one is not what was written, by every byte."""
        for path, record in self.stored(directory):
            _refuse(record.problem(path))


class StoredManifest(Config, abc.ABC):
    """What is recorded last of a finished directory."""

    format_version: int
    config: dict[str, Any]
    """What it was prepared with: the corpus, what is done with it, and shard_bytes."""
    listing: Sha256
    """Over the names and sizes of the corpus's files."""
    source: Sha256
    """Over the ids and contents of all documents or items."""

    @abc.abstractmethod
    def shards(self) -> Iterator[StoredShard]:
        """Of all splits."""

    def files(self, directory: Path) -> Iterator[tuple[Path, FileRecord]]:
        """Every file of the shards, and what was written of it."""
        for shard in self.shards():
            yield from shard.stored(directory)

    def check_sizes(self, directory: Path) -> None:
        """Corrupt, naming the file, if one is missing or has another size."""
        for shard in self.shards():
            shard.check_sizes(directory)


Stored = TypeVar("Stored", bound=StoredManifest)


def read_stored(path: Path, kind: type[Stored], *, version: int, what: str) -> Stored:
    """A manifest of this kind; BadInput if there is none or it is of another version, Corrupt if it cannot be
    understood."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(
            f"data.directory {path.parent}: holds no prepared {what}; run `launch.py prepare` first"
        ) from error
    except OSError as error:
        raise Corrupt(out_of_reach(path, error)) from error
    except UnicodeDecodeError as error:
        raise Corrupt(f"{path}: cannot be read ({error}); restore it, or prepare the data anew") from error
    try:
        manifest = kind.model_validate_json(text)
    except ValidationError as error:
        raise Corrupt(
            f"{path}: not a manifest ({first_problem(error)}); restore it, or prepare the data anew"
        ) from error
    if manifest.format_version != version:
        raise BadInput(
            f"{path}: format_version {manifest.format_version}, but this version of Segue reads {version}; "
            "prepare the data anew in another directory"
        )
    return manifest


def out_of_reach(path: Path, error: OSError) -> str:
    """What to say of a file that may be whole: nothing is to be made anew."""
    return f"{path}: cannot be read ({error.strerror or error}); see that you may read it, and that its disk works"


def other_content(path: Path, what: str = "its content is not what was written") -> str:
    """What to say of a shard's file of the right size: preparing alone would leave it as it is."""
    return f"{path}: {what}; {remedy_of_content(path)}"


def remedy_of_content(path: Path) -> str:
    """Of a file in the folder of shards."""
    return f"`launch.py data verify {path.parent.parent} --set-aside`, then `launch.py prepare` makes it anew"


def first_problem(error: ValidationError) -> str:
    """Where a record is not as it should be, without what pydantic says besides."""
    first, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(map(str, first["loc"]))
    told = f"{place}: {first['msg']}" if place else first["msg"]
    return f"{told}, and {len(others)} more" if others else told


def _refuse(problem: Problem | None) -> None:
    if problem is not None:
        raise Corrupt(str(problem))
