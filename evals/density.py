"""What a model of independent vectors says of held-out data: log p(x) itself, a bound of it, or log p(x) + log Z.

    exact          nll, and bits_per_dimension where the data has levels; the protocol's `probability_of` says of what
                   (256 mu-law codes are not 65,536 levels)
    bound          negative_elbo, and negative_iwae_K with K importance samples (Burda et al. 2016, equation 8); the
                   last in bits_per_dimension_bound too, where the model gives levels probabilities
    unnormalized   mean unnormalized_log_prob, which says nothing across models, and what log Z makes of it: nll where
                   log Z is exact (of an RBM by enumeration of few enough units, of points of the plane by a grid),
                   else nll_by_log_z by annealed importance sampling. An RBM's is of zeros and ones: of grey values,
                   whose probabilities do not sum to one, there is none.

Shape legend: R rows of a batch.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from data_pipeline.batch import VectorBatch, to_device
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import VectorData
from evals.energy_partition import annealed_log_partition, grid_log_partition
from evals.metric import Metric
from evals.metrics.average import average
from evals.metrics.likelihood import bits_per_dimension, negative_log_likelihood
from evals.metrics.partition import normalized_nll
from evals.metrics.rbm_partition import rbm_log_partition
from evals.vectors import batch_of
from pretrain.contract import BoundedLikelihood, ExactLikelihood, Model, UnnormalizedDensity
from pretrain.models.autoregressive.visible import VisibleModel
from pretrain.models.energy.energy_based import EnergyBased
from pretrain.models.energy.rbm import MOST_ENUMERATED, RBM
from pretrain.rng import seed_everything

TEMPERATURES, CHAINS = 1000, 500
"""Of annealed importance sampling."""


def density_metrics(
    model: Model,
    data: VectorData,
    vectors: Vectors,
    *,
    rows: int,
    samples: int,
    seed: int,
    device: torch.device,
    protocol: Mapping[str, Any],
    levels: int | None = None,
) -> list[Metric]:
    """All that the model can say; `samples` are those of a row's latents. The noise of a batch is a function of `seed`
    and its number, so that a number depends on `rows` where there is noise. `levels` of a value are those that a bound
    is of the probability of; None where it is of a density."""
    each = partial(_each, vectors=vectors, rows=rows, seed=seed, device=device)
    known = {**protocol, "seed": seed}
    if isinstance(model, ExactLikelihood):
        known["probability_of"] = _outcomes(model, data)
        log_prob = list(each(model.log_prob))
        found = [negative_log_likelihood(log_prob, protocol=known)]
        if data.num_levels is not None:
            size = vectors.stored.shape[1]
            bits = bits_per_dimension(log_prob, num_dimensions=size, dequantization=None, protocol=known)
            found.append(bits)
        return found
    if isinstance(model, BoundedLikelihood):
        bounds = {number: list(each(partial(model.log_prob_bound, samples=number))) for number in (1, samples)}
        found = [_bound(bound, number, known) for number, bound in bounds.items()]
        if levels is not None:
            of_last = {**known, "bound": "importance weighted", "samples": samples}
            size = vectors.stored.shape[1]
            bits = bits_per_dimension(bounds[samples], num_dimensions=size, dequantization=None, protocol=of_last)
            bound = {**bits.protocol, "value_is": "an upper bound"}
            found.append(replace(bits, name="bits_per_dimension_bound", protocol=bound))
        return found
    if isinstance(model, UnnormalizedDensity):
        energies = list(each(model.unnormalized_log_prob))
        grey = isinstance(model, RBM) and data.values != "binary"
        about = {**known, "value_is": "minus the free energy of grey values" if grey else "log p(x) + log Z"}
        found = [average("unnormalized_log_prob", energies, unit="nats/example", better=None, protocol=about)]
        if isinstance(model, RBM) and not grey:
            found += _of_rbm(model, data, energies, known)
        if isinstance(model, EnergyBased):
            found += _of_energy(model, data, energies, known)
        return found
    return []


def _outcomes(model: Model, data: VectorData) -> str:
    """What the model gives a probability; numbers of different outcomes do not compare."""
    if isinstance(model, VisibleModel):
        return model.outcomes
    return "real values, as a density" if data.values == "real" else f"{data.values} of the data"


def _of_energy(
    model: EnergyBased, data: VectorData, energies: list[Tensor], protocol: Mapping[str, Any]
) -> list[Metric]:
    """Of the density exp(-E) / Z, whatever the temperature of the chains; of levels too it is a density's."""
    protocol = {**protocol, "density": "exp(-E(x)) / Z"}
    if data.shape == (2,):
        reach = 2.0 * float(abs(data.vectors("train").fixed().values).max())
        log_z, how = grid_log_partition(model, reach)
        return [negative_log_likelihood([energy_R - log_z for energy_R in energies], protocol={**protocol, **how})]
    partition = annealed_log_partition(model, seed=protocol["seed"], protocol=protocol)
    return [normalized_nll(energies, partition[0], protocol=protocol), *partition]


def _of_rbm(model: RBM, data: VectorData, energies: list[Tensor], protocol: Mapping[str, Any]) -> list[Metric]:
    if min(len(model.visible_bias_D), len(model.hidden_bias_H)) <= MOST_ENUMERATED:
        log_z = model.log_partition()
        known = {**protocol, "log_z": log_z, "log_z_is": "exact, by enumeration"}
        return [negative_log_likelihood([energy_R - log_z for energy_R in energies], protocol=known)]
    train_ND = torch.from_numpy(data.vectors("train").fixed().values)
    partition = rbm_log_partition(
        model, train_ND, temperatures=TEMPERATURES, chains=CHAINS, seed=protocol["seed"], protocol=protocol
    )
    return [normalized_nll(energies, partition[0], protocol=protocol), *partition]


def _bound(log_prob: list[Tensor], samples: int, protocol: Mapping[str, Any]) -> Metric:
    name = "negative_elbo" if samples == 1 else f"negative_iwae_{samples}"
    values = (-bound_R for bound_R in log_prob)
    known = {**protocol, "bound": "importance weighted", "samples": samples}
    return average(name, values, unit="nats/example", better="lower", protocol=known)


@torch.no_grad()
def _each(
    score: Callable[[VectorBatch], Tensor], *, vectors: Vectors, rows: int, seed: int, device: torch.device
) -> Iterator[Tensor]:
    """[R] of every batch."""
    for number, start in enumerate(range(0, len(vectors.labels), rows)):
        seed_everything(seed, "density", number)
        batch = cast(VectorBatch, to_device(batch_of(vectors, start, rows), device))
        yield score(batch).double().cpu()
