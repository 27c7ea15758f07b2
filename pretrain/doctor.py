"""What this machine has for a run, and what is wrong with it: each finding one line, with the remedy.

Nothing heavy is imported to find out: versions come from the packages' metadata.
"""

import os
import platform
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
REQUIRED = ("deepspeed", "ray", "tokenizers", "datasets", "webdataset", "safetensors", "numpy", "pydantic")
OPTIONAL = {"tensorboard": "curves in TensorBoard", "triton": "fused kernels on accelerators"}
OLDEST_PYTHON = (3, 11)
GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    verdict: Literal["ok", "warn", "bad"]
    """`warn`: some uses are slower or impossible; `bad`: no run will work."""
    detail: str
    remedy: str = ""
    """What to do; empty where nothing is wrong."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diagnose(directory: Path = Path(".")) -> list[Finding]:
    """All findings, for runs that will lie in `directory`."""
    tested = pinned_versions(CONSTRAINTS)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", check_python),
        ("torch", lambda: check_torch(tested)),
        ("accelerators", check_accelerators),
        *((name, lambda name=name: check_package(name, tested)) for name in (*REQUIRED, *OPTIONAL)),
        ("c++ compiler", check_compiler),
        ("memory", check_memory),
        ("shared memory", check_shared_memory),
        ("disk", lambda: check_disk(directory)),
        ("writing", lambda: check_writing(directory)),
        ("loopback", check_loopback),
    ]
    return [_safely(name, check) for name, check in checks]


def _safely(name: str, check: Callable[[], Finding]) -> Finding:
    """A check that itself fails is a finding too."""
    try:
        return check()
    except Exception as error:
        return Finding(name, "warn", f"could not be examined: {type(error).__name__}: {error}", "look at it by hand")


def pinned_versions(constraints: Path) -> dict[str, str]:
    """Package -> version that the tests ran with; empty where the file is not there (an installed wheel)."""
    return dict(_pins(constraints.read_text(encoding="utf-8"))) if constraints.is_file() else {}


def _pins(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, separator, pinned = line.split("#")[0].strip().partition("==")
        if separator:
            yield _canonical(name.strip()), pinned.strip()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_python() -> Finding:
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding(
            "python", "bad", found, f"Segue needs Python {oldest} or newer: make a virtual environment of it"
        )
    return Finding("python", "ok", f"{found} in {sys.prefix}")


def check_torch(tested: dict[str, str]) -> Finding:
    build = (
        f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"ROCm {torch.version.hip}"
        if torch.version.hip
        else "CPU"
    )
    detail = f"{torch.__version__}, {build} build, {torch.get_num_threads()} threads"
    return _compared("torch", detail, torch.__version__.split("+")[0], tested)


def check_accelerators() -> Finding:
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        named = ", ".join(f"{device.name} ({device.total_memory / GIB:.0f} GiB)" for device in devices)
        return Finding("accelerators", "ok", f"{len(devices)}: {named}")
    if Path("/proc/driver/nvidia").exists() and torch.version.cuda is None:
        return Finding(
            "accelerators", "warn", "there is an NVIDIA driver, but this torch is built for the CPU",
            "install the CUDA build of torch: https://pytorch.org/get-started/locally/",
        )  # fmt: skip
    return Finding("accelerators", "ok", f"none: runs use the CPU ({psutil.cpu_count(logical=False)} cores)")


def check_package(name: str, tested: dict[str, str]) -> Finding:
    """Whether it is installed, and in the tested version."""
    try:
        found = version(name)
    except PackageNotFoundError:
        if name in OPTIONAL:
            return Finding(name, "warn", f"not installed: no {OPTIONAL[name]}", f"pip install {name}")
        return Finding(name, "bad", "not installed", "pip install segue, or `make quickstart` from a clone")
    return _compared(name, found, found, tested)


def _compared(name: str, detail: str, found: str, tested: dict[str, str]) -> Finding:
    wanted = tested.get(_canonical(name))
    if wanted is None or wanted == found:
        return Finding(name, "ok", detail)
    remedy = f"where something fails: pip install -c constraints.txt {name}=={wanted}"
    return Finding(name, "warn", f"{detail}; the tests ran with {wanted}", remedy)


def check_compiler() -> Finding:
    """DeepSpeed and torch compile some of their operations when they are first used."""
    names = [name for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name]
    for name in names:
        if (path := shutil.which(name)) is not None:
            return Finding("c++ compiler", "ok", path)
    return Finding(
        "c++ compiler", "warn", "none found: runs do not need it, torch.compile and DeepSpeed's fused operations do",
        "install g++ (Debian and Ubuntu: apt-get install g++)",
    )  # fmt: skip


def check_memory() -> Finding:
    memory = psutil.virtual_memory()
    detail = f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f} GiB"
    if memory.available < 2 * GIB:
        return Finding("memory", "warn", detail, "the quickstart needs 4 GiB: end other programs")
    return Finding("memory", "ok", detail)


def check_shared_memory() -> Finding:
    """Ray keeps its objects there."""
    if not SHARED_MEMORY.is_dir():
        return Finding("shared memory", "ok", f"no {SHARED_MEMORY} here; Ray uses temporary files")
    free = shutil.disk_usage(SHARED_MEMORY).free
    detail = f"{free / GIB:.1f} GiB free in {SHARED_MEMORY}"
    if free < GIB // 4:
        return Finding("shared memory", "warn", detail, "in a container: start it with --shm-size=1g or more")
    return Finding("shared memory", "ok", detail)


def check_disk(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    detail = f"{free / GIB:.1f} GiB free at {directory.resolve()}"
    if free < 2 * GIB:
        return Finding(
            "disk", "warn", detail, "free some, or put runs elsewhere with --run; `plan` says what one needs"
        )
    return Finding("disk", "ok", detail)


def check_writing(directory: Path) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=directory):
            return Finding("writing", "ok", f"{directory.resolve()} can be written")
    except OSError as error:
        remedy = "change to a directory of your own, or give --run one"
        return Finding("writing", "bad", f"{directory.resolve()} cannot be written: {error.strerror}", remedy)


def check_loopback() -> Finding:
    """Workers of one machine find each other there."""
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            return Finding("loopback", "ok", "ports of 127.0.0.1 can be bound")
    except OSError as error:
        remedy = "let this user bind ports of 127.0.0.1; until then train with --workers 1 and engine.kind=local"
        return Finding("loopback", "bad", f"no port of 127.0.0.1 can be bound: {error.strerror}", remedy)
