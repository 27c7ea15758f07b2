"""The command line as processes: `python launch.py ...`, and the same faster, forked from one that has imported all.

Run as a script it is that one: it reads a request a line on standard input, forks, and answers with the exit code.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch.py"
WAIT_SECONDS = 200
"""Far more than anything takes, on a machine that many share."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def one_message(self) -> str:
        """The only thing that was said on standard error, but for warnings."""
        assert "Traceback" not in self.out + self.err, self.err
        said = "".join(line for line in self.err.splitlines(keepends=True) if not line.startswith("warning: "))
        assert said.startswith("error: "), (self.out, self.err)
        assert said.count("error: ") == 1
        return said


class Forks:
    """Runs commands in children of a process in which torch and the packages are imported."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments: object, cwd: Path, timeout: int = WAIT_SECONDS) -> Ended:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            request = {"arguments": list(map(str, arguments)), "cwd": str(cwd), "place": place, "timeout": timeout}
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            code = json.loads(self.server.stdout.readline())
            return Ended(code, *((Path(place) / name).read_text() for name in ("out", "err")))

    def close(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(30)


@contextlib.contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """`python launch.py ...` at work; it and what it started is ended when the context is left."""
    process = subprocess.Popen(
        [sys.executable, str(LAUNCH), *map(str, arguments)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], *, timeout: float = WAIT_SECONDS) -> Ended:
    out, err = process.communicate(timeout=timeout)
    return Ended(process.returncode, out, err)


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str], *, timeout: float = WAIT_SECONDS) -> None:
    """Until metrics.jsonl has this step."""
    deadline = time.monotonic() + timeout
    path = run / "metrics.jsonl"
    while not (path.exists() and path.read_bytes().count(b"\n") >= step):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"step {step} has not come in {timeout} s"
        time.sleep(0.02)


def files_below(directory: Path) -> dict[str, bytes]:
    """Every file and its content, every directory too."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in sorted(directory.rglob("*"))
    }


def serve() -> None:
    """Fork a child for each request; the imports below are what makes it fast."""
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(1)
    import torch._dynamo  # every optimizer does, which takes a second

    import cluster.inspection
    import cluster.train  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(request: dict) -> None:
    """This process, just forked, is the command from here to its end."""
    try:
        signal.alarm(request["timeout"])
        os.chdir(request["cwd"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(Path(request["place"]) / name, os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = [str(LAUNCH), *request["arguments"]]
        import launch

        launch.main()
    except SystemExit as error:
        code = error.code
        os._exit(flushed(code if isinstance(code, int) else 0 if code is None else 1))
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(flushed(1))
    os._exit(flushed(0))


def flushed(code: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
