"""Wait until all nodes of a Ray cluster have joined: a job's script does, before it trains.

It only asks the head, and joins nothing itself: a process that joins while its node's Ray still starts is ended by Ray.

python -m cluster.gathering 10.0.0.1:6379 4 --seconds 600
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from cluster.topology import CONNECT_SECONDS, LOOK_SECONDS, port_answers
from data_pipeline.config import GaveUp, SegueError


def names_of_nodes(address: str) -> list[str]:
    """The host name of each node of the cluster whose head is at HOST:PORT; none while the head does not answer."""
    import ray
    from ray.core.generated.gcs_pb2 import GcsNodeInfo
    from ray.exceptions import RayError

    host, _, port = address.rpartition(":")
    if not port_answers(host, int(port)):  # Ray would ask again for a minute
        return []
    try:
        found = ray._raylet.GcsClient(address=address).get_all_node_info(timeout=CONNECT_SECONDS).values()
    except RayError:
        return []
    return sorted(node.node_manager_hostname for node in found if node.state == GcsNodeInfo.ALIVE)


def gather(address: str, nodes: int, seconds: float, *, say: Callable[[str], None] = print) -> None:
    """Return once the cluster has so many nodes; GaveUp where it has not in time."""
    deadline = time.monotonic() + seconds
    there: list[str] = []
    while True:
        found = names_of_nodes(address)
        if found != there:
            there = found
            say(f"{len(there)} of {nodes} nodes have joined: {', '.join(there)}")
        if len(there) >= nodes:
            return
        if time.monotonic() > deadline:
            raise GaveUp(
                f"{len(there)} of {nodes} nodes have joined {address} in {seconds:.0f} s: "
                f"{', '.join(there) or 'none'}; the others' own logs say why; where they only start slowly, give them "
                "longer"
            )
        time.sleep(LOOK_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns an exit code."""
    parser = argparse.ArgumentParser(prog="cluster.gathering", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("nodes", type=int)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args(arguments)
    try:
        gather(given.address, given.nodes, given.seconds, say=lambda line: print(line, flush=True))
    except SegueError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
