"""What every worker of a run is told, and what it does, wherever it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.observer import Observer
from cluster.out_of_memory import explained, is_out_of_memory
from evals.in_training import score_held_out, score_tasks
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.lease import Claim
from pretrain.run import run
from pretrain.run_directory import read_experiment
from pretrain.trainer import Trainer

Injector = Callable[[str, Trainer], None]
"""Called at every moment of `pretrain.run.Watch`, in every worker; what it does there is up to the test."""


@dataclass(frozen=True, slots=True)
class Job:
    """One start of one run; the run directory says the rest."""

    directory: Path
    """The run's, absolute."""
    working_directory: Path
    """Relative paths of the experiment begin here."""
    allowed: tuple[str, ...] = ()
    """Keys whose change since the last checkpoint is allowed."""
    injector: Injector | None = None
    """Faults that a test lets happen."""
    experiment: Experiment | None = None
    """As it was given, secrets included, which the saved one has not; None: the saved one."""
    claim: Claim | None = None
    """Of the driver on the run's directory."""


def work(job: Job, group: Group, observer: Observer) -> int:
    """Train to the end of the run as one of its workers; returns the last step.

    Raises GaveUp, with the peak and what would need less, where its memory does not suffice.
    """
    experiment = job.experiment or read_experiment(job.directory)
    try:
        return run(
            experiment,
            job.directory,
            group,
            evaluators=(score_held_out, score_tasks),
            allowed=job.allowed,
            watch=observer.watch(job.injector, may_write=job.claim.check if job.claim else None),
        )
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise explained(error, group.rank) from error
        raise
