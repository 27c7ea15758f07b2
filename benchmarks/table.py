"""What every benchmark ends with: a table of figures against goals, a dated file, an exit code about equality alone."""

import json
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number against its goal."""

    name: str
    value: float
    goal: float
    """At most this."""
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.goal


def conclude(benchmark: str, figures: list[Figure], *, same: bool, notes: list[str]) -> None:
    """Print the table, keep it as a dated file, and exit: 0 unless the compared results differ."""
    record = {
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.processor() or platform.machine()}, {processor()}",
        "same_results": same,
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
        "notes": notes,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{record['date']}-{benchmark}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    console = Console()
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    table = Table("figure", "measured", "goal", "verdict", title=f"{benchmark} ({path.name})", title_justify="left")
    for figure in figures:
        verdict = "met" if figure.met else "missed"
        table.add_row(figure.name, f"{figure.value:.4g} {figure.unit}", f"<= {figure.goal:g}", verdict)
    table.add_row("compared results", "equal" if same else "DIFFERENT", "equal", "met" if same else "missed")
    console.print(table)
    sys.exit(0 if same else 1)


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.platform()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.platform()
    )
