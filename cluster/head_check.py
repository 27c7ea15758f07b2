"""Whether the head of a Ray cluster is there, keeps strangers out, and takes this user's token; asked before Ray is.

Ray itself waits for minutes for a head that does not answer, and ends the process where it finds no token (2.60).
"""

import os
import urllib.error
import urllib.request
from collections.abc import Sequence

from cluster import ray_token
from cluster.topology import CONNECT_SECONDS, address_answers
from data_pipeline.config import BadInput, Refused

ANSWER_SECONDS = 10.0


def check_head(address: str, *, authenticated: bool) -> None:
    """Raise BadInput where it does not answer or takes another token; Refused where it asks for none, but should."""
    if not address_answers(address):
        raise BadInput(
            f"{address}: nothing answers there within {CONNECT_SECONDS:.0f} s; is the head started, and is this its "
            "address? `segue cluster status` on its machine says so"
        )
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # Ray's certificates are Ray's matter
    asks = not _takes(address, [])
    if authenticated and not asks:
        raise Refused(
            f"{address}: that cluster asks for no token, and whoever reaches a node of it could run programs there; "
            f"start its head anew without {ray_token.MODE}=disabled"
        )
    if asks and not authenticated:
        raise BadInput(f"{address}: that cluster asks for the token, and here {ray_token.why_off()}")
    if asks and not _takes(address, _own_token()):
        raise BadInput(
            f"{address}: that cluster has another token than {ray_token.token_place()}; copy the one of its head's "
            "machine there"
        )


def check_refuses_strangers(address: str, dashboard: str) -> None:
    """Raise Refused where a head, or the server that jobs are submitted to, answers who has no token."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{dashboard}/api/jobs/", timeout=ANSWER_SECONDS):
            answered = True
    except urllib.error.HTTPError as error:
        answered = error.code not in (401, 403)
    if answered or _takes(address, []):
        raise Refused(f"{address}: Ray answers who has no token, though it was told to ask for it; it was ended again")


def _takes(address: str, token: Sequence[tuple[str, str]]) -> bool:
    """Whether the head answers who comes with this token, or with none; BadInput where it is no head of Ray's."""
    import grpc
    from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=ANSWER_SECONDS, metadata=token)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise BadInput(f"{address}: what answers there is no head of Ray's: {error.details()}") from error
    return True


def _own_token() -> list[tuple[str, str]]:
    """As Ray sends it."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    return list(AuthenticationTokenLoader.instance().get_token_for_http_header().items())
