"""Transformer-XL: a language model whose memory carries on from segment to segment.

Dai et al. 2019 (https://arxiv.org/abs/1901.02860). Each layer attends from the current segment to the hidden states
that it was handed for the previous segments (detached), with attention by relative distance, so that context grows
linearly with depth and nothing is recomputed in evaluation.

Shape legend: B rows, L positions of a segment, M memory positions, K = M + L, W model width, T distances, V vocabulary.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from data_pipeline.batch import IGNORED, TokenBatch
from data_pipeline.config import Config
from pretrain.attention.relative import FeedForward, RelativeAttention, RelativeBiases, sinusoids
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.vocabulary import AdaptiveVocabularyConfig, FullVocabularyConfig, Vocabulary, VocabularyConfig


class TransformerXLConfig(Config):
    """The sizes of a Transformer-XL; the paper's settings are in the recipes."""

    kind: Literal["transformer_xl"]
    vocab_size: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    width: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    head_width: int = Field(gt=0)
    inner_width: int = Field(gt=0)
    segment_length: int = Field(gt=0)
    memory_length: int = Field(ge=0)
    clamp_length: int | None = Field(default=None, ge=0)
    """Distances beyond this one share its encoding; None: every distance has its own."""
    memory_of: Literal["hidden_states", "keys_and_values"] = "hidden_states"
    """What memory holds: hidden states are projected with the weights of now and train them; keys and values stay as
    they were and do not, which saves their projection."""
    same_length: bool = False
    """Every position sees exactly `memory_length` earlier ones, rather than memory plus its segment so far."""
    norm: Literal["post", "pre"] = "post"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    attention_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    share_biases: bool = True
    """One pair of relative biases u, v for all layers, or a pair each."""
    vocabulary: VocabularyConfig = FullVocabularyConfig()
    initial_std: float = Field(default=0.02, gt=0.0)

    reads: ClassVar[Literal["lanes", "samples", "vectors"]] = "lanes"
    players: ClassVar[tuple[str, ...]] = ("model",)

    @model_validator(mode="after")
    def _check(self) -> "TransformerXLConfig":
        if self.same_length and self.memory_length < 1:
            raise ValueError("same_length needs memory_length >= 1: each position sees memory_length earlier ones")
        if isinstance(self.vocabulary, AdaptiveVocabularyConfig):
            problem = self.vocabulary.problem(self.vocab_size)
            if problem is not None:
                raise ValueError(problem)
        return self

    @property
    def length(self) -> int | None:
        return self.segment_length

    @property
    def vocabulary_size(self) -> int | None:
        return self.vocab_size

    def build(self) -> "TransformerXL":
        return TransformerXL(self)


class Block(nn.Module):
    """Attention and feed-forward, each with a residual, normalised after the sum (the paper) or before the layer."""

    def __init__(self, config: TransformerXLConfig) -> None:
        super().__init__()
        self.attention = RelativeAttention(
            config.width, config.num_heads, config.head_width, dropout=config.attention_dropout
        )
        self.feed_forward = FeedForward(config.width, config.inner_width, dropout=config.dropout)
        self.attention_norm = nn.LayerNorm(config.width)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.biases = None if config.share_biases else RelativeBiases(config.num_heads, config.head_width)
        self.pre, self.dropout = config.norm == "pre", config.dropout
        self.keeps_states = config.memory_of == "hidden_states"

    def forward(
        self, h_BLW: Tensor, memory_BMX: Tensor | None, r_TW: Tensor, shared: RelativeBiases | None, window_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[B, L, W] what follows, and [B, L, X] what of this segment goes into the memory."""
        query_BLW, remembered_BLX = self.attention_norm(h_BLW) if self.pre else h_BLW, h_BLW
        context_BKI = self.attention.keys_and_values(query_BLW)
        if not self.keeps_states:
            remembered_BLX = context_BKI
        if memory_BMX is not None:
            context_BKI = torch.cat([self._recalled(memory_BMX), context_BKI], dim=1)
        read_BLW = self.attention(
            query_BLW,
            context_BKI,
            r_TW,
            self.biases if shared is None else shared,
            window_BL,
            memory_gradient=self.keeps_states,
        )
        h_BLW = h_BLW + F.dropout(read_BLW, self.dropout, self.training)
        if self.pre:
            return h_BLW + self.feed_forward(self.feed_forward_norm(h_BLW)), remembered_BLX.detach()
        h_BLW = self.attention_norm(h_BLW)
        return self.feed_forward_norm(h_BLW + self.feed_forward(h_BLW)), remembered_BLX.detach()

    def _recalled(self, memory_BMX: Tensor) -> Tensor:
        """[B, M, 2HD] keys and values of the memory."""
        if not self.keeps_states:
            return memory_BMX
        return self.attention.keys_and_values(self.attention_norm(memory_BMX) if self.pre else memory_BMX)


def newest(memory_BMX: Tensor, segment_BLX: Tensor) -> Tensor:
    """[B, M, X] the last M positions of memory and segment, holding no storage beyond them."""
    length = memory_BMX.shape[1]
    kept = max(length - segment_BLX.shape[1], 0)
    return torch.cat([memory_BMX[:, length - kept :], segment_BLX[:, -length:]], dim=1)


class TransformerXL(Model):
    """The language model; its carry is the memory of every layer."""

    unit = "token"
    sampling = "expensive"

    def __init__(self, config: TransformerXLConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary: Vocabulary = config.vocabulary.build(config.vocab_size, config.width)
        self.shared_biases = RelativeBiases(config.num_heads, config.head_width) if config.share_biases else None
        blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.blocks = cast(Sequence[Block], blocks)
        self.final_norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.checkpoint_activations = False
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm):
                continue
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=self.config.initial_std)

    def hidden(self, tokens_BL: Tensor, age_BL: Tensor, memory: Carry) -> tuple[Tensor, Carry]:
        """[B, L, W] last hidden states and the memory for the next segment, as long as the one handed in."""
        length = memory["memory.00"].shape[1] if memory else 0
        window_BL = self._window(age_BL, length)
        h_BLW = F.dropout(self.vocabulary.embed(tokens_BL), self.config.dropout, self.training)
        r_TW = F.dropout(self._distances(length + tokens_BL.shape[1], h_BLW), self.config.dropout, self.training)
        following: Carry = {}
        for index, block in enumerate(self.blocks):
            name = f"memory.{index:02d}"
            arguments = (h_BLW, memory.get(name), r_TW, self.shared_biases, window_BL)
            if self.checkpoint_activations and torch.is_grad_enabled():
                h_BLW, remembered_BLX = checkpoint(block, *arguments, use_reentrant=False)
            else:
                h_BLW, remembered_BLX = block(*arguments)
            if memory:
                following[name] = newest(memory[name], remembered_BLX)
        return F.dropout(self.final_norm(h_BLW), self.config.dropout, self.training), following

    def _window(self, age_BL: Tensor, memory_length: int) -> Tensor:
        return age_BL.clamp(max=memory_length) if self.config.same_length else age_BL

    def _distances(self, num_keys: int, like: Tensor) -> Tensor:
        clamp = self.config.clamp_length
        return sinusoids(num_keys if clamp is None else min(num_keys, clamp + 1), self.config.width, like=like)

    def token_nats(self, batch: TokenBatch, carry: Carry | None) -> tuple[Tensor, Carry]:
        """[B, L] -log p(label given what the position sees), and the next carry."""
        h_BLW, carry = self.hidden(batch.inputs, batch.age, carry or {})
        return self.vocabulary.nats(h_BLW, batch.labels), carry

    def forward(self, batch: TokenBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        nats_BL, carry = self.token_nats(batch, carry)
        return Loss(total=nats_BL.sum(), count=self.count(batch), carry=carry)

    def count(self, batch: TokenBatch) -> int:
        return int((batch.labels != IGNORED).sum())

    def initial_carry(self, rows: int) -> Carry | None:
        return self.empty_memory(rows, self.config.memory_length)

    def empty_memory(self, rows: int, length: int) -> Carry:
        """Memory of any length, for evaluation with more (or less) of it than in training; zeros, masked by age."""
        if length == 0:
            return {}
        like, c = self.blocks[0].feed_forward.inner.weight, self.config
        shape = (rows, length, c.width if c.memory_of == "hidden_states" else 2 * c.num_heads * c.head_width)
        return {f"memory.{i:02d}": like.new_zeros(shape).detach() for i in range(self.config.num_layers)}

    def log_prob(self, batch: TokenBatch) -> Tensor:
        """[B] log p(labels) of each row, with memory empty at its start."""
        return -self.token_nats(batch, self.initial_carry(batch.rows))[0].sum(-1)

    def begin(self, rows: int) -> Carry:
        seen = torch.zeros(rows, dtype=torch.int64, device=self.blocks[0].feed_forward.inner.weight.device)
        return {"seen": seen, **self.empty_memory(rows, max(self.config.memory_length, self.config.segment_length))}

    def advance(self, tokens_RL: Tensor, state: Carry) -> tuple[Tensor, Carry]:
        memory = {name: value for name, value in state.items() if name != "seen"}
        age_RL = state["seen"][:, None] + torch.arange(tokens_RL.shape[1], device=tokens_RL.device)
        h_RLW, memory = self.hidden(tokens_RL, age_RL, memory)
        return self.vocabulary.logits(h_RLW[:, -1]), {"seen": age_RL[:, -1] + 1, **memory}

    def flops_per_count(self) -> float:
        """2 per weight and token, plus the scores: content, position and values over memory and half the segment.

        Keys and values of a memory of hidden states are projected anew for each segment: M/L extra per token.
        """
        return self.recomputed_flops_per_count() + self.vocabulary.flops_per_token()

    def recomputed_flops_per_count(self) -> float:
        c = self.config
        inner, length = c.num_heads * c.head_width, c.segment_length
        keys = c.memory_length + (length + 1) / 2
        anew = c.memory_length / length if c.memory_of == "hidden_states" else 0.0
        projections = 2 * c.width * inner * (2 + 2 * (1 + anew))
        layer = projections + 4 * c.width * c.inner_width + 6 * inner * keys
        return c.num_layers * layer
