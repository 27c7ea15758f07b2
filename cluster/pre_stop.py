"""What Kubernetes runs in a pod that it is about to stop: the run's processes there are told, and given time to save.

A worker that is told makes all workers stop after their step, save and end; the driver then ends with exit code 5.

python -m cluster.pre_stop --seconds 300
"""

import argparse
import sys
from collections.abc import Iterable, Sequence

import psutil

WORKER_TITLE = "ray::Worker"
"""How Ray calls the process of `cluster.worker.Worker`, whatever it does."""


def is_of_a_run(command: Sequence[str]) -> bool:
    """Whether this is the command line of a run's driver, or of one of its workers.

    >>> is_of_a_run(["ray::Worker.train"]), is_of_a_run(["python", "segue", "train", "r.yaml", "--carry-on"])
    (True, True)
    >>> is_of_a_run(["sh", "-c", "segue train r.yaml --carry-on"]), is_of_a_run([])
    (False, False)
    """
    return ("train" in command and "--carry-on" in command) or (bool(command) and command[0].startswith(WORKER_TITLE))


def stop(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Tell those of a run to save and stop, and wait for them; returns those that have not ended in time."""
    told = []
    for process in processes:
        try:
            if is_of_a_run(process.cmdline()):
                process.terminate()
                told.append(process)
        except psutil.Error:  # ended meanwhile, or of another user
            continue
    _, left = psutil.wait_procs(told, timeout=seconds)
    return left


def main(arguments: Sequence[str] | None = None) -> int:
    """Stop what this pod has of a run; returns an exit code."""
    parser = argparse.ArgumentParser(prog="cluster.pre_stop", description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    left = stop(psutil.process_iter(), parser.parse_args(arguments).seconds)
    if left:
        print(f"processes {[process.pid for process in left]} have not saved in time", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
