"""Submitting: everything that can be known to be wrong is found before anything leaves this machine."""

import json
import os
import secrets
import shlex
import tempfile
import time
from contextlib import chdir
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cluster.jobs.job_state import Jobs, JobState, Submission
from cluster.jobs.package import Package, pack
from cluster.prepare import to_prepare
from cluster.run_name import RUN_NAME
from cluster.topology import Shape, lacks, room_on, worker_resources
from cluster.train import as_shape, check, last_workers
from data_pipeline.config import BadInput, Refused
from data_pipeline.redaction import redact, redact_values, redacted_keys
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import check_divides
from pretrain.run_directory import EXPERIMENT, check_allowed, read_experiment, refuse_changes

LOCAL = "local"
ROOT = Path(__file__).resolve().parents[2]
"""Of the code that is packed: this one."""
RECIPE, RECORD, PATCH = "job/recipe.yaml", "job/submission.json", "job/uncommitted.patch"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is to run, and what it is called there."""

    address: str
    """Of a cluster's jobs server, or `local`."""
    storage: Path | None = None
    """That all nodes share; None: the current directory, where the address is of this machine."""
    name: str | None = None
    """None: the recipe's."""
    shape: Shape | None = None
    """None: one worker; for `resume`, as many as at the last start."""
    environment: dict[str, str] = field(default_factory=dict)
    """More of it, for the job."""

    @property
    def is_local(self) -> bool:
        return self.address == LOCAL

    def storage_path(self) -> str:
        """As every node is to see it; raises BadInput where it was not said and cannot be known."""
        if self.storage is not None:
            return os.path.abspath(self.storage)
        if not is_of_this_machine(self.address):
            raise BadInput(
                f"--address {self.address}: say which directory its nodes share: --storage DIR, in which the recipe's "
                "relative paths and runs/NAME begin"
            )
        return str(Path.cwd())


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of it."""

    submission: Submission
    package: Package
    unchecked: str | None
    """What could not be checked from here."""


def is_of_this_machine(address: str) -> bool:
    """Whether an address is `local`, or of the loopback interface."""
    if address == LOCAL:
        return True
    host = urlsplit(address if "://" in address else f"http://{address}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_jobs(address: str) -> Jobs:
    """Where the jobs of this address are; raises BadInput where nothing answers there."""
    if address == LOCAL:
        from cluster.jobs.local_jobs import LocalJobs

        return LocalJobs()
    from cluster.jobs.ray_jobs import RayJobs

    return RayJobs(address)


def submit_training(experiment: Experiment, place: Place) -> Submitted:
    """Hand a run over: to be started, or gone on with where a run of its name is there already."""
    shape = place.shape or as_shape(1)
    name, storage = _checked_name(place.name or experiment.name), place.storage_path()
    run = str(Path(storage, "runs", name))
    refuse_secrets(experiment)
    check_divides(shape.workers, experiment.batch.micro_batches)
    unchecked = _check_on_storage(experiment, Path(storage), Path(run), shape, place)
    if place.is_local:
        _refuse_local(shape)
    jobs = open_jobs(place.address)
    _refuse_second(jobs, run)
    check_resources(jobs, experiment, shape)
    arguments = ["--run", f"runs/{name}", *placement_options(shape), *_joining(place), "--carry-on"]
    asked = " ".join(placement_options(shape))
    submission = _submission("train", name, storage, run, asked, arguments)
    return _hand_over(jobs, submission, place, {RECIPE: config.dump(experiment).encode()}, unchecked)


def submit_preparation(experiment: Experiment, place: Place, workers: int | None) -> Submitted:
    """Have the token shards, or the tars of media, of a recipe made on the cluster, in its storage."""
    if not to_prepare(experiment.data):
        raise BadInput(f"data.kind {experiment.data.kind} is made while training: there is nothing to prepare")
    name, storage = _checked_name(place.name or experiment.name), place.storage_path()
    refuse_secrets(experiment)
    jobs = open_jobs(place.address)
    processes = [] if workers is None else ["--workers", str(workers)]
    arguments = [*processes, "--executor", "local" if place.is_local else "ray", *_joining(place)]
    submission = _submission("prepare", name, storage, None, " ".join(processes), arguments)
    return _hand_over(jobs, submission, place, {RECIPE: config.dump(experiment).encode()}, None)


def submit_resumption(
    job: str, place: Place, overrides: tuple[str, ...] = (), allowed: tuple[str, ...] = ()
) -> Submitted:
    """Go on with the run of a job that is over."""
    jobs = open_jobs(place.address)
    before = jobs.get(job).submission
    if before.run is None:
        raise BadInput(f"job {job} prepares data: submit it again with `prepare`, which goes on where it was")
    run = Path(before.run)
    _refuse_second(jobs, before.run)
    unchecked: str | None = f"{run} is not seen from this machine: the job itself checks what it is resumed with"
    shape = place.shape
    if (run / EXPERIMENT).is_file():
        unchecked = None
        experiment = read_experiment(run, overrides)
        saved = read_experiment(run)
        check_allowed(allowed, {"probe": None}, saved.identity(), experiment.identity())
        refuse_changes(saved.identity(), experiment.identity(), allowed, "experiment")
        shape = shape or as_shape(last_workers(run))
        check_divides(shape.workers, experiment.batch.micro_batches)
        check_resources(jobs, experiment, shape)
    name = run.name
    refused = next((override for override in overrides if redact(override) != override), None)
    if refused is not None:
        raise BadInput(f"{redact(refused)}: a secret would be seen by everyone who may read the cluster's jobs")
    arguments = [*overrides, *(option for key in allowed for option in ("--allow", key))]
    asked = placement_options(shape) if shape else []
    arguments += [*asked, *_joining(place)]
    submission = _submission("resume", name, before.storage, before.run, " ".join(asked) or before.workers, arguments)
    return _hand_over(jobs, submission, place, {}, unchecked)


def _refuse_local(shape: Shape) -> None:
    """Raise BadInput for what only a cluster has."""
    if shape.accelerator is not None:
        raise BadInput(f"--accelerator {shape.accelerator}: is for the nodes of a cluster, and `local` is this machine")
    if shape.per_node is not None and shape.workers != shape.per_node:
        raise BadInput(f"--nodes {shape.workers // shape.per_node}: `local` is this machine alone; --workers N")


def refuse_secrets(experiment: Experiment) -> None:
    """Raise BadInput, naming the keys, where the recipe has a secret: it would lie on the head and on every node."""
    found = redacted_keys(redact_values(experiment.model_dump(mode="json")))
    if found:
        raise BadInput(
            f"{', '.join(found)}: holds a secret, which is not sent with a job; leave it out of the recipe, and give "
            "it to the cluster's nodes by their environment"
        )


def _check_on_storage(experiment: Experiment, storage: Path, run: Path, shape: Shape, place: Place) -> str | None:
    """Check what needs the storage's files; what was left out, where it is not seen from here."""
    if not storage.is_dir():
        if is_of_this_machine(place.address):
            raise BadInput(f"--storage {storage}: there is no such directory")
        return f"{storage} is not seen from this machine: the job itself checks the data and the run directory"
    try:
        with chdir(storage):
            check(experiment, shape, address=None if place.is_local else place.address)
    except BadInput as error:
        if is_of_this_machine(place.address):
            raise
        return f"{storage} of this machine would not do ({error}); the job itself looks at the cluster's"
    if (run / EXPERIMENT).is_file():
        try:
            refuse_changes(read_experiment(run).identity(), experiment.identity(), (), f"experiment of {run}")
        except Refused as error:
            told = str(error).rpartition("\n")[0]
            raise Refused(
                f"{told}\ngive this one another --name, or go on with the changed one: `segue resume` of its job or "
                "directory, with --allow KEY"
            ) from error
    return None


def check_resources(jobs: Jobs, experiment: Experiment, shape: Shape) -> None:
    """Raise BadInput where a cluster of fixed size could never hold the run, saying what is missing."""
    from cluster.jobs.ray_jobs import RayJobs

    if not isinstance(jobs, RayJobs):
        return
    found = jobs.resources()
    needed = worker_resources(experiment.engine.device, shape, found.total)
    if not found.scales and not experiment.supervision.wait_minutes:
        lacks(needed, shape, found.total, found.free)
        places = room_on(found.nodes, needed, shape)
        if places < shape.workers:
            whole = "" if shape.per_node is None else f", {shape.per_node} on each of {shape.workers // shape.per_node}"
            raise BadInput(
                f"workers={shape.workers}: the cluster's nodes have room for {places} of them{whole}; a worker takes "
                f"{' and '.join(f'{amount:g} {name}' for name, amount in needed.items())} of one node"
            )


def _refuse_second(jobs: Jobs, run: str) -> None:
    """Raise Refused where a job is at work on this run already."""
    for state in jobs.all():
        if not state.is_over and state.submission.run == run:
            raise Refused(
                f"job {state.submission.id} is {state.state} on {run} already; follow it with `logs "
                f"{state.submission.id} --follow`, or cancel it first, or give this one another --name"
            )


def _checked_name(name: str) -> str:
    if not RUN_NAME.fullmatch(name):
        raise BadInput(
            f"--name {name!r}: must be up to 63 letters, digits, points, dashes and underscores, and begin with a "
            "letter or digit: the run's directory is called so"
        )
    return name


def placement_options(shape: Shape) -> list[str]:
    """The command line's options that ask for this shape."""
    if shape.per_node is None:
        options = ["--workers", str(shape.workers)]
    else:
        nodes = shape.workers // shape.per_node
        options = ["--nodes", str(nodes), "--workers-per-node", str(shape.per_node)]
    return options + (["--accelerator", shape.accelerator] if shape.accelerator else [])


def _joining(place: Place) -> list[str]:
    return [] if place.is_local else ["--address", "auto"]


def _submission(
    kind: Literal["train", "prepare", "resume"],
    name: str,
    storage: str,
    run: str | None,
    workers: str,
    arguments: list[str],
) -> Submission:
    """With the command: the ordinary command line, in the directory of the unpacked code."""
    subject = shlex.quote(f"runs/{name}") if kind == "resume" else f'"$PWD"/{RECIPE}'
    words = ["python", "launch.py", "-C", shlex.quote(storage), kind, subject, *map(shlex.quote, arguments)]
    if kind != "prepare":
        words += ["--submission", f'"$PWD"/{RECORD}']
    return Submission(
        id=f"{name}-{secrets.token_hex(3)}",
        kind=kind,
        name=name,
        storage=storage,
        run=run,
        command=" ".join(words),
        workers=workers,
        submitted_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _hand_over(
    jobs: Jobs, submission: Submission, place: Place, files: dict[str, bytes], unchecked: str | None
) -> Submitted:
    """Pack the code with the job's own files, and submit."""
    from cluster.jobs.package import revision

    state = revision(ROOT)
    submission = replace(submission, commit=state.commit or "", dirty="yes" if state.dirty else "")
    files = files | {RECORD: json.dumps(asdict(submission), indent=2).encode()}
    if state.patch:
        files[PATCH] = redact(state.patch).encode()
    with tempfile.TemporaryDirectory(prefix="segue-") as folder:
        package = pack(ROOT, files, Path(folder) / f"{submission.id}.zip")
        submission = replace(submission, code=package.digest)
        jobs.submit(submission, package, place.environment)
    return Submitted(submission, package, unchecked)


def wait_until_over(jobs: Jobs, job: str, seconds: float, *, poll_seconds: float = 0.5) -> JobState:
    """The job's state once it is over, or after so long."""
    deadline = time.monotonic() + seconds
    while True:
        state = jobs.get(job)
        if state.is_over or time.monotonic() > deadline:
            return state
        time.sleep(poll_seconds)
