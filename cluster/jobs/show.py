"""What a person, or a program, is told of jobs."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.jobs.job_state import Jobs, JobState
from cluster.tables import table
from data_pipeline.redaction import redact
from pretrain.metrics_log import read_rows
from pretrain.run_directory import EXPERIMENT, read_events, read_experiment

TAIL_LINES = 15
"""Of the log of a job that failed."""
STEP_LINE = re.compile(r"^step (\d+)/(\d+)  loss (\S+)", re.MULTILINE)
"""As `cluster.progress` writes it where there is no terminal."""


def job_values(jobs: Jobs, state: JobState) -> dict[str, Any]:
    """Plain values: what was asked for, the state, and how far it is."""
    submission, has_failed = state.submission, state.state in ("failed", "lost")
    is_seen = submission.run is not None and (Path(submission.run) / EXPERIMENT).is_file()
    log = "" if is_seen and not has_failed else jobs.log(submission.id)  # which may be long, and far away
    values: dict[str, Any] = {**row(state), **asdict(submission), **progress(submission.run, log)}
    if has_failed:
        values["log_tail"] = redact(log).splitlines()[-TAIL_LINES:]
    return values


def row(state: JobState) -> dict[str, Any]:
    """A job in a list of them."""
    submission = state.submission
    return {
        "id": submission.id,
        "state": state.state,
        "exit_code": state.exit_code,
        "kind": submission.kind,
        "run": submission.run,
        "workers": submission.workers,
        "submitted_at": submission.submitted_at,
    }


def job_rows(states: Sequence[JobState]) -> list[dict[str, Any]]:
    return [row(state) for state in states]


def progress(run: str | None, log: str) -> dict[str, Any]:
    """Step, steps and loss: of the run's directory where it is seen from here, else of the log."""
    if run is not None and (Path(run) / EXPERIMENT).is_file():
        rows, started = read_rows(Path(run)), [e for e in read_events(Path(run)) if "workers" in e]
        steps = read_experiment(Path(run)).steps
        found = {"step": rows[-1]["step"], "steps": steps, "loss": rows[-1]["loss"]} if rows else {"steps": steps}
        now = [e["workers"] for e in started if e["event"] in ("started", "resumed")]
        return found | ({"workers_now": now[-1]} if now else {})
    lines = STEP_LINE.findall(log)
    if not lines:
        return {}
    step, steps, loss = lines[-1]
    return {"step": int(step), "steps": int(steps), "loss": float(loss) if loss[0].isdigit() else None}


def job_lines(values: dict[str, Any]) -> list[str]:
    """For a terminal."""
    code = "" if values["exit_code"] is None else f" (exit code {values['exit_code']})"
    lines = [f"job        {values['id']}", f"state      {values['state']}{code}"]
    if values["run"]:
        lines.append(f"run        {values['run']}")
    if "step" in values:
        loss = "not finite" if values["loss"] is None else f"{values['loss']:.4f}"
        lines.append(f"step       {values['step']} of {values['steps']}, loss {loss}")
    now = f", {values['workers_now']} at its last start" if "workers_now" in values else ""
    lines.append(f"asked for  {values['workers']}{now}")
    dirty = " with changes that are not committed" if values["dirty"] else ""
    lines.append(f"submitted  {values['submitted_at']}, {values['commit'][:12] or 'no git checkout'}{dirty}")
    return lines + [f"  {line}" for line in values.get("log_tail", ())]


def jobs_table(states: Sequence[JobState]) -> Table:
    made = table("jobs", "id", "state", "what", "run", "asked for", "submitted", lines=False)
    for state in states:
        values = row(state)
        code = "" if values["exit_code"] in (None, 0) else f" ({values['exit_code']})"
        made.add_row(
            values["id"],
            f"{values['state']}{code}",
            values["kind"],
            values["run"] or "",
            values["workers"],
            values["submitted_at"],
        )
    return made
