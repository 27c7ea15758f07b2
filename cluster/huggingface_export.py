"""A run's GPT as a directory that the `transformers` library loads: sizes, weights, tokenizer, model card."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError

from cluster.tables import bytes_text
from data_pipeline.config import BadInput
from data_pipeline.tokenizers.byte_pairs import BytePairTokenizer
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import VOCABULARY_FILE
from evals.checkpointed import checkpoint_hash, open_checkpoint
from pretrain import checkpoint, config
from pretrain.exchange import gpt2
from pretrain.experiment import Experiment
from pretrain.models import GPTConfig
from pretrain.run_directory import TOKENIZER


def export_huggingface(run: Path, directory: Path, step: int | None, dtype: str) -> str:
    """Write the directory, which is there whole or not at all; what to say of it.

    Raises BadInput where the run is no GPT, has no tokenizer of the library's kind, or the place cannot be made;
    NotSaved where writing fails, as on a full disk.
    """
    if directory.exists():
        raise BadInput(f"{directory} is there already; choose another name, or remove it")
    if not directory.parent.is_dir():
        raise BadInput(f"{directory}: there is no directory {directory.parent}; make it first")
    reader = open_checkpoint(run, step)
    try:
        experiment = config.parse(Experiment, dict(reader.manifest.experiment), source=str(reader.path))
        model, tokenizer = _model(experiment, run), _tokenizer(run)
        if tokenizer.vocab_size > model.vocab_size:
            raise BadInput(f"{run / TOKENIZER}: has more tokens than the model, so it is not its own")
        weights, end = checkpoint.gather_weights(reader), tokenizer.end_of_document
        with _draft_of(directory) as draft:
            gpt2.write(draft, weights, model, end_of_document=end, dtype=getattr(torch, dtype))
            _write_tokenizer(draft, tokenizer, model)
            (draft / "README.md").write_text(_card(experiment, reader, dtype, tokenizer.end_name), encoding="utf-8")
    finally:
        reader.close()
    size = sum(path.stat().st_size for path in directory.iterdir())
    return f"{directory}: step {reader.step} as a GPT-2 of transformers, {dtype}, {bytes_text(size)}"


@contextmanager
def _draft_of(directory: Path) -> Iterator[Path]:
    """A directory that takes the name of this one once all is in it, and is gone where something fails."""
    draft = directory.with_name(f"{directory.name}.partial-{uuid4().hex[:8]}")
    try:
        draft.mkdir()
    except OSError as error:
        raise BadInput(f"{directory} cannot be written: {error.strerror or error}") from error
    try:
        yield draft
        os.replace(draft, directory)
    except (OSError, SafetensorError) as error:  # the library's own is no OSError
        reason = getattr(error, "strerror", None) or error
        raise checkpoint.NotSaved(
            f"{directory} cannot be written ({reason}); nothing of it is left; free space and give the command again"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _model(experiment: Experiment, run: Path) -> GPTConfig:
    if not isinstance(experiment.model, GPTConfig):
        raise BadInput(f"{run}: only models of kind gpt can be exported so, not {experiment.model.kind}")
    return experiment.model


def _tokenizer(run: Path) -> BytePairTokenizer:
    if not (run / TOKENIZER).is_dir():
        raise BadInput(f"{run}: has no tokenizer; transformers needs one beside the weights")
    tokenizer = load_tokenizer(run / TOKENIZER)
    if not isinstance(tokenizer, BytePairTokenizer):
        raise BadInput(f"{run / TOKENIZER}: is of kind {tokenizer.kind}; transformers reads those of kind bpe and file")
    return tokenizer


def _write_tokenizer(directory: Path, tokenizer: BytePairTokenizer, model: GPTConfig) -> None:
    (directory / VOCABULARY_FILE).write_text(tokenizer.vocabulary_json(), encoding="utf-8")
    end = tokenizer.end_name
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "model_max_length": model.context_length,
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _card(experiment: Experiment, reader: checkpoint.CheckpointReader, dtype: str, end: str) -> str:
    """The model card: what it is, how it was made, how it is loaded. `end` is the token between documents."""
    parameters = sum(parameter.numel() for parameter in _on_meta(experiment))
    data = getattr(experiment.data, "directory", None) or experiment.data.kind
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [segue]
---
# {experiment.name}

A GPT of {parameters:,} parameters, pretrained with Segue from random weights.

| | |
|---|---|
| steps | {reader.step:,} |
| data | {Path(str(data)).name} |
| context | {experiment.model.length:,} tokens |
| weights | {dtype} |
| checkpoint | `{checkpoint_hash(reader)}` |
| seed | {experiment.seed} |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```

A document begins after the token `{end}`. Nothing was done after pretraining: it continues text, and
was not taught to follow instructions or to avoid harm. The whole recipe:

```yaml
{config.dump(experiment).strip()}
```
"""


def _on_meta(experiment: Experiment) -> list[torch.nn.Parameter]:
    with torch.device("meta"):
        return list(experiment.model.build().parameters())
