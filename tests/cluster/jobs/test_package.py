"""What of the code a job takes along."""

import os
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

from cluster.jobs import package
from cluster.jobs.package import code_files, pack, revision
from data_pipeline.config import BadInput

IDENTITY = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", root, *IDENTITY, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit of two files, and beside them one that is not in it and one that git ignores."""
    root = tmp_path / "checkout"
    (root / "cluster").mkdir(parents=True)
    (root / "cluster" / "a.py").write_text("a = 1\n")
    (root / "run.sh").write_text("exit 0\n")
    (root / "run.sh").chmod(0o755)
    (root / ".gitignore").write_text("data/\n*.log\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    (root / "data").mkdir()
    (root / "data" / "large").write_text("never packed")
    (root / "x.log").write_text("never packed")
    return root


def names(path: Path) -> set[str]:
    with ZipFile(path) as archive:
        return set(archive.namelist())


def test_all_that_git_does_not_ignore_and_the_jobs_own_files(checkout: Path, tmp_path: Path) -> None:
    (checkout / "new.py").write_text("b = 2\n")
    packed = pack(checkout, {"job/recipe.yaml": b"name: x\n"}, tmp_path / "code.zip")
    assert names(packed.path) == {".gitignore", "cluster/a.py", "run.sh", "new.py", "job/recipe.yaml"}
    assert packed.files == 5
    assert packed.num_bytes == packed.path.stat().st_size
    with ZipFile(packed.path) as archive:
        assert archive.read("job/recipe.yaml") == b"name: x\n"
        assert [archive.getinfo(name).external_attr >> 16 for name in ("run.sh", "new.py")] == [0o755, 0o644]


def test_a_file_that_was_removed_is_not_packed(checkout: Path) -> None:
    (checkout / "cluster" / "a.py").unlink()
    assert {path.name for path in code_files(checkout)} == {".gitignore", "run.sh"}


def test_a_link_to_a_file_elsewhere_is_not_followed(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("not to be sent")
    (checkout / "inside").symlink_to("run.sh")
    assert checkout / "inside" in code_files(checkout)
    (checkout / "outside").symlink_to(tmp_path / "private")
    with pytest.raises(BadInput, match=r"outside is a link to .*private, outside of the code"):
        pack(checkout, {}, tmp_path / "code.zip")
    assert not (tmp_path / "code.zip").exists()


def test_equal_code_makes_equal_zips_whenever_it_was_written(checkout: Path, tmp_path: Path) -> None:
    first = pack(checkout, {}, tmp_path / "first.zip")
    os.utime(checkout / "run.sh", (1, 1))
    second = pack(checkout, {}, tmp_path / "second.zip")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.digest == second.digest == pack(checkout, {"job/id": b"another"}, tmp_path / "other.zip").digest
    (checkout / "run.sh").write_text("exit 1\n")
    assert pack(checkout, {}, tmp_path / "third.zip").digest != first.digest


def test_a_dirty_tree_is_recorded_with_what_has_changed(checkout: Path) -> None:
    clean = revision(checkout)
    assert (clean.dirty, clean.patch) == (False, "")
    assert clean.commit is not None
    assert len(clean.commit) == 40
    (checkout / "new.py").write_text("b = 2\n")
    assert revision(checkout).dirty
    (checkout / "cluster" / "a.py").write_text("a = 3\n")
    changed = revision(checkout)
    assert changed.commit == clean.commit
    assert "-a = 1\n+a = 3\n" in changed.patch


def test_without_git_only_the_packages_of_segue(tmp_path: Path) -> None:
    """An installation lies among those of others."""
    for name in ("launch.py", "cluster/a.py", "cluster/__pycache__/a.pyc", "torch/b.py", "pretrain/recipes/r.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    found = {path.relative_to(tmp_path).as_posix() for path in code_files(tmp_path)}
    assert found == {"launch.py", "cluster/a.py", "pretrain/recipes/r.yaml"}
    assert revision(tmp_path) == package.Revision()


def test_a_folder_of_another_checkout_is_no_checkout(checkout: Path) -> None:
    """Segue installed in an environment that lies in somebody's project."""
    assert revision(checkout / "cluster").commit is None


@pytest.mark.parametrize("name", [".env", "cluster/id_rsa", "server.pem"])
def test_a_file_that_is_named_like_a_secret_is_not_sent(checkout: Path, name: str) -> None:
    (checkout / name).write_text("SECRET")
    with pytest.raises(BadInput, match=r"by its name it holds a secret, .* name it in \.gitignore"):
        code_files(checkout)
    with (checkout / ".gitignore").open("a") as ignored:
        ignored.write(f"{name}\n")
    assert name not in {path.relative_to(checkout).as_posix() for path in code_files(checkout)}


def test_too_large_code_is_refused_with_its_largest_files(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "weights.bin").write_bytes(bytes(3 * 2**20))
    (checkout / "small.bin").write_bytes(bytes(2**19))
    monkeypatch.setattr(package, "MOST_BYTES", 2 * 2**20)
    with pytest.raises(BadInput, match=r"is 4 MiB, and 2 MiB may be sent; .* weights\.bin \(3\.0 MiB\), small\.bin"):
        pack(checkout, {}, tmp_path / "code.zip")
    assert not (tmp_path / "code.zip").exists()
