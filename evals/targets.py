"""What can be evaluated by name: a run of Segue's, a model of the `transformers` library, or a baseline.

`runs/wt103` (or any run directory) is a run: the newest good checkpoint, or that of a step. What `launch.py export`
wrote (`NAME.safetensors`, or a directory with a GPT-2's config.json) is read by Segue itself; `hf:gpt2`,
`hf:./exported` by transformers, from the hub or a directory. `kneser-ney:FILE` and `uniform:bytes` are baselines
(`evals.backends.baselines`).
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data_pipeline.config import BadInput, Corrupt
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from evals.backends.baselines import KNESER_NEY, UNIFORM, baseline_file, open_baseline
from evals.backends.huggingface import open_huggingface
from evals.backends.segue import token_model
from evals.checkpointed import checkpoint_hash, load_model, open_checkpoint
from evals.evaluate import changed_model
from evals.exports import SUFFIX, is_export, open_export
from evals.scoring.item import TokenModel
from evals.zero_shot import Reader
from pretrain import config
from pretrain.checkpoint import CheckpointReader
from pretrain.contract import Model
from pretrain.engines.engine import DTYPES, choose_device
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.models import ModelConfig
from pretrain.run_directory import EXPERIMENT, TOKENIZER

HUGGING_FACE = "hf:"
COMPUTED_IN = torch.float32
"""Of runs and exports, whatever dtype their weights are rounded to: in bfloat16 sums of a batch of other size differ in
digits that are printed."""


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
    dtype: str | None = None
    """Of a model of transformers, which is computed in float32 otherwise; in another its digits depend on batches."""
    context: int | None = None
    """Tokens that a model of windows reads at a time, rather than all that it can."""
    worker: int = 0
    """Which of several on this machine opens it: each takes an accelerator of its own."""

    @property
    def short_name(self) -> str:
        """For tables: without the directories that it lies in."""
        kind, colon, place = self.name.rpartition(":")
        return kind + colon + Path(place).name

    def open(self) -> tuple[TokenModel, Reader]:
        """BadInput or Corrupt where it cannot be used, or has no such setting."""
        if self.name.startswith(HUGGING_FACE):
            return self._open_huggingface(self.name.removeprefix(HUGGING_FACE))
        if self.name == UNIFORM or self.name.startswith(KNESER_NEY):
            self._refuse_settings_of_runs()
            baseline, words, start = open_baseline(self.name)
            return baseline, Reader(words, start, None, unknown=words.unknown, lossless=words.unknown is None)
        return self._open_run(Path(self.name))

    def _open_huggingface(self, place: str) -> tuple[TokenModel, Reader]:
        self._refuse_settings_of_runs()
        dtype = getattr(torch, self.dtype or "float32")
        model, tokenizer = open_huggingface(place, dtype=dtype, device=self._device(), context=self.context)
        return model, Reader(
            tokenizer,
            tokenizer.start,
            model.max_length,
            self.stride,
            unknown=tokenizer.unknown,
            lossless=tokenizer.lossless,
            prefix=tokenizer.prefix,
        )

    def _device(self) -> torch.device:
        count = torch.cuda.device_count()
        return choose_device("auto", Group(local_rank=self.worker % count if count else 0))

    def check(self) -> None:
        """BadInput for a name that stands for nothing here, without loading any weights."""
        place = Path(self.name)
        if self.name == UNIFORM:
            return
        if self.name.startswith(KNESER_NEY):
            baseline_file(self.name)
        elif not self.name.startswith(HUGGING_FACE) and not is_export(place):
            with closing(open_checkpoint(self._run(place), self.checkpoint)) as reader:
                self._experiment_of(reader)

    @contextmanager
    def held(self) -> Iterator["Target"]:
        """The same with the step of the checkpoint that it is opened with, which stays where it is meanwhile.

        So whoever opens it has the same weights, though a run that trains on may have newer ones and remove these.
        """
        place = Path(self.name)
        if not (place / EXPERIMENT).is_file() or is_export(place):
            yield self
            return
        with closing(open_checkpoint(place, self.checkpoint)) as reader:
            yield replace(self, checkpoint=reader.step)

    def _refuse_settings_of_runs(self) -> None:
        given = [name for name in (*MEMORY, "segment_length", "checkpoint") if getattr(self, name) is not None]
        if not self.name.startswith(HUGGING_FACE) and (self.dtype or self.context or self.stride):
            raise BadInput(f"{self.name}: dtype, context and stride are of models of windows; leave them out")
        if given or self.kernels:
            raise BadInput(f"{self.name}: {(*given, 'kernel')[0]} is of Segue's runs; leave it out")

    def _run(self, directory: Path) -> Path:
        if not (directory / EXPERIMENT).is_file():
            raise BadInput(
                f"{self.name}: is no run ({EXPERIMENT} is missing), no export (FILE{SUFFIX}, or a directory with "
                f"config.json), no {HUGGING_FACE}NAME of transformers, no {KNESER_NEY}FILE and not {UNIFORM}"
            )
        if not (directory / TOKENIZER).is_dir():
            raise BadInput(f"{directory}: has no tokenizer, so no text can be asked of it; tasks need a model of text")
        return directory

    @staticmethod
    def _experiment_of(reader: CheckpointReader) -> Experiment:
        return config.parse(Experiment, dict(reader.manifest.experiment), source=str(reader.path))

    def _open_run(self, directory: Path) -> tuple[TokenModel, Reader]:
        if is_export(directory):
            return self._open_export(directory)
        with closing(open_checkpoint(self._run(directory), self.checkpoint)) as reader:
            experiment = self._experiment_of(reader)
            device, dtype = self._device(), DTYPES[experiment.engine.precision]
            kernels, model_config = experiment.kernels.changed(self.kernels), self._changed(experiment.model)
            model = load_model(
                reader, model_config, dtype=dtype, device=device, kernels=kernels, computed_in=COMPUTED_IN
            )
            checkpoint = {"step": reader.step, "hash": checkpoint_hash(reader)}
        identity: dict[str, Any] = {
            "model": experiment.name,
            "kind": experiment.model.kind,
            "checkpoint": checkpoint,
            "kernels": kernels.model_dump(mode="json"),
            "device": device.type,
            "weights_dtype": _name(dtype),
        }
        return self._read_by(model, load_tokenizer(directory / TOKENIZER), identity)

    def _changed(self, model: ModelConfig) -> ModelConfig:
        return changed_model(model, {name: getattr(self, name) for name in MEMORY if getattr(self, name) is not None})

    def _open_export(self, path: Path) -> tuple[TokenModel, Reader]:
        if self.checkpoint is not None:
            raise BadInput(f"{path}: an export has one checkpoint; leave out checkpoint")
        found = open_export(path)
        device, model = self._device(), self._changed(found.model).build()
        try:
            model.load_state_dict(found.weights)
        except RuntimeError as error:
            raise Corrupt(f"{path}: its weights are not those of its experiment ({error}); export it anew") from error
        kernels = found.kernels.changed(self.kernels)
        kernels.tell(model, device, COMPUTED_IN)
        identity = found.identity | {"kernels": kernels.model_dump(mode="json"), "device": device.type}
        return self._read_by(model.to(device).eval(), found.tokenizer, identity)

    def _read_by(self, model: Model, tokenizer: Tokenizer, identity: dict[str, Any]) -> tuple[TokenModel, Reader]:
        identity |= {"tokenizer_hash": tokenizer.hash, "dtype": _name(COMPUTED_IN)}
        if self.dtype is not None:
            raise BadInput(
                f"dtype: is of models of transformers; {identity['model']} has the weights that were saved, and is "
                f"computed in {_name(COMPUTED_IN)}: leave it out"
            )
        if self.segment_length is not None and self.segment_length < 1:
            raise BadInput(f"segment_length {self.segment_length}: must be at least 1")
        found = token_model(model, identity, segment_length=self.segment_length, context=self.context)
        if tokenizer.vocab_size > found.vocab_size:
            raise BadInput(
                f"{self.name}: its tokenizer has {tokenizer.vocab_size:,} tokens and the model {found.vocab_size:,}; "
                "they do not belong together"
            )
        length = found.max_length
        if length is None and (self.stride or self.context):
            raise BadInput(
                "stride, context: are of models without memory; segment_length says how a model with memory reads"
            )
        if length is not None and self.segment_length is not None:
            raise BadInput(f"segment_length: model {identity['model']} has no memory; use stride or context")
        return found, Reader(
            tokenizer,
            tokenizer.end_of_document,
            length,
            self.stride,
            found.segments,
            tokenizer.unknown,
            tokenizer.lossless,
        )


MEMORY = ("memory_length", "clamp_length", "same_length")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def one_thread() -> None:
    """Workers share the machine's processors: each computes with one."""
    torch.set_num_threads(1)
