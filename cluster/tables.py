"""Results as tables for a terminal."""

from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evals.metric import Metric
from pretrain.contract import capabilities
from pretrain.doctor import Finding
from pretrain.models import MODEL_CONFIGS


def table(title: str, *columns: str, lines: bool = True) -> Table:
    """An empty one; columns whose name ends in `>` are aligned to the right. Without lines it is narrower."""
    made = Table(title=title, title_justify="left")
    if not lines:
        made.box, made.show_edge, made.padding = SIMPLE_HEAD, False, 0
    for name in columns:
        made.add_column(name.removesuffix(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    return made


def bytes_text(count: float) -> str:
    """Three figures and a unit.

    >>> bytes_text(3_400_000)
    '3.24 MiB'
    """
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} B"


def model_rows() -> list[dict[str, Any]]:
    """What every model of the union can do, read from its class."""
    rows = []
    for kind, config in MODEL_CONFIGS.items():
        built = get_type_hints(config.build)["return"]
        classes = get_args(built) or (built,)
        every = [capabilities(model) for model in classes]
        can = every[0]
        rows.append(
            {
                "kind": kind,
                "objective": classes[0].__module__.split(".")[2],
                "data": config.reads,
                "evaluate": " or ".join(dict.fromkeys(one.evaluate for one in every)),
                "sample": can.sample,
                "latents": can.latents,
                "control": can.control,
            }
        )
    return rows


def models_table() -> Table:
    columns = ("kind", "objective", "reads", "evaluate\np(x)", "sample", "latents", "control")
    made = table("models", *columns, lines=False)
    for row in model_rows():
        cells = [("yes" if value else "no") if isinstance(value, bool) else str(value) for value in row.values()]
        made.add_row(*cells)
    return made


def doctor_table(findings: Sequence[Finding]) -> Table:
    made = table("this machine", "what", "", "found", "remedy")
    for finding in findings:
        made.add_row(finding.name, finding.verdict, finding.detail, finding.remedy)
    return made


def metrics_table(metrics: Sequence[Metric]) -> Table:
    made = table("held-out scores", "metric", "value>", "standard error>", "unit", "over>")
    for metric in metrics:
        error = "" if metric.stderr is None else f"{metric.stderr:.4f}"
        made.add_row(metric.name, f"{metric.value:.4f}", error, metric.unit, f"{metric.count:,}")
    return made
