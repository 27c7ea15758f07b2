"""Plans on a terminal: every table within 80 columns, and marks where something is not as the recipe says."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.plan_tables import notes, show_cluster_plan
from pretrain import config
from pretrain.accelerators import ACCELERATORS, Accelerator
from pretrain.experiment import Experiment
from pretrain.plan import ClusterPlan, plan_cluster
from pretrain.plan.cluster import sizes_of

H100 = ACCELERATORS["h100"]
SLOW = replace(H100, link=1.0, network=1.0)
SMALL = replace(H100, memory=1e3)
DEEPSPEED = "engine={kind: deepspeed, precision: bfloat16}"


def planned(
    recipe: str, *overrides: str, kind: Accelerator = H100, sizes: tuple[str, ...] = ("1", "16")
) -> ClusterPlan:
    experiment = config.load(Experiment, config.recipe_path(recipe), overrides)
    asked = sizes_of(kind, accelerators=sizes)
    return plan_cluster(experiment, kind, asked, utilisation=0.4, storage_bandwidth=1e9)


def shown(plan: ClusterPlan) -> str:
    console = Console(file=io.StringIO(), width=80)
    show_cluster_plan(plan, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("recipe", ["gpt2_1558m", "transformer_xl_wikitext103_large", "tiny_gan", "glow_mnist"])
def test_tables_fit_80_columns_and_no_number_is_broken(recipe: str) -> None:
    plan = planned(recipe, sizes=("1", "16384"))
    lines = shown(plan).splitlines()
    titles = ["the run on h100", "memory of one h100", "at most, by ZeRO stage", "sent by a worker in a step"]
    starts = [next(i for i, line in enumerate(lines) if line.startswith(title)) for title in titles]
    for start in starts:
        rule = next(i for i in range(start, len(lines)) if lines[i].startswith("───"))
        table = lines[start : rule + 3]
        assert max(map(len, table)) <= 80
        assert [line.split()[0] for line in table[-2:]] == ["1", "16384"]


def test_marks_have_their_notes() -> None:
    """4 rows in 2 micro-batches: 8 workers need other micro-batches, 16 a larger batch."""
    plan = planned("tiny_gpt", DEEPSPEED, sizes=("1", "8", "16"))
    text = shown(plan)
    assert re.search(r"8 x 1\*.*\n.*16 x 1\+", text)
    assert "* another run: the recipe's 128 tokens a step in other micro-batches" in text
    assert "(tokens a step: 16: 256)" in text
    only = notes(planned("tiny_gpt", DEEPSPEED, sizes=("1",)))
    assert not any(note.startswith(("*", "+")) for note in only)


def test_a_step_that_waits_for_the_links_is_marked() -> None:
    assert "! the links take longer" in shown(planned("tiny_gpt", DEEPSPEED, kind=SLOW))
    assert "! the links take longer" not in shown(planned("tiny_gpt", DEEPSPEED, sizes=("1",)))


def test_what_does_not_fit_is_said_with_what_may_help() -> None:
    text = shown(planned("tiny_gpt", DEEPSPEED, kind=SMALL))
    assert "none: does not fit at any ZeRO stage" in text
    assert "engine.activation_checkpointing=true" in text
    assert "engine.kind=deepspeed" not in text
    assert "engine.kind=deepspeed" in shown(planned("tiny_gpt", kind=SMALL))
    assert "none" not in shown(planned("tiny_gpt", DEEPSPEED))


def test_saves_that_take_longer_than_the_steps_between_them_are_said() -> None:
    text = "training waits for it"
    assert text in shown(planned("gpt2_1558m", "checkpoint.every=1"))
    assert text not in shown(planned("gpt2_1558m"))
