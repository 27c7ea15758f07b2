"""What a process needs before DeepSpeed can be used in it, done without launcher, compiler or network.

Checked with DeepSpeed 0.19.8: every name that is private there, and used to start it, is in this file.
"""

import logging
import os
import warnings

import torch
import torch.distributed as dist

from pretrain.group import Group


def start(group: Group, device: torch.device) -> None:
    """Import DeepSpeed for `device` and let it use the process group of this run; a second call changes nothing."""
    os.environ["DS_ACCELERATOR"] = device.type
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(group.rank), str(group.world_size)
    os.environ["LOCAL_RANK"] = str(group.local_rank)
    if not dist.is_initialized():
        join_alone(device)
    import deepspeed

    silence()
    forbid_compiling()
    deepspeed.init_distributed(dist_init_required=False, verbose=False)


def join_alone(device: torch.device) -> None:
    """A process group of one, as DeepSpeed wants; its store is in memory, so no port is involved."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def forbid_compiling() -> None:
    """`init_distributed` would compile a shared-memory collective: 50 s, and it needs a C++ compiler."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def silence() -> None:
    """Errors only, and no report of memory, with a full garbage collection each, from the bfloat16 optimizer."""
    from deepspeed.runtime import bf16_optimizer
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    bf16_optimizer.see_memory_usage = lambda message, force=False: None
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(deepspeed|torch)\.")
