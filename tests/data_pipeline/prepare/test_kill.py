"""Kill -9 in the middle of preparing: nothing is left running, and the same command finishes with the same bytes."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_pipeline.config import BadInput
from data_pipeline.prepare import LocalExecutor, prepare
from tests.data_pipeline.corpora import content_of, text_config, write_files

ROOT = Path(__file__).parents[3]

SCRIPT = """
import sys, pathlib
sys.path.insert(0, {root!r})
from data_pipeline.prepare import LocalExecutor, prepare
from tests.data_pipeline.corpora import text_config
def report(event):
    print(event.stage, event.done, flush=True)
if __name__ == "__main__":
    config = text_config(pathlib.Path({out!r}), pathlib.Path({corpus!r}))
    with LocalExecutor({workers}) as executor:
        prepare(config, executor=executor, report=report)
"""


def corpus_in(directory: Path) -> Path:
    """With files to leave out here and there, whose names are kept too."""
    corpus = write_files(directory, count=60)
    for number in range(5, 60, 10):
        (corpus / f"file-{number:03d}-wrong.txt").write_bytes(b"\xc3(" * 500)
    return corpus


def kill_at(line: str, *, out: Path, corpus: Path, workers: int) -> list[psutil.Process]:
    """Starts preparing, kills it with SIGKILL once it has printed `line`; its children at that moment."""
    code = SCRIPT.format(root=str(ROOT), out=str(out), corpus=str(corpus), workers=workers)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for printed in process.stdout:
            if printed.strip() == line:
                break
        else:
            pytest.fail(f"ended before {line!r}")
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    return children


def killed_at_random(out: Path, corpus: Path, random: np.random.Generator, kills: int) -> list[psutil.Process]:
    """Kills that many drivers, each with one to three workers, after so many lines or as soon as it may be."""
    children: list[psutil.Process] = []
    for kill in range(kills):
        code = SCRIPT.format(root=str(ROOT), out=str(out), corpus=str(corpus), workers=1 + kill % 3)
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(int(random.integers(0, 12))):
                process.stdout.readline()
            time.sleep(float(random.uniform(0.0, 0.02)))
            children += psutil.Process(process.pid).children(recursive=True)
            process.kill()
    return children


@pytest.mark.slow
def test_ten_kills_at_random_end_in_the_same_bytes(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    with LocalExecutor(1) as executor:
        prepare(text_config(tmp_path / "whole", corpus), executor=executor, report=lambda _: None)
    children = killed_at_random(tmp_path / "out", corpus, np.random.default_rng(7), kills=10)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    with LocalExecutor(3) as executor:
        prepare(text_config(tmp_path / "out", corpus), executor=executor, report=lambda _: None)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


@pytest.mark.parametrize(("line", "workers"), [("scan 1", 1), ("tokenizer 0", 1), ("encode 3", 1), ("encode 2", 2)])
def test_a_killed_run_leaves_nothing_behind_and_can_be_finished(line: str, workers: int, tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    config = text_config(tmp_path / "out", corpus)
    with LocalExecutor(1) as executor:
        prepare(text_config(tmp_path / "whole", corpus), executor=executor, report=lambda _: None)
    children = kill_at(line, out=tmp_path / "out", corpus=corpus, workers=workers)
    assert len(children) >= workers if workers > 1 else not children
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    with pytest.raises(BadInput, match=r"run `launch\.py prepare` first"):
        config.manifest()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").glob("piece-*.json")}
    assert len(finished) >= (int(line.split()[1]) if line.startswith("encode") else 0)
    time.sleep(0.01)
    with LocalExecutor(1) as executor:
        prepare(config, executor=executor, report=lambda _: None)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished pieces were made again"
