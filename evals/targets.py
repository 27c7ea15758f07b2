"""What can be evaluated by name: a run of Segue's, a model of the `transformers` library, or a baseline.

`runs/wt103` (or any run directory) is a run: the newest good checkpoint, or that of a step. `hf:gpt2`, `hf:./exported`
is a model of transformers, from the hub or a directory. `kneser-ney:FILE` and `uniform:bytes` are baselines
(`evals.backends.baselines`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_pipeline.config import BadInput
from data_pipeline.tokenizers.stored import load_tokenizer
from evals.backends.baselines import KNESER_NEY, UNIFORM, open_baseline
from evals.backends.huggingface import open_huggingface
from evals.backends.segue import token_model
from evals.checkpointed import checkpoint_hash, load_model, open_checkpoint
from evals.evaluate import changed_model
from evals.scoring.item import TokenModel
from evals.zero_shot import Reader
from pretrain import config
from pretrain.engines.engine import DTYPES, choose_device
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.run_directory import TOKENIZER

HUGGING_FACE = "hf:"


@dataclass(frozen=True)
class Target:
    """A model by name, with what is asked of it; plain values, so that every worker can open it."""

    name: str
    checkpoint: int | None = None
    segment_length: int | None = None
    """Of a model with memory: tokens read at a time (the paper's target length)."""
    memory_length: int | None = None
    clamp_length: int | None = None
    same_length: bool | None = None
    stride: int | None = None
    """Of a model of windows: tokens of running text scored at a time."""
    kernels: tuple[str, ...] = ()

    def open(self) -> tuple[TokenModel, Reader]:
        """BadInput or Corrupt where it cannot be used, or has no such setting."""
        if self.name.startswith(HUGGING_FACE):
            return self._open_huggingface(self.name.removeprefix(HUGGING_FACE))
        if self.name == UNIFORM or self.name.startswith(KNESER_NEY):
            self._refuse_settings_of_runs()
            baseline, words, start = open_baseline(self.name)
            return baseline, Reader(words, start, None)
        return self._open_run(Path(self.name))

    def _open_huggingface(self, place: str) -> tuple[TokenModel, Reader]:
        self._refuse_settings_of_runs()
        model, tokenizer = open_huggingface(place)
        return model, Reader(tokenizer, tokenizer.start, model.max_length, self.stride)

    def _refuse_settings_of_runs(self) -> None:
        given = [name for name in (*MEMORY, "segment_length", "checkpoint") if getattr(self, name) is not None]
        if given or self.kernels:
            raise BadInput(f"{self.name}: {(*given, 'kernel')[0]} is of Segue's runs; leave it out")

    def _open_run(self, directory: Path) -> tuple[TokenModel, Reader]:
        if not directory.is_dir():
            raise BadInput(
                f"{directory}: there is no such directory; give a run's, or {HUGGING_FACE}NAME for transformers"
            )
        reader = open_checkpoint(directory, self.checkpoint)
        experiment = config.parse(Experiment, dict(reader.manifest.experiment), source=str(reader.path))
        if not (directory / TOKENIZER).is_dir():
            raise BadInput(f"{directory}: has no tokenizer, so no text can be asked of it; tasks need a model of text")
        tokenizer = load_tokenizer(directory / TOKENIZER)
        overrides = {name: getattr(self, name) for name in MEMORY if getattr(self, name) is not None}
        model_config = changed_model(experiment.model, overrides)
        device, dtype = choose_device("auto", Group()), DTYPES[experiment.engine.precision]
        kernels = experiment.kernels.changed(self.kernels)
        model = load_model(reader, model_config, dtype=dtype, device=device, kernels=kernels)
        identity: dict[str, Any] = {
            "model": experiment.name,
            "kind": experiment.model.kind,
            "checkpoint": {"step": reader.step, "hash": checkpoint_hash(reader)},
            "tokenizer_hash": tokenizer.hash,
            "dtype": experiment.engine.precision,
        }
        found = token_model(model, identity, segment_length=self.segment_length)
        if self.stride is not None and found.max_length is None:
            raise BadInput("stride: is of models without memory; segment_length says how a model with memory reads")
        if self.segment_length is not None and found.max_length is not None:
            raise BadInput(f"segment_length: model.kind {experiment.model.kind} has no memory; use stride")
        return found, Reader(tokenizer, tokenizer.end_of_document, found.max_length, self.stride)


MEMORY = ("memory_length", "clamp_length", "same_length")


def one_thread() -> None:
    """Workers share the machine's processors: each computes with one."""
    torch.set_num_threads(1)
