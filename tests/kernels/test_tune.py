"""The tuner with a clock of the test's own: what it chooses, passes over and keeps, and that kernels then use it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import tune
from kernels.relative_attention import fused, tiles
from kernels.relative_attention.cases import Case
from kernels.relative_attention.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASE = Case("tiny", 1, 1, 20, 12, 16)
FAST, SLOW = Tiles(block=16, warps=4, stages=1), Tiles(block=32, warps=4, stages=1)


class Clock:
    """Says that a call took as long as its number in a list, and then the last."""

    def __init__(self, *milliseconds: float) -> None:
        self.milliseconds = list(milliseconds)

    def __call__(self, work: Callable[[], Any]) -> float:
        work()
        return self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]


def test_the_fastest_tiles_and_route_are_found() -> None:
    per_kernel = [2.0, 1.0] * len(tiles.KERNELS)
    clock = Clock(9.0, *per_kernel, 5.0, 4.0)
    found = tune.tune(CASE, CASE.tensors(torch.float32, DEVICE), lambda *_: (SLOW, FAST), clock)
    assert found.tiles == dict.fromkeys(tiles.KERNELS, FAST)
    assert (found.route, found.milliseconds, found.default_milliseconds) == ("stored", 4.0, 9.0)


def test_what_is_wrong_or_does_not_compile_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = fused.relative_attention

    def spoilt(tensors: fused.Tensors, settings: fused.Settings) -> torch.Tensor:
        read_BLHD = honest(tensors, settings)
        return read_BLHD * 1.01 if settings.tiles.get("forward") == FAST else read_BLHD

    monkeypatch.setattr(fused, "relative_attention", spoilt)
    impossible = Tiles(block=24)
    clock = Clock(9.0, 8.0, *[3.0, 2.0] * (len(tiles.KERNELS) - 1), 1.0)
    found = tune.tune(CASE, CASE.tensors(torch.float32, DEVICE), lambda *_: (FAST, impossible, SLOW), clock)
    said = capsys.readouterr().err
    assert found.tiles["forward"] == SLOW
    assert f"forward {FAST}: passed over: differs from the default's values by" in said
    assert f"forward {impossible}: passed over: " in said


def test_what_was_tuned_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiles, "TUNED", tmp_path)
    kept = tune.Kept(tmp_path / "sm_90.json", {"device": "a", "triton": "3"})
    kept.conclude("64 16 bits", tune.Tuned({"forward": Tiles(128, 8, 3)}, "stored", 1.0, 2.0))
    try:
        assert tiles.tiles_for("forward", 64, torch.bfloat16, "sm_90") == Tiles(128, 8, 3)
        assert tiles.route_for(64, torch.bfloat16, "sm_90") == "stored"
        for other in ((128, torch.bfloat16, "sm_90"), (64, torch.float32, "sm_90"), (64, torch.bfloat16, "sm_80")):
            assert tiles.tiles_for("forward", *other) != Tiles(128, 8, 3)
            assert tiles.route_for(*other) == "recomputed"
    finally:
        tiles.forget_tuned()


def test_a_tuner_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    by = {"device": "a", "triton": "3"}
    kept = tune.Kept(tmp_path / "cpu.json", by)
    tensors = CASE.tensors(torch.float32, DEVICE)

    def give_up(work: Callable[[], Any]) -> float:
        if len(kept.tiles_of("16 float32")) == 2:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        tune.tune(CASE, tensors, lambda *_: (FAST,), give_up, keep=lambda found: kept.add("16 float32", found))
    again = tune.Kept(tmp_path / "cpu.json", by).tiles_of("16 float32")
    assert list(again) == list(tiles.KERNELS[:2])
    asked: list[str] = []

    def candidates(kernel: tiles.Kernel, width: int) -> list[Tiles]:
        asked.append(kernel)
        return [FAST]

    found = tune.tune(CASE, tensors, candidates, Clock(1.0), known=again)
    assert asked == list(tiles.KERNELS[2:])
    assert found.tiles == dict.fromkeys(tiles.KERNELS, FAST)
    assert tune.Kept(tmp_path / "cpu.json", by | {"triton": "4"}).tiles_of("16 float32") == {}


def test_gradients_are_compared_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    honest = fused.backward

    def spoilt(tensors: fused.Tensors, settings: fused.Settings, *given: Any) -> tuple[torch.Tensor, ...]:
        found = honest(tensors, settings, *given)
        spoil = settings.tiles.get("key_gradient") == SLOW
        return (*found[:2], found[2] * torch.nan, *found[3:]) if spoil else found

    monkeypatch.setattr(fused, "backward", spoilt)
    chosen = tune.tune(CASE, CASE.tensors(torch.float32, DEVICE), lambda *_: (SLOW, FAST), Clock(1.0))
    assert chosen.tiles["key_gradient"] == FAST
    assert "key_gradient Tiles(block=32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ('{"tiles": {"64 16 bits": {"forward": {"blok": 64}}}, "routes": {}}', "blok"),
        ('{"tiles": {"64 16 bits": {"forward": {"block": 48}}}, "routes": {}}', "block 48 is no power of two"),
        ('{"tiles": {"64 16 bits": {"forward": {"block": 8}}}, "routes": {}}', "block 8 is no power of two of at"),
        ('{"tiles": {}, "routes": {"64 16 bits": "fast"}}', "route 'fast' is none of recomputed, stored"),
        ('{"tiles": {}}', "'routes'"),
    ],
)
def test_a_spoilt_file_is_named(content: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiles, "TUNED", tmp_path)
    (tmp_path / "sm_90.json").write_text(content)
    tiles.forget_tuned()
    try:
        with pytest.raises(ValueError, match=rf"sm_90.json: is not as `python -m kernels.tune` writes it: .*{message}"):
            tiles.tiles_for("forward", 64, torch.bfloat16, "sm_90")
    finally:
        tiles.forget_tuned()


def test_without_a_gpu_it_refuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["tune"])
    with pytest.raises(SystemExit):
        tune.main()
    assert "torch sees no GPU here" in capsys.readouterr().err
