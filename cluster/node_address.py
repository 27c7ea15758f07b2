"""The addresses and ports that a node of Ray's takes: of an interface of this machine, loopback if nothing is said."""

import ipaddress
import socket
from dataclasses import dataclass, replace

import psutil

from cluster.topology import LOOPBACK
from data_pipeline.config import BadInput, Refused

HEAD_PORT = 6379
DASHBOARD_PORT = 8265


@dataclass(frozen=True, slots=True)
class Addresses:
    """Of one node; the ports are its head's alone, and None where any will do."""

    host: str
    join: str | None = None
    """The head's address, where it is another's."""
    port: int | None = None
    dashboard_port: int | None = None

    @classmethod
    def check(cls, host: str, join: str | None, port: int | None, dashboard_port: int | None) -> "Addresses":
        """Raises BadInput or Refused for what cannot be."""
        host = _own_address(LOOPBACK if host == "localhost" else host)
        if join is None:
            return cls(host, None, port, dashboard_port)
        for option, value in (("--port", port), ("--dashboard-port", dashboard_port)):
            if value is not None:
                raise BadInput(f"{option} {value}: is the head's, and --join adds a node to a head that runs already")
        join = _head_address(join)
        head = join.rpartition(":")[0]
        if (head == LOOPBACK) != (host == LOOPBACK):
            raise BadInput(
                f"--join {join} --host {host}: one of them is reached from this machine only; give --host an address "
                "of this machine that the head reaches"
                if host == LOOPBACK
                else f"--join {join} --host {host}: a head on loopback is reached from its own machine only; start it "
                "with --host too"
            )
        return cls(host, join)

    @property
    def public(self) -> bool:
        """Whether other machines reach it."""
        return self.host != LOOPBACK

    @property
    def head(self) -> str:
        """Of its cluster."""
        return self.join or f"{self.host}:{self.port}"

    @property
    def dashboard(self) -> str | None:
        """The URL that jobs are submitted to."""
        return None if self.join else f"http://{self.host}:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """For Ray's servers, which have no other switch for it (2.60)."""
        return {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1" if self.public else "0",
            "DASHBOARD_METRIC_PORT": "-1",  # none: it would ask for no token
        }

    def with_ports(self) -> "Addresses":
        """With the ports asked for, which must be free (else BadInput); or the usual ones, or any that are free."""
        if self.join:
            return self
        return replace(
            self,
            port=self._free("--port", self.port, HEAD_PORT),
            dashboard_port=self._free("--dashboard-port", self.dashboard_port, DASHBOARD_PORT),
        )

    def _free(self, option: str, wanted: int | None, usual: int) -> int:
        if wanted is not None and not is_free(self.host, wanted):
            raise BadInput(f"{option} {wanted}: is taken on {self.host}; choose another port, or leave {option} away")
        port = wanted or usual
        return port if is_free(self.host, port) else _some_port(self.host)


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there now; on any interface, where Ray would listen on all."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host if host == LOOPBACK else "", port))
        except OSError:
            return False
    return True


def _some_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _own_address(host: str) -> str:
    """An IPv4 address of one of this machine's interfaces."""
    own = sorted({entry.address for entries in psutil.net_if_addrs().values() for entry in entries
                  if entry.family == socket.AF_INET})  # fmt: skip
    choice = f"name one of this machine's: {', '.join(own)}"
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise BadInput(f"--host {host}: is no IP address; {choice}") from error
    if address.is_unspecified:
        raise Refused(f"--host {host}: would open Ray on every network that this machine is in; {choice}")
    if address.version != 4:
        raise BadInput(f"--host {host}: is no IPv4 address; {choice}")
    if address.is_loopback and host != LOOPBACK:
        raise BadInput(f"--host {host}: Ray knows loopback by one address only; use {LOOPBACK}")
    if host not in own:
        raise BadInput(f"--host {host}: is no address of this machine; {choice}")
    return host


def _head_address(join: str) -> str:
    host, _, port = join.rpartition(":")
    host = LOOPBACK if host == "localhost" else host
    try:
        ipaddress.IPv4Address(host)
    except ValueError as error:
        raise BadInput(f"--join {join}: is no HOST:PORT with an IPv4 address, such as 10.0.0.1:{HEAD_PORT}") from error
    if not (port.isdigit() and 0 < int(port) < 2**16):
        raise BadInput(f"--join {join}: {port or 'nothing'} is no port, as in {host}:{HEAD_PORT}")
    return f"{host}:{port}"
