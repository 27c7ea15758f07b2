"""Checkpoints for any number of workers: written as a whole or not at all, hashed, read in any cut."""

from pretrain.checkpoint.comparison import Comparison, TensorComparison, compare
from pretrain.checkpoint.export import gather_tensors, gather_weights, whole
from pretrain.checkpoint.listing import CheckpointInfo, list_checkpoints
from pretrain.checkpoint.manifest import Description, Manifest
from pretrain.checkpoint.piece import Piece, Reader
from pretrain.checkpoint.pointer import move_pointer
from pretrain.checkpoint.read import CheckpointReader, good_checkpoints, latest, newest_good, verify
from pretrain.checkpoint.retention import discard, retain
from pretrain.checkpoint.write import NotSaved, Phase, check_space, save

__all__ = [
    "CheckpointInfo",
    "CheckpointReader",
    "Comparison",
    "Description",
    "Manifest",
    "NotSaved",
    "Phase",
    "Piece",
    "Reader",
    "TensorComparison",
    "check_space",
    "compare",
    "discard",
    "gather_tensors",
    "gather_weights",
    "good_checkpoints",
    "latest",
    "list_checkpoints",
    "move_pointer",
    "newest_good",
    "retain",
    "save",
    "verify",
    "whole",
]
