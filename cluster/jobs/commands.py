"""The verbs for jobs: submit, status, logs, cancel, list; `launch.py` has `resume` and `prepare`, which submit too."""

import json
from typing import Annotated

import typer

from cluster.jobs.follow import follow_to_end
from cluster.jobs.options import Address, JobId, Json
from cluster.jobs.submit_command import submit
from cluster.terminal import console, say

CANCEL_SECONDS = 900.0


def status(
    job: Annotated[
        str | None, typer.Argument(help="A job's id; all jobs, if not given.", metavar="[ID]", show_default=False)
    ] = None,
    *,
    address: Address,
    as_json: Json = False,
) -> None:
    """How a job goes: its state, step and loss, and what is wrong with it."""
    from cluster.jobs.show import job_lines, job_values
    from cluster.jobs.submit import open_jobs

    if job is None:
        list_jobs(address=address, as_json=as_json)
        return
    jobs = open_jobs(address)
    values = job_values(jobs, jobs.get(job))
    if as_json:
        print(json.dumps(values, indent=2))
        return
    for line in job_lines(values):
        say(line)


def logs(
    job: JobId,
    address: Address,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is over; the exit code is the job's.")
    ] = False,
) -> None:
    """What a job has printed."""
    from cluster.jobs.submit import open_jobs

    if follow:
        follow_to_end(address, job)
    else:
        print(open_jobs(address).log(job), end="")


def cancel(
    job: JobId,
    address: Address,
    wait: Annotated[bool, typer.Option(help="Until it has saved and stopped.")] = True,
    as_json: Json = False,
) -> None:
    """Let a job save and stop; `resume ID` goes on with it."""
    from cluster.jobs.show import job_values
    from cluster.jobs.submit import open_jobs, wait_until_over

    jobs = open_jobs(address)
    state = jobs.get(job)
    was_over = state.is_over
    if not was_over:
        jobs.stop(job)
        if wait:
            state = wait_until_over(jobs, job, CANCEL_SECONDS)
    if as_json:
        print(json.dumps(job_values(jobs, state), indent=2))
    elif was_over:
        say(f"job {job} is over already: {state.state}")
    elif not state.is_over:
        say(f"job {job} was asked to save and stop; `status {job}` tells when it has")
    else:
        again = (
            "`prepare`, given again," if state.submission.kind == "prepare" else f"`resume {job} --address {address}`"
        )
        say(f"job {job} is over: {state.state}; {again} goes on with it")


def list_jobs(address: Address, as_json: Json = False) -> None:
    """All jobs, the newest first."""
    from cluster.jobs.show import job_rows, jobs_table
    from cluster.jobs.submit import open_jobs

    states = open_jobs(address).all()
    if as_json:
        print(json.dumps(job_rows(states), indent=2))
    elif states:
        console().print(jobs_table(states))
    else:
        say(f"no jobs at {address}")


def add_verbs(app: typer.Typer) -> None:
    """Give the command line the verbs of this module."""
    for function in (submit, status, logs, cancel):
        app.command()(function)
    app.command("list")(list_jobs)
