"""Segue's language models as networks to score.

Shape legend as in `evals.scoring.window_model`.
"""

from typing import Any

import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.scoring.item import TokenModel
from evals.scoring.memory_model import MemoryModel
from evals.scoring.output_layer import LinearOutput, OutputLayer, WholeOutput
from evals.scoring.window_model import WindowModel
from pretrain.contract import Carry, Model
from pretrain.layers.vocabulary import FullVocabulary, Vocabulary
from pretrain.models.autoregressive.gpt import GPT
from pretrain.models.autoregressive.transformer_xl import TransformerXL


def output_layer(vocabulary: Vocabulary, vocab_size: int) -> OutputLayer:
    """A model's own, by parts of the vocabulary where it is one softmax."""
    if isinstance(vocabulary, FullVocabulary):
        weight_VW = vocabulary.embedding if vocabulary.output is None else vocabulary.output
        return LinearOutput(weight_VW, vocabulary.bias)
    return WholeOutput(vocab_size, vocabulary.logits, vocabulary.nats)


class GPTNetwork:
    """A GPT; rows are at most its context length, or `context`."""

    def __init__(self, model: GPT, identity: dict[str, Any], context: int | None = None) -> None:
        self.model, self._identity = model, identity
        self.output = output_layer(model.vocabulary, model.config.vocab_size)
        self.max_length = context or model.config.context_length
        self.device, self.shares_contexts, self.rows_alone = model.positions.device, True, False

    def hidden(self, tokens_RL: Tensor, positions_RL: Tensor | None, masked_R1LL: Tensor | None) -> Tensor:
        if positions_RL is None or masked_R1LL is None:
            age_RL = torch.arange(tokens_RL.shape[1], device=tokens_RL.device).expand(tokens_RL.shape)
            return self.model.hidden(tokens_RL, age_RL)
        return self.model.hidden_at(tokens_RL, positions_RL, masked_R1LL)

    def identity(self) -> dict[str, Any]:
        return self._identity | {"context": self.max_length}


class TransformerXLNetwork:
    """A Transformer-XL with the memory of its configuration, which may be another than in training."""

    def __init__(self, model: TransformerXL, identity: dict[str, Any]) -> None:
        self.model, self._identity = model, identity
        self.output = output_layer(model.vocabulary, model.config.vocab_size)
        self.device = model.blocks[0].feed_forward.inner.weight.device

    def empty(self, rows: int) -> Carry:
        return self.model.initial_carry(rows) or {}

    def hidden(self, tokens_RL: Tensor, age_RL: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        return self.model.hidden(tokens_RL, age_RL, carry)

    def warm_up(self, segment_length: int) -> int:
        """A layer sees the segments that its memory reaches into; each of them saw as far back one layer below."""
        c = self.model.config
        return c.num_layers * -(-c.memory_length // segment_length)

    def identity(self) -> dict[str, Any]:
        c = self.model.config
        return self._identity | {
            "memory_length": c.memory_length,
            "clamp_length": c.clamp_length,
            "same_length": c.same_length,
        }


def token_model(
    model: Model, identity: dict[str, Any], *, segment_length: int | None = None, context: int | None = None
) -> TokenModel:
    """How a model is scored; BadInput where it is no language model, or cannot read so much.

    `segment_length` is of a model with memory, `context` of one of windows.
    """
    if isinstance(model, GPT):
        longest = model.config.context_length
        if context is not None and not 1 <= context <= longest:
            raise BadInput(f"context {context}: must be from 1 to {longest}, what the model can read at a time")
        return WindowModel(GPTNetwork(model, identity, context))
    if isinstance(model, TransformerXL):
        return MemoryModel(TransformerXLNetwork(model, identity), segment_length or model.config.segment_length)
    raise BadInput(f"{type(model).__name__} is no language model, so no task of text can be asked of it")
