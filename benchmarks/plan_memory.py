"""What `plan` says a worker takes, against what it takes: its peak resident size less an idle worker's.

    python -m benchmarks.plan_memory                # every case, each in a process of its own: two minutes
    python -m benchmarks.plan_memory gpt flow       # some

A case is a tiny recipe made larger, until it takes some hundred MiB. Its process first trains the tiny recipe itself on
the same engine and lets go of it: an idle worker, which has imported and set up all that it will need. Then it trains
the large one for a few steps, as `train` would, and saves it. The peak is the kernel's (VmHWM of /proc/self/status,
reset before).

glibc gives memory back to the system while blocks are larger than a threshold, which grows with the blocks that are
freed, up to 32 MiB: small models then keep up to as much again as they need. So the threshold is held where it begins
(MALLOC_MMAP_THRESHOLD_, 128 KiB). `--allocator default` measures with glibc as it comes.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.table import Figure, conclude
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.plan import Placement, plan
from pretrain.run import run
from pretrain.run_directory import create

STEPS = 3
"""The optimizer's state is there from the second on."""
GOAL = 0.15
"""The largest relative difference."""
THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """A tiny recipe, and what makes it large."""

    recipe: str
    changes: tuple[str, ...]
    engine: str = "{kind: local, precision: float32, device: cpu}"

    def experiment(self, *, large: bool) -> Experiment:
        common = (f"engine={self.engine}", f"steps={STEPS}", "evaluate.every=null")
        return config.load(Experiment, config.recipe_path(self.recipe), common + (self.changes if large else ()))


GPT = (
    "model.width=384",
    "model.inner_width=1536",
    "model.num_layers=6",
    "model.num_heads=6",
    "model.context_length=128",
    "model.vocab_size=512",
    "data.num_symbols=512",
    "data.document_length=200",
    "batch.micro_batches=2",
    "batch.rows=4",
)


def zero(stage: int) -> str:
    return f"{{kind: deepspeed, precision: bfloat16, device: cpu, zero_stage: {stage}}}"


CASES = {
    "gpt": Case("tiny_gpt", GPT),
    "gpt_bfloat16": Case("tiny_gpt", GPT, "{kind: local, precision: bfloat16, device: cpu}"),
    "gpt_recomputed": Case(
        "tiny_gpt",
        (*GPT, "batch.rows=32"),
        "{kind: local, precision: float32, device: cpu, activation_checkpointing: true}",
    ),
    "gpt_zero_0": Case("tiny_gpt", GPT, zero(0)),
    "gpt_zero_1": Case("tiny_gpt", GPT, zero(1)),
    "gpt_zero_2": Case("tiny_gpt", GPT, zero(2)),
    "gpt_zero_3": Case("tiny_gpt", GPT, zero(3)),
    "transformer_xl": Case(
        "tiny_transformer_xl",
        (
            "model.width=256",
            "model.inner_width=1024",
            "model.num_layers=6",
            "model.num_heads=4",
            "model.head_width=64",
            "model.segment_length=96",
            "model.memory_length=96",
            "batch.rows=8",
            "model.vocab_size=512",
            "data.num_symbols=512",
            "data.document_length=400",
        ),
    ),
    "flow": Case(
        "tiny_flow", ("model.bijections.num_layers=8", "model.bijections.hidden_widths=[1024, 1024]", "batch.rows=512")
    ),
    "pixelcnn": Case(
        "tiny_pixelcnn", ("model.features=64", "model.num_layers=6", "model.output_features=128", "batch.rows=64")
    ),
    "vae": Case(
        "tiny_vae",
        (
            "model.encoder.hidden_widths=[4096, 2048]",
            "model.decoder.hidden_widths=[2048, 4096]",
            "model.posterior.hidden_widths=[1024]",
            "batch.rows=64",
        ),
    ),
    "gan": Case(
        "tiny_gan", ("model.generator.widths=[4096, 2048]", "model.critic.widths=[4096, 2048]", "batch.rows=64")
    ),
    "wavenet": Case(
        "tiny_wavenet",
        (
            "model.residual_features=96",
            "model.skip_features=128",
            "model.dilations=[1,2,4,8,1,2,4,8]",
            "model.length_of_wave=512",
            "data.length=512",
            "batch.rows=8",
        ),
    ),
}


def measure(case: Case) -> dict[str, int]:
    """In this process: bytes of an idle worker, and of one that trains beyond those at most."""
    _train(case.experiment(large=False))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    idle = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    _train(case.experiment(large=True))
    return {"idle": idle, "peak": _status("VmHWM") - idle}


def _train(experiment: Experiment) -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "run"
        directory.mkdir()
        create(directory, experiment)
        run(experiment, directory, Group())


def _status(field: str) -> int:
    """A size in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def measure_apart(name: str, *, gives_back: bool = True) -> dict[str, int]:
    """The same in a process of its own, whose allocator gives back what is freed, or is as it comes."""
    command = [sys.executable, "-m", "benchmarks.plan_memory", "--measure", name]
    environment = {key: value for key, value in os.environ.items() if key != THRESHOLD}
    if gives_back:
        environment[THRESHOLD] = str(128 * 1024)
    root = Path(__file__).parents[1]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root, env=environment)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def planned(name: str) -> Placement:
    return plan(CASES[name].experiment(large=True), [1]).placement(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all, if none is given")
    parser.add_argument("--allocator", choices=["gives back", "default"], default="gives back")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(CASES[arguments.measure])), flush=True)
        os._exit(0)  # DeepSpeed's ZeRO-3 now and then aborts while the interpreter ends
    figures, notes = [], [f"allocator: {arguments.allocator}"]
    for name in arguments.cases or CASES:
        found = measure_apart(name, gives_back=arguments.allocator != "default")
        ratio = planned(name).most / found["peak"]
        figures.append(Figure(f"{name}: planned, off the measured by", abs(ratio - 1), GOAL))
        parts = ", ".join(f"{part} {size / MIB:.0f}" for part, size in asdict(planned(name).memory).items() if size)
        notes.append(f"{name}: measured {found['peak'] / MIB:.0f} MiB, planned {ratio:.2f} of it ({parts})")
    conclude("plan_memory", figures, same=True, notes=notes)


if __name__ == "__main__":
    main()
