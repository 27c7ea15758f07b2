"""What `segue cluster status` tells: the nodes that were started on this machine, and the clusters that they are in."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cluster import ray_token
from cluster.head_check import check_head
from cluster.losses import first_line
from cluster.node_record import NodeRecord
from cluster.ray_session import RAY_ENVIRONMENT
from cluster.topology import LOOPBACK, address_answers
from data_pipeline.config import GaveUp, SegueError

ANSWER_SECONDS = 10.0
SHOWN = ("CPU", "GPU", "TPU")
"""Of what a node has; Ray's names for its memory, its address and its accelerators are in the JSON."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the head of its cluster sees it."""

    host: str
    alive: bool
    head: bool
    total: dict[str, float]
    """Resources by name; empty where it is gone."""
    free: dict[str, float]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster that this machine has a node of."""

    address: str
    dashboard: str | None
    """The URL to submit to, where its head is on this machine."""
    authenticated: bool
    problem: str | None
    """Why the rest is not known; begins with the address."""
    nodes: list[NodeView] = field(default_factory=list)

    @property
    def total(self) -> dict[str, float]:
        return _sum([node.total for node in self.nodes])

    @property
    def free(self) -> dict[str, float]:
        return _sum([node.free for node in self.nodes])

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total, "free": self.free}


def clusters(records: Sequence[NodeRecord]) -> list[ClusterView]:
    """Of these nodes."""
    by_address: dict[str, NodeRecord] = {}
    for record in records:  # heads come first, and know most
        by_address.setdefault(record.address, record)
    return [_look(record) for record in by_address.values()]


def to_json(records: Sequence[NodeRecord], views: Sequence[ClusterView]) -> dict[str, Any]:
    """All that is known."""
    return {
        "nodes": [
            {
                "name": record.name,
                "head": record.head,
                "address": record.address,
                "host": record.host,
                "lives": record.lives,
                "servers": {owner.token: owner.pid for owner in record.servers},
                "ended": record.ended,
                "directory": record.directory,
            }
            for record in records
        ],
        "clusters": [view.to_json() for view in views],
    }


def lines(records: Sequence[NodeRecord], views: Sequence[ClusterView]) -> list[str]:
    """The same for people."""
    if not records:
        return ["no node of Ray's was started on this machine; `segue cluster start` starts one"]
    return [line for view in views for line in _cluster_lines(view)] + [_record_line(record) for record in records]


def is_well(records: Sequence[NodeRecord], views: Sequence[ClusterView]) -> bool:
    """Whether all that was started runs."""
    return all(not record.ended and record.lives for record in records) and all(not view.problem for view in views)


def running_jobs(record: NodeRecord) -> list[str]:
    """The ids of the jobs on the node's cluster, and the commands of other drivers; Ray's own are left out."""
    if not address_answers(record.address):
        return []
    jobs = _head_of(record).get_all_job_info(timeout=ANSWER_SECONDS).values()
    alive = [job for job in jobs if not job.is_dead and not job.config.ray_namespace.startswith("_ray_internal")]
    return [job.config.metadata.get("job_submission_id") or job.entrypoint[:80] for job in alive]


def _look(record: NodeRecord) -> ClusterView:
    view = ClusterView(record.address, record.dashboard, record.authenticated, None)
    try:
        nodes, usage = _ask(record)
    except SegueError as error:
        return replace(view, problem=str(error))
    free = {resources.node_id: dict(resources.resources_available) for resources in usage}
    for node in nodes:
        alive = node.state == node.ALIVE
        total = dict(node.resources_total) if alive else {}
        left = free.get(node.node_id, {}) if alive else {}
        view.nodes.append(NodeView(node.node_manager_address, alive, node.is_head_node, total, left))
    view.nodes.sort(key=lambda node: (not node.head, not node.alive, node.host))
    return view


def _ask(record: NodeRecord) -> tuple[list[Any], list[Any]]:
    """Ray's entries of all nodes, and of what they use."""
    gcs = _head_of(record)
    from ray.exceptions import RayError

    try:
        nodes = gcs.get_all_node_info(timeout=ANSWER_SECONDS).values()
        return list(nodes), list(gcs.get_all_resource_usage(timeout=ANSWER_SECONDS).resource_usage_data.batch)
    except RayError as error:
        raise GaveUp(f"{record.address}: {first_line(error)}") from error


def _head_of(record: NodeRecord) -> Any:
    """A client of the cluster's head; raises SegueError where that does not answer or takes another token."""
    os.environ.update(RAY_ENVIRONMENT)
    if record.authenticated:
        ray_token.turn_on(make=False)
    check_head(record.address, authenticated=record.authenticated)
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return GcsClient(address=record.address)


def _sum(amounts: Sequence[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for amount in amounts for name in amount})
    return {name: sum(amount.get(name, 0.0) for amount in amounts) for name in names}


def _cluster_lines(view: ClusterView) -> list[str]:
    if view.problem:
        return [f"cluster at {view.problem}"]
    alive = sum(node.alive for node in view.nodes)
    gone = len(view.nodes) - alive
    told = [
        f"cluster at {view.address}: {alive} {'node' if alive == 1 else 'nodes'}{f', {gone} gone' if gone else ''}; "
        f"{_amounts(view.total, view.free)}; {'asks for the token' if view.authenticated else 'asks for no token'}"
    ]
    told += [
        f"  {node.host}{' (head)' if node.head else ''}: " + (_amounts(node.total, node.free) if node.alive else "gone")
        for node in view.nodes
    ]
    return told + ([f"  submit with --address {view.dashboard}"] if view.dashboard else [])


def _amounts(total: dict[str, float], free: dict[str, float]) -> str:
    """Of the resources that are shown.

    >>> _amounts({"CPU": 4.0, "GPU": 1.0, "memory": 7.0}, {"CPU": 3.0})
    '4 CPU, 3 free, 1 GPU, 0 free'
    """
    shown = [f"{total[name]:g} {name}, {free.get(name, 0.0):g} free" for name in SHOWN if name in total]
    return ", ".join(shown) or "nothing to run on"


def _record_line(record: NodeRecord) -> str:
    gone = f"{'is gone' if record.servers else 'was not started to its end'}; `segue cluster stop {record.name}`"
    state = f"on {record.host}" if record.lives else f"{gone} removes what is left"
    ended = f"; its {' and '.join(record.ended)} ended" if record.lives and record.ended else ""
    return f"started here: {record.name} {state}{ended}"


def start_lines(record: NodeRecord) -> list[str]:
    """What a node that was just started is good for."""
    if not record.head:
        return [f"{record.name} joined the cluster at {record.address}, as {record.host}"]
    join = f"segue cluster start --join {record.address}"
    told = [
        f"{record.name}: a Ray cluster at {record.address}; `{join}` adds a node",
        f"submit to it with --address {record.dashboard}",
    ]
    if record.host != LOOPBACK:
        told.append(
            "Ray listens on every interface of this machine, not only on this address, and does not encrypt: whoever "
            "has not got the token is turned away, but keep the network closed all the same"
        )
    return told
