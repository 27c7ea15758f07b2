"""Kernels run compiled where there is a GPU, and in Triton's interpreter where there is none."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the first kernel is defined
