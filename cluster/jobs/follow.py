"""A job's log until it is over."""

import typer

END_SECONDS = 10.0
"""A job whose log has ended is told to be over so soon after it."""


def follow_to_end(address: str, job: str) -> None:
    """Print the job's log as it comes; ends this process with the job's exit code."""
    from cluster.jobs.submit import open_jobs, wait_until_over
    from data_pipeline.config import GaveUp

    jobs = open_jobs(address)
    for piece in jobs.follow(job):
        print(piece, end="", flush=True)
    state = wait_until_over(jobs, job, END_SECONDS)
    if not state.is_over:
        raise GaveUp(f"job {job}: its log ends, and it is {state.state} still; `logs {job} --follow` goes on with it")
    if state.ended_with:
        raise typer.Exit(state.ended_with)
