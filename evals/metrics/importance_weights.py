"""What log-weights say: w = p / q for samples of q, known only as log w.

Shape legend: K samples; further dimensions are rows, each with its own weights.
"""

import torch
from torch import Tensor


def log_mean_weight(log_w_K: Tensor) -> Tensor:
    """log (1/K sum_k w_k) over the first dimension, in log-sum-exp; -inf is a weight of zero."""
    return torch.logsumexp(log_w_K, 0) - torch.log(torch.tensor(float(len(log_w_K)), dtype=log_w_K.dtype))


def effective_sample_size(log_w_K: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 over the first dimension: between 1 and K (Kong 1992). Blind to what no sample has met."""
    return (2 * torch.logsumexp(log_w_K, 0) - torch.logsumexp(2 * log_w_K, 0)).exp()


def log_mean_error(log_w_K: Tensor) -> Tensor:
    """Standard error of `log_mean_weight`: that of the mean weight, through the logarithm to first order (K > 1)."""
    relative_K = (log_w_K - log_mean_weight(log_w_K)).exp()
    return relative_K.std(0) / len(log_w_K) ** 0.5
