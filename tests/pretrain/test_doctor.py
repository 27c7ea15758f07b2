"""Every check on a machine where the thing is missing, old, full or forbidden."""

import json
import os
import subprocess
import sys
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pretrain import doctor
from pretrain.doctor import Finding, diagnose, pinned_versions

Usage = namedtuple("Usage", "total used free")


def found(name: str, directory: Path) -> Finding:
    return next(finding for finding in diagnose(directory) if finding.name == name)


def test_nothing_is_bad_where_the_tests_run(tmp_path: Path) -> None:
    findings = diagnose(tmp_path)
    assert [finding for finding in findings if finding.verdict == "bad"] == []
    assert len({finding.name for finding in findings}) == len(findings)
    assert {"python", "torch", "ray", "deepspeed", "triton", "disk", "loopback", "writing"} <= {
        f.name for f in findings
    }
    for finding in findings:
        assert bool(finding.remedy) == (finding.verdict != "ok"), finding
    json.dumps([finding.to_json() for finding in findings])


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from pretrain.doctor import diagnose; diagnose(); "
        "print([name for name in ('ray', 'deepspeed', 'triton', 'datasets') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(doctor.__file__).parents[1])}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize(("package", "verdict"), [("ray", "bad"), ("tensorboard", "warn")])
def test_a_missing_package(package: str, verdict: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = doctor.version

    def version(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    finding = found(package, tmp_path)
    assert (finding.verdict, "not installed" in finding.detail) == (verdict, True)
    assert "pip install" in finding.remedy


def test_another_version_than_the_tested_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# pinned\nRay==0.1  # old\nno pin here\n")
    monkeypatch.setattr(doctor, "CONSTRAINTS", constraints)
    finding = found("ray", tmp_path)
    assert finding.verdict == "warn"
    assert "0.1" in finding.detail
    assert "ray==0.1" in finding.remedy
    assert found("numpy", tmp_path).verdict == "ok"


def test_versions_are_read_from_the_constraints(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("a_B.c==1.2\n\n# x==3\nd == 4 # why\n")
    assert pinned_versions(path) == {"a-b-c": "1.2", "d": "4"}
    assert pinned_versions(tmp_path / "none.txt") == {}


def test_an_old_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 8, 0))
    assert found("python", tmp_path).verdict == "bad"


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert found("c++ compiler", tmp_path).verdict == "warn"


def test_a_full_disk_and_small_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(2**40, 2**40, 2**20))
    assert found("disk", tmp_path).verdict == "warn"
    shared = found("shared memory", tmp_path)
    assert shared.verdict == "warn" or not doctor.SHARED_MEMORY.is_dir()


def test_little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20, total=2**33))
    assert found("memory", tmp_path).verdict == "warn"


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    finding = found("writing", tmp_path / "absent")
    assert finding.verdict == "bad"
    assert "absent" in finding.detail
    assert finding.remedy


def test_no_loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(doctor.socket, "socket", refuse)
    finding = found("loopback", tmp_path)
    assert finding.verdict == "bad"
    assert "Permission denied" in finding.detail


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("no such counter")

    monkeypatch.setattr(doctor.psutil, "virtual_memory", fail)
    finding = found("memory", tmp_path)
    assert finding.verdict == "warn"
    assert "no such counter" in finding.detail


def test_a_driver_without_a_build_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.torch.version, "cuda", None)
    monkeypatch.setattr(doctor, "Path", lambda path: tmp_path)
    finding = doctor.check_accelerators()
    assert finding.verdict == "warn"
    assert "CUDA build" in finding.remedy


def test_accelerators_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor.torch.cuda, "device_count", lambda: 2)
    card = SimpleNamespace(name="H100", total_memory=80 * 2**30)
    monkeypatch.setattr(doctor.torch.cuda, "get_device_properties", lambda index: card)
    assert doctor.check_accelerators().detail == "2: H100 (80 GiB), H100 (80 GiB)"


def test_constraints_are_those_of_the_repository() -> None:
    assert {"torch", "ray", "deepspeed"} <= set(pinned_versions(doctor.CONSTRAINTS))
    assert all(version for version in pinned_versions(doctor.CONSTRAINTS).values())
