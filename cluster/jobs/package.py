"""The code that a job takes along: one zip, the same for the same files, and what is known of where they come from."""

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from data_pipeline.config import BadInput

CODE = ("launch.py", "pretrain", "kernels", "data_pipeline", "cluster", "evals")
"""What is packed of an installation without git."""
MOST_BYTES = 100 * 2**20
"""Ray keeps packages in the memory of the cluster's head."""
MOST_NEW_BYTES = 2**20
"""A new file that is larger is recorded by its name alone."""
NAMED = 3
"""So many of the largest files are named where the code is too large."""
GIT_SECONDS = 20.0
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of every file in the zip: equal contents make equal zips."""
PRIVATE = (".env", ".env.*", ".netrc", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", "credentials*")
"""Names of files that hold secrets: where they are not in the commit, they are not sent."""


@dataclass(frozen=True, slots=True)
class Revision:
    """Which state of the code it is, where git knows."""

    commit: str | None = None
    dirty: bool = False
    """Whether files differ from the commit, or are not in it."""
    patch: str = ""
    """How the files differ from those of the commit, new ones included."""


@dataclass(frozen=True, slots=True)
class Package:
    """A zip of code."""

    path: Path
    files: int
    num_bytes: int
    """Of the zip."""
    digest: str
    """Of the code, without what only this job takes along: the same code has the same."""


def pack(root: Path, extra: Mapping[str, bytes], into: Path) -> Package:
    """Zip the code below `root`, without what git ignores, and the extra files (by name); BadInput where it is too
    large."""
    files = {path.relative_to(root).as_posix(): path for path in code_files(root)}
    check_size({name: path.stat().st_size for name, path in files.items()}, root)
    digest = hashlib.sha256()
    with ZipFile(into, "w", ZIP_DEFLATED) as archive:
        for name in sorted({*files, *extra}):
            content = extra[name] if name in extra else files[name].read_bytes()
            info = ZipInfo(name, EARLIEST)
            info.compress_type = ZIP_DEFLATED
            executable = name in files and files[name].stat().st_mode & 0o100
            info.external_attr = (0o755 if executable else 0o644) << 16
            archive.writestr(info, content)
            if name not in extra:
                digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return Package(into, len({*files, *extra}), into.stat().st_size, digest.hexdigest()[:16])


def check_size(sizes: Mapping[str, int], root: Path) -> None:
    """Raise BadInput, naming the largest files, where they are too large to be packed."""
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:NAMED]
        named = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise BadInput(
            f"the code in {root} is {total / 2**20:.0f} MiB, and {MOST_BYTES // 2**20} MiB may be sent; its largest "
            f"files are {named}; name what is no code in .gitignore"
        )


def code_files(root: Path) -> list[Path]:
    """All files that git does not ignore; without git, those of Segue's own packages. BadInput for a link to a file
    elsewhere: its content may be anything, and no part of the code."""
    found = list(_code_files(root))
    top = root.resolve()
    for path in found:
        if path.is_symlink() and not path.resolve().is_relative_to(top):
            raise BadInput(
                f"{path} is a link to {path.resolve()}, outside of the code, and would be sent with it; replace it by "
                "a copy, or name it in .gitignore"
            )
    return found


def _code_files(root: Path) -> list[Path]:
    if _is_checkout(root):
        refuse_private(root)
    listed = _git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z") if _is_checkout(root) else None
    if listed is not None:
        return [path for name in listed.split("\0") if name and (path := root / name).is_file()]
    return [path for name in CODE for path in _below(root / name)]


def refuse_private(root: Path) -> None:
    """Raise BadInput for a file that git neither has nor ignores, and whose name says that it holds a secret."""
    others = _git(root, "ls-files", "--others", "--exclude-standard", "-z") or ""
    for name in filter(None, others.split("\0")):
        if any(fnmatch(Path(name).name, pattern) for pattern in PRIVATE):
            raise BadInput(
                f"{root / name}: by its name it holds a secret, and it would be sent with the code; name it in "
                ".gitignore, or, if it holds none, commit it"
            )


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (found for found in sorted(path.rglob("*")) if found.is_file() and "__pycache__" not in found.parts)


def revision(root: Path) -> Revision:
    """The commit, and how the files differ from it."""
    if not _is_checkout(root):
        return Revision()
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    patch = _git(root, "diff", "HEAD") if commit else None
    return Revision(
        commit.strip() if commit else None, bool(status and status.strip()), (patch or "") + _new_files(root)
    )


def _new_files(root: Path) -> str:
    """Those that git neither has nor ignores, as a patch that adds them; large ones and bytes by their names alone."""
    others = _git(root, "ls-files", "--others", "--exclude-standard", "-z") or ""
    added = []
    for name in filter(None, others.split("\0")):
        path = root / name
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.stat().st_size <= MOST_NEW_BYTES else None
        except (OSError, UnicodeDecodeError):
            lines = None
        head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
        if lines is None:
            added.append(f"{head}Binary files /dev/null and b/{name} differ\n")
        elif lines:
            body = "".join(f"+{line}\n" for line in lines)
            added.append(f"{head}--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{body}")
        else:
            added.append(head)
    return "".join(added)


def _is_checkout(root: Path) -> bool:
    """Whether this is the top of a git checkout, not a folder of another project's."""
    top = _git(root, "rev-parse", "--show-toplevel")
    return top is not None and Path(top.strip()) == root.resolve()


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, or None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
