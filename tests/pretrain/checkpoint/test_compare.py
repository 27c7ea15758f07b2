"""Two checkpoints are equal when their bits are, whoever wrote them; what differs is named and measured."""

import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pretrain.checkpoint import CheckpointReader, Comparison, compare
from pretrain.checkpoint import compare as _compare_function  # noqa: F401
from tests.pretrain.checkpoint.cases import DESCRIPTION, cut, save_shares, saved, tensors
