"""log Z from the weights of annealed chains, and the likelihood of a model that is known up to Z.

An estimate of log Z from annealing is too low more often than too high, so that the nats it gives to data are too good.
Hence the two bounds beside it: the mean of log w from below, and that of reverse chains, which start at samples of the
model, from above.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.annealing import check_betas
from evals.metrics.average import average
from evals.metrics.batches import Rows, all_rows, batches_of
from evals.metrics.importance_weights import effective_sample_size, log_mean_error, log_mean_weight


def log_partition(
    log_weights: Rows, *, betas: Sequence[float], transition: str, protocol: Mapping[str, Any]
) -> tuple[Metric, Metric, Metric]:
    """`log_z` with its error, the lower bound `log_z_below` (the mean of log w), and the `effective_sample_size`.

    `log_weights` [N] are those of forward chains, `betas` their temperatures, `transition` says in words what moved
    them. The error of log Z is first order in the spread of the weights: believe it only where the effective size is
    not small. Raises BadInput where no weight is above zero.
    """
    known = {**protocol, **_annealing(betas, transition, "forward")}
    log_w_N = all_rows(log_weights, "log_z")
    value = float(log_mean_weight(log_w_N))
    if not math.isfinite(value):
        raise BadInput(f"log_z: log of the mean weight of {len(log_w_N)} chains is {value}; must be finite")
    error = float(log_mean_error(log_w_N)) if len(log_w_N) > 1 else None
    size = float(effective_sample_size(log_w_N))
    return (
        Metric("log_z", value, "nats", "higher", len(log_w_N), error, known),
        average("log_z_below", log_w_N, unit="nats", better="higher", protocol=known),
        Metric("effective_sample_size", size, "chains", "higher", len(log_w_N), None, known),
    )


def log_partition_above(
    log_weights: Rows, *, betas: Sequence[float], transition: str, protocol: Mapping[str, Any]
) -> Metric:
    """`log_z_above`: minus the mean log-weight of reverse chains, an upper bound if they start at exact samples."""
    known = {**protocol, **_annealing(betas, transition, "reverse")}
    return average(
        "log_z_above", (-batch for batch in batches_of(log_weights)), unit="nats", better="lower", protocol=known
    )


def normalized_nll(unnormalized_log_prob: Rows, log_z: Metric, *, protocol: Mapping[str, Any]) -> Metric:
    """`nll_by_log_z`: log Z - mean log f(x), in nats per example, from log f(x) [N] and a `log_z` of this module.

    The error holds that of the data and that of log Z. It is no bound; with `log_z_above` in place of `log_z` it is
    one.
    """
    energy = average(
        "energy", (-batch for batch in batches_of(unnormalized_log_prob)), unit="", better="lower", protocol={}
    )
    parts = (energy.stderr, log_z.stderr)
    error = math.hypot(*(part for part in parts if part is not None)) if None not in parts else None
    known = {**log_z.protocol, **protocol, "likelihood": f"estimated through {log_z.name}"}
    return Metric("nll_by_log_z", energy.value + log_z.value, "nats/example", "lower", energy.count, error, known)


def _annealing(betas: Sequence[float], transition: str, direction: Literal["forward", "reverse"]) -> dict[str, Any]:
    check_betas(betas)
    if (direction == "forward") != (betas[0] == 0.0):
        raise BadInput(
            f"betas start at {betas[0]}: {direction} chains start at {0.0 if direction == 'forward' else 1.0}"
        )
    digest = hashlib.sha256(torch.tensor(betas, dtype=torch.float64).numpy().tobytes()).hexdigest()
    return {
        "estimator": "annealed importance sampling",
        "direction": direction,
        "temperatures": len(betas) - 1,
        "betas_sha256": digest[:16],
        "transition": transition,
    }
