"""log Z of a restricted Boltzmann machine by annealed importance sampling, with its error and effective sample size.

The path starts at independent units whose means are the data's, smoothed by one half of a 0 and of a 1, as in
Salakhutdinov & Murray 2008 (https://doi.org/10.1145/1390156.1390290), with betas evenly spaced.

Shape legend: N rows of data, D visible units, R chains.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from evals.metric import Metric
from evals.metrics.annealing import anneal, evenly_spaced
from evals.metrics.partition import log_partition
from evals.metrics.rbm_path import RBMPath
from pretrain.models.energy.rbm import RBM
from pretrain.rng import seed_at


def rbm_path(model: RBM, data_ND: Tensor) -> RBMPath:
    """The path from units with the means of the data to the model, in float64 on the CPU wherever the model is."""
    ones_D = data_ND.to("cpu", torch.float64).sum(0) + 0.5
    weight_DH, visible_D, hidden_H = (
        parameter.detach().to("cpu", torch.float64)
        for parameter in (model.weight_DH, model.visible_bias_D, model.hidden_bias_H)
    )
    return RBMPath(
        weight_DH=weight_DH,
        visible_bias_D=visible_D,
        hidden_bias_H=hidden_H,
        base_logits_D=ones_D.log() - (len(data_ND) + 1 - ones_D).log(),
    )


def rbm_log_partition(
    model: RBM, data_ND: Tensor, *, temperatures: int, chains: int, seed: int, protocol: Mapping[str, Any]
) -> tuple[Metric, Metric, Metric]:
    """`log_z` with its error, `log_z_below` and `effective_sample_size` of so many chains."""
    path, betas = rbm_path(model, data_ND), evenly_spaced(temperatures)
    generator = torch.Generator().manual_seed(seed_at(seed, "annealing"))
    annealed = anneal(path.start(chains, generator), path, betas, generator)
    known = {**protocol, "base": "the data's means", "seed": seed}
    return log_partition(annealed.log_w_R, betas=betas, transition="one Gibbs step", protocol=known)
