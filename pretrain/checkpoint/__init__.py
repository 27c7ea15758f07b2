"""Checkpoints for any number of workers: written as a whole or not at all, hashed, read in any cut."""

from pretrain.checkpoint.background import Saver
from pretrain.checkpoint.comparison import Comparison, TensorComparison, compare
from pretrain.checkpoint.export import export_weights, gather_tensors, gather_weights, whole
from pretrain.checkpoint.holds import held
from pretrain.checkpoint.listing import CheckpointInfo, list_checkpoints
from pretrain.checkpoint.manifest import Description, Manifest
from pretrain.checkpoint.phases import NotSaved, Phase
from pretrain.checkpoint.piece import Piece, Reader
from pretrain.checkpoint.pins import pin, unpin
from pretrain.checkpoint.pointer import move_pointer
from pretrain.checkpoint.read import CheckpointReader, good_checkpoints, latest, newest_good, verify
from pretrain.checkpoint.retention import Pruning, prune, retain
from pretrain.checkpoint.space import check_space
from pretrain.checkpoint.state import check_state
from pretrain.checkpoint.write import save

__all__ = [
    "CheckpointInfo",
    "CheckpointReader",
    "Comparison",
    "Description",
    "Manifest",
    "NotSaved",
    "Phase",
    "Piece",
    "Pruning",
    "Reader",
    "Saver",
    "TensorComparison",
    "check_space",
    "check_state",
    "compare",
    "export_weights",
    "gather_tensors",
    "gather_weights",
    "good_checkpoints",
    "held",
    "latest",
    "list_checkpoints",
    "move_pointer",
    "newest_good",
    "pin",
    "prune",
    "retain",
    "save",
    "unpin",
    "verify",
    "whole",
]
