"""Saving: all workers write their pieces, and either the whole checkpoint comes to be or nothing changes.

The order is what makes it safe against a crash at any moment: worker files, manifest, rename, pointer, each on the
disk before the next is begun. Only then the older revision of the same step, if there is one, is removed.

Workers meet after each stage and tell whether they failed, so that all raise the same error and none waits for one
that gave up. Everything here runs on the given group only: a save in the background takes a group of its own.
"""

import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from data_pipeline.config import Corrupt, SegueError
from pretrain.checkpoint.durable import create_directory, move_directory, remove, replace_file
from pretrain.checkpoint.layout import MANIFEST, Place, checkpoints_of, leftovers, places, worker_file
from pretrain.checkpoint.manifest import (
    TENSOR_NAME_PATTERN,
    Manifest,
    Metadata,
    StoredTensor,
    TensorName,
    tiling_problems,
    versions,
)
from pretrain.checkpoint.piece import Piece
from pretrain.checkpoint.pointer import move_pointer, pointed_place
from pretrain.checkpoint.worker_file import file_size, write_worker_file
from pretrain.group import Group
