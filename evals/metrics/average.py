"""The mean over examples with its standard error, as a Metric."""

from collections.abc import Mapping
from typing import Any, Literal

from data_pipeline.config import BadInput
from evals.metric import Metric, mean_and_error
from evals.metrics.batches import Rows, all_rows


def average(
    name: str, values: Rows, *, unit: str, better: Literal["lower", "higher"] | None, protocol: Mapping[str, Any]
) -> Metric:
    """Of one number for each example: [N], or batches of it.

    Sums are rounded once (`math.fsum`), so that neither batches nor order change a bit. One infinite value makes the
    mean infinite, without an error. Raises BadInput for no values, or one that is not a number.
    """
    values_N = all_rows(values, name)
    if values_N.ndim != 1:
        raise BadInput(f"{name}: values have shape {tuple(values_N.shape)}; must be one number for each example")
    if values_N.isfinite().all():
        mean, error = mean_and_error(values_N.tolist())
    else:
        mean, error = float(values_N.mean()), None
    return Metric(name, mean, unit, better, len(values_N), error, dict(protocol))
