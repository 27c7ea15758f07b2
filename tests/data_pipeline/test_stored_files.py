"""What is said of stored files that are not as they were written, and of those that may be."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.config import Corrupt
from data_pipeline.manifest import read_manifest
from data_pipeline.stored_files import FileRecord, Problem, out_of_reach
from data_pipeline.text import TextConfig
from tests.data_pipeline.corpora import prepared_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> TextConfig:
    return prepared_text(tmp_path)


def test_a_file_out_of_reach_is_not_to_be_made_anew(tmp_path: Path) -> None:
    looped = tmp_path / "looped"
    looped.symlink_to(looped)
    problem = FileRecord.of(b"abc").problem(looped)
    assert problem is not None
    assert problem.kind == "out of reach"
    assert str(problem) == (
        f"{looped}: cannot be read ({os.strerror(errno.ELOOP)}); see that you may read it, and that its disk works"
    )
    denied = out_of_reach(looped, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    assert "Permission denied" in denied
    assert "prepare" not in denied


def test_what_may_not_be_read_is_neither_set_aside_nor_to_be_made_anew(config: TextConfig) -> None:
    first, second = config.manifest().splits["train"].shards[:2]
    denied, damaged = first.path(Path(config.directory), "tokens"), second.path(Path(config.directory), "tokens")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    denied.chmod(0)
    command = [sys.executable, str(ROOT / "launch.py"), "data", "verify", config.directory, "--set-aside"]
    done = subprocess.run([*as_any_user(), *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done
    assert f"{denied}: cannot be read (Permission denied); see that you may read it" in done.stderr
    assert denied.exists()
    assert not damaged.exists()


def test_a_shard_whose_disk_fails_is_not_set_aside(config: TextConfig) -> None:
    """This file can be opened, and reading it is an EIO: so it is of /proc/self/mem, at 0, for root too."""
    failing = Path("/proc/self/mem")
    if not failing.exists():
        pytest.skip("needs a file whose reading fails: Linux has one")
    directory = Path(config.directory)
    first, second = config.manifest().splits["train"].shards[:2]
    path, damaged = first.path(directory, "tokens"), second.path(directory, "tokens")
    size = first.files["tokens"].num_bytes
    manifest = directory / "manifest.json"
    text = manifest.read_text().replace(f'"num_bytes": {size},', '"num_bytes": 0,')  # as that file is said to have
    manifest.write_text(text)
    path.unlink()
    path.symlink_to(failing)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    command = [sys.executable, str(ROOT / "launch.py"), "data", "verify", config.directory, "--set-aside"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done
    assert (
        f"{path}: cannot be read ({os.strerror(errno.EIO)}); see that you may read it, and that its disk" in done.stderr
    )
    assert path.is_symlink()
    assert not damaged.exists()


def as_any_user() -> list[str]:
    """Before a command: without root's right to read whatever it likes."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("this process may read everything, and there is no setpriv to give that up")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", "--bounding-set", rights, "--inh-caps", rights]


def test_the_remedy_names_the_directory_to_verify(config: TextConfig) -> None:
    """Of a file of the right size, which preparing alone would leave as it is."""
    shard = config.manifest().splits["train"].shards[0]
    path = shard.path(Path(config.directory), "offsets")
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(8))
    told = f"`launch.py data verify {config.directory} --set-aside`, then `launch.py prepare` makes it anew"
    with pytest.raises(Corrupt) as damaged:
        config.shards()
    assert str(damaged.value) == f"{path}: its content is not what was written; {told}"
    assert shard.files["offsets"].problem(path) == Problem("damage", str(damaged.value))
    path.write_bytes(bytes(8) + content[8:])
    with pytest.raises(Corrupt, match=r"offsets\.npy: cannot be read .*--set-aside"):
        config.shards()


def test_a_broken_manifest_is_told_in_a_line(config: TextConfig) -> None:
    path = Path(config.directory, "manifest.json")
    path.write_text(path.read_text().replace("sha256", "sha"))
    with pytest.raises(Corrupt) as broken:
        read_manifest(Path(config.directory))
    assert "\n" not in str(broken.value)
    assert "https://" not in str(broken.value)
    assert "splits.train.shards.0.files.tokens.sha256: Field required, and " in str(broken.value)
