"""The plan against the peak resident size of real processes, less an idle worker's (`benchmarks/plan_memory.py`)."""

import pytest

from benchmarks.plan_memory import GOAL, MIB, measure_apart, planned

FAMILIES = ["gpt", "transformer_xl", "flow", "pixelcnn", "vae", "gan"]
ENGINES = ["gpt_bfloat16", "gpt_recomputed", "gpt_zero_1", "gpt_zero_2", "gpt_zero_3"]


@pytest.mark.slow
@pytest.mark.parametrize("case", [*FAMILIES, *ENGINES])
def test_a_worker_takes_what_was_planned(case: str) -> None:
    peak = measure_apart(case)["peak"]
    assert peak > 50 * MIB, "less would be within the noise"
    assert planned(case).most == pytest.approx(peak, rel=GOAL)
