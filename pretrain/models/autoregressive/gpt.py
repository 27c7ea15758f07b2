"""GPT: a decoder that reads independent windows of text.

Radford et al. 2019 (GPT-2): layer norm before attention and feed-forward, learned positions, GELU, biases, an output
layer tied to the embedding, and residual projections initialised smaller by 1/sqrt(2 * num_layers).

Shape legend: B or R rows, L positions, C context length, H heads, D head width, W model width, V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from data_pipeline.batch import IGNORED, TokenBatch
from data_pipeline.config import BadInput, Config
from kernels.relative_attention import window_mask
from pretrain.attention.causal import CausalAttention
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.vocabulary import FullVocabulary


class GPTConfig(Config):
    """The sizes of a GPT; the paper's settings are in the recipes."""

    kind: Literal["gpt"]
    vocab_size: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    width: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    inner_width: int = Field(gt=0)
    """Width of the feed-forward layers; four times `width` in the papers."""
    context_length: int = Field(gt=1)
    """Tokens of a window; there is a learned vector for each position in it."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    initial_std: float = Field(default=0.02, gt=0.0)

    reads: ClassVar[Literal["lanes", "samples", "vectors"]] = "samples"
    players: ClassVar[tuple[str, ...]] = ("model",)

    @model_validator(mode="after")
    def _check(self) -> "GPTConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} must be a multiple of num_heads {self.num_heads}")
        return self

    @property
    def length(self) -> int | None:
        return self.context_length

    @property
    def vocabulary_size(self) -> int | None:
        return self.vocab_size

    def build(self) -> "GPT":
        return GPT(self)


class FeedForward(nn.Module):
    """Two layers with GELU in the tanh form of GPT-2."""

    def __init__(self, width: int, inner_width: int, *, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner_width)
        self.output = nn.Linear(inner_width, width)
        self.dropout = dropout

    def forward(self, h_BLW: Tensor) -> Tensor:
        inner = F.gelu(self.inner(h_BLW), approximate="tanh")
        return F.dropout(self.output(inner), self.dropout, self.training)


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added to the stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = CausalAttention(config.width, config.num_heads, dropout=config.dropout)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config.width, config.inner_width, dropout=config.dropout)
        self.dropout = config.dropout

    def forward(self, h_BLW: Tensor, masked_B1LL: Tensor | None) -> Tensor:
        read_BLW = self.attention(self.attention_norm(h_BLW), masked_B1LL)
        h_BLW = h_BLW + F.dropout(read_BLW, self.dropout, self.training)
        return h_BLW + self.feed_forward(self.feed_forward_norm(h_BLW))

    def extend(self, h_BLW: Tensor, cache_B2HCD: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        """The same after `seen` positions whose keys and values are cached; returns the longer cache too."""
        read_BLW, cache_B2HCD = self.attention.extend(self.attention_norm(h_BLW), cache_B2HCD, seen)
        h_BLW = h_BLW + read_BLW
        return h_BLW + self.feed_forward(self.feed_forward_norm(h_BLW)), cache_B2HCD


class GPT(Model):
    """The language model. It carries nothing from step to step; while it generates, keys and values are its state."""

    unit = "token"
    sampling = "expensive"

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = FullVocabulary(config.vocab_size, config.width, tied=True, bias=False, scale=False)
        self.positions = nn.Parameter(torch.empty(config.context_length, config.width))
        blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.blocks = cast(Sequence[Block], blocks)
        self.final_norm = nn.LayerNorm(config.width)
        self.checkpoint_activations = False
        self.apply(self._initialise)
        for block in self.blocks:
            for output in (block.attention.output, block.feed_forward.output):
                nn.init.normal_(output.weight, std=config.initial_std / math.sqrt(2 * config.num_layers))

    def _initialise(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm):
                continue
            if name == "bias":
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=self.config.initial_std)

    def hidden(self, tokens_BL: Tensor, age_BL: Tensor) -> Tensor:
        """[B, L, W] last hidden states; a position sees no further back than its age.

        Raises BadInput where L exceeds the context length.
        """
        return self._through_blocks(self._embed(tokens_BL, 0), self._masked(age_BL))

    def hidden_at(self, tokens_BL: Tensor, positions_BL: Tensor, masked_B1LL: Tensor) -> Tensor:
        """[B, L, W] last hidden states of tokens at any positions, which see what is not masked (bool)."""
        return self._through_blocks(self.vocabulary.embed(tokens_BL) + self.positions[positions_BL], masked_B1LL)

    def _through_blocks(self, h_BLW: Tensor, masked_B1LL: Tensor | None) -> Tensor:
        h_BLW = F.dropout(h_BLW, self.config.dropout, self.training)
        for block in self.blocks:
            if self.checkpoint_activations and torch.is_grad_enabled():
                h_BLW = checkpoint(block, h_BLW, masked_B1LL, use_reentrant=False)
            else:
                h_BLW = block(h_BLW, masked_B1LL)
        return self.final_norm(h_BLW)

    def _embed(self, tokens_BL: Tensor, seen: int) -> Tensor:
        length = tokens_BL.shape[1]
        if seen + length > self.config.context_length:
            raise BadInput(
                f"a row of {seen + length} tokens exceeds context_length {self.config.context_length}: "
                "shorten the rows, or read longer text with begin and advance"
            )
        return self.vocabulary.embed(tokens_BL) + self.positions[seen : seen + length]

    def _masked(self, age_BL: Tensor) -> Tensor | None:
        """None where every position sees its whole prefix, so that attention can take its causal path."""
        length = age_BL.shape[1]
        if bool((age_BL >= torch.arange(length, device=age_BL.device)).all()):
            return None
        return window_mask(age_BL, length)

    def token_nats(self, batch: TokenBatch, carry: Carry | None) -> tuple[Tensor, Carry | None]:
        """[B, L] -log p(label given what the position sees); there is nothing to carry."""
        return self.vocabulary.nats(self.hidden(batch.inputs, batch.age), batch.labels), None

    def forward(self, batch: TokenBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        return Loss(total=self.token_nats(batch, None)[0].sum(), count=self.count(batch))

    def count(self, batch: TokenBatch) -> int:
        return int((batch.labels != IGNORED).sum())

    def log_prob(self, batch: TokenBatch) -> Tensor:
        """[B] log p(labels) of each row."""
        return -self.token_nats(batch, None)[0].sum(-1)

    def begin(self, rows: int) -> Carry:
        """Nothing read: `seen` [R] tokens, all rows alike, their ids [R, C], and keys and values of each layer."""
        c, device = self.config, self.positions.device
        cache = self.positions.new_zeros(rows, 2, c.num_heads, c.context_length, c.width // c.num_heads).detach()
        return {
            "seen": torch.zeros(rows, dtype=torch.int64, device=device),
            "tokens": torch.zeros(rows, c.context_length, dtype=torch.int64, device=device),
            **{f"cache.{index:02d}": cache for index in range(c.num_layers)},
        }

    def advance(self, tokens_RL: Tensor, state: Carry) -> tuple[Tensor, Carry]:
        """Reads L more tokens. When the window is full, it starts anew from its last half, encoded again.

        So the logits depend on what was read, never on how it was cut into calls.
        """
        if tokens_RL.shape[1] == 0:
            raise BadInput("advance was given no token; it needs at least one to predict the next")
        size = self.config.context_length
        while tokens_RL.shape[1] > 0:
            seen = int(state["seen"][0])
            if seen == size:
                _, state = self._extend(state["tokens"][:, size - size // 2 :], self.begin(tokens_RL.shape[0]), 0)
                seen = size // 2
            h_RLW, state = self._extend(tokens_RL[:, : size - seen], state, seen)
            tokens_RL = tokens_RL[:, size - seen :]
        return self.vocabulary.logits(self.final_norm(h_RLW[:, -1])), state

    def _extend(self, tokens_RL: Tensor, state: Carry, seen: int) -> tuple[Tensor, Carry]:
        """Reads tokens that fit into the window; returns [R, L, W] before the final norm, and the new state."""
        num_seen = seen + tokens_RL.shape[1]
        h_RLW = self._embed(tokens_RL, seen)
        tokens_RC = state["tokens"].clone()
        tokens_RC[:, seen:num_seen] = tokens_RL
        following = {"seen": torch.full_like(state["seen"], num_seen), "tokens": tokens_RC}
        for index, block in enumerate(self.blocks):
            name = f"cache.{index:02d}"
            h_RLW, following[name] = block.extend(h_RLW, state[name], seen)
        return h_RLW, following

    def flops_per_count(self) -> float:
        """2 per weight and token, plus scores and values over half the context, plus the output layer."""
        return self.recomputed_flops_per_count() + self.vocabulary.flops_per_token()

    def recomputed_flops_per_count(self) -> float:
        c = self.config
        weights = 4 * c.width**2 + 2 * c.width * c.inner_width
        keys = (c.context_length + 1) / 2
        return c.num_layers * (2 * weights + 4 * c.width * keys)
