"""The table of accelerators: names, what may be wrong with them, and how fast rings over them are."""

import pytest

from data_pipeline.config import BadInput
from pretrain.accelerators import ACCELERATORS, accelerator_named
from pretrain.hardware import known_peak


@pytest.mark.parametrize("name", ACCELERATORS)
def test_an_accelerator_is_known_by_its_name(name: str) -> None:
    found = accelerator_named(name.upper())
    assert found.name == name
    assert 1e12 < found.peaks["float32"] < found.peaks["bfloat16"] < 1e16
    assert 1e10 < found.memory < 1e12
    assert found.network <= found.link
    assert found.source


@pytest.mark.parametrize(("name", "nearest"), [("h10", "h100"), ("A100-80GB", "a100-80"), ("MI300", "mi300x")])
def test_an_unknown_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(BadInput, match=f"--accelerator {name}: .*did you mean '{nearest}'"):
        accelerator_named(name)


def test_all_names_are_listed_where_none_is_near() -> None:
    with pytest.raises(BadInput, match=r"there are .*h100.*mi300x"):
        accelerator_named("abacus")


def test_rings_are_as_fast_as_the_narrowest_part_of_a_node() -> None:
    h100, l40s = ACCELERATORS["h100"], ACCELERATORS["l40s"]
    assert h100.bandwidth(8, 1) == 450e9, "within a node"
    assert h100.bandwidth(16, 2) == 400e9, "8 network cards of 400 Gb/s"
    assert h100.bandwidth(2, 2) == 50e9, "one device of each node, with its own card"
    assert h100.bandwidth(12, 2) == 300e9
    assert l40s.bandwidth(16, 2) == 32e9, "PCIe is narrower than the network of the node"


def test_devices_are_known_by_the_names_that_torch_gives_them() -> None:
    assert known_peak("NVIDIA A100-SXM4-40GB", "bfloat16") == 312e12
    assert known_peak("NVIDIA H100 80GB HBM3", "float32") == 67e12
    assert known_peak("AMD Instinct MI300X", "bfloat16") == 1307e12
    assert known_peak("NVIDIA GeForce GTX 1080", "float32") is None
