"""Wait until all nodes of a Ray cluster have joined: a job's script does, before it trains.

python -m cluster.gathering 4 --seconds 600
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence

from cluster.topology import LOOK_SECONDS
from data_pipeline.config import GaveUp, SegueError


def gather(nodes: int, seconds: float, *, say: Callable[[str], None] = print) -> None:
    """Return once the cluster that this process has joined has so many nodes; GaveUp where it has not in time."""
    import ray

    deadline = time.monotonic() + seconds
    there: list[str] = []
    while True:
        found = sorted(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])
        if found != there:
            there = found
            say(f"{len(there)} of {nodes} nodes have joined: {', '.join(there)}")
        if len(there) >= nodes:
            return
        if time.monotonic() > deadline:
            raise GaveUp(
                f"{len(there)} of {nodes} nodes have joined in {seconds:.0f} s: {', '.join(there)}; the others' own "
                "logs say why; where they only start slowly, give them longer"
            )
        time.sleep(LOOK_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Join the cluster of RAY_ADDRESS, and wait there; returns an exit code."""
    parser = argparse.ArgumentParser(prog="cluster.gathering", description=__doc__)
    parser.add_argument("nodes", type=int)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args(arguments)
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        gather(given.nodes, given.seconds)
    except ConnectionError as error:
        print(f"no Ray cluster answers: {error}", file=sys.stderr)
        return GaveUp.exit_code
    except SegueError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
