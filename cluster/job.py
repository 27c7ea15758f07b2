"""What every worker of a run is told, and what it does, wherever it runs."""

from dataclasses import dataclass
from pathlib import Path

from cluster.observer import Observer
from evals.in_training import score_held_out
from pretrain.group import Group
from pretrain.run import run
from pretrain.run_directory import read_experiment


@dataclass(frozen=True, slots=True)
class Job:
    """One start of one run; the run directory says the rest."""

    directory: Path
    """The run's, absolute."""
    working_directory: Path
    """Relative paths of the experiment begin here."""
    allowed: tuple[str, ...] = ()
    """Keys whose change since the last checkpoint is allowed."""


def work(job: Job, group: Group, observer: Observer) -> int:
    """Train to the end of the run as one of its workers; returns the last step."""
    experiment = read_experiment(job.directory)
    return run(
        experiment,
        job.directory,
        group,
        evaluators=(score_held_out,),
        allowed=job.allowed,
        watch=observer.watch(),
    )
