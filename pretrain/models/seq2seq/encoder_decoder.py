"""A recurrent encoder and decoder with an attention between them: offline with soft attention, streaming with others.

    h_1 .. h_S = encoder(embed(x_1), .., embed(x_|x|), end)         left to right: h_j depends on x_1 .. x_j alone
    s_i = reader(begin, y_1, .., y_i-1)                             what is asked of the source
    c_i = sum_j weights_ij h_j                                      by the attention
    o_i = writer(s_1 c_1, .., s_i c_i),     p(y_i | y_<i, x) = softmax(U o_i)

The end of the source is a position of its own, at which every attention that streams stops for certain: so nothing
runs past it, and whether a token is the last one shows only when more is asked for. As the reader sees no context, all
positions of a target are computed at once in training.

There are two conditional distributions p(y | x). The *expected* one has the weights in expectation over the stops
(Raffel et al. 2017, Arivazhagan et al. 2019); training descends its nats, with noise on the stop logits, and

    total = sum over rows of -log p(y | x) + latency_weight |y| DAL,

that is `latency_weight` nats per target token for each source token of average lag (`pretrain.attention.latency`).
The *streaming* one has stops decided (p > 1/2), as `translate` reads; it is what `log_prob` is of. With soft attention
both are the same. Both are normalised over y; they agree where every stop is certain. Neither is the likelihood of a
stream that draws its stops.

Shape legend: R rows, T target positions, S source positions with the end, E embedding, W width, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.batch import IGNORED, PairBatch
from data_pipeline.config import BadInput, Config
from data_pipeline.pair_data import PairData
from pretrain.attention.chunkwise import ChunkwiseConfig
from pretrain.attention.infinite_lookback import InfiniteLookbackConfig
from pretrain.attention.latency import differentiable_average_lagging, expected_delays
from pretrain.attention.monotonic import MonotonicConfig
from pretrain.attention.soft import SoftConfig
from pretrain.attention.source import Reading
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.precision import at_least_float32

AnyAttention = Annotated[
    SoftConfig | MonotonicConfig | ChunkwiseConfig | InfiniteLookbackConfig, Field(discriminator="kind")
]
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class Seq2SeqConfig(Config):
    """Sizes, the attention, and what waiting costs."""

    kind: Literal["seq2seq"]
    vocab_size: int = Field(gt=1)
    """Of sources and targets, with the token that begins and ends a target."""
    boundary: int = Field(ge=0)
    """That token."""
    embedding_width: int = Field(gt=0)
    width: int = Field(gt=0)
    """Of the recurrent layers."""
    cell: Literal["gru", "lstm"] = "gru"
    """An LSTM's activations may be more than planned, as oneDNN keeps some that no plan sees."""
    encoder_layers: int = Field(default=1, gt=0)
    writer_layers: int = Field(default=1, gt=0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Of embeddings, and of what the output layer reads."""
    attention: AnyAttention
    latency_weight: float = Field(default=0.0, ge=0.0)
    """Nats per target token for a source token of lag; of soft attention, which reads everything, a constant."""
    latency_warmup_steps: int = Field(default=0, ge=0)
    """Over which the weight rises linearly from 0; else it may learn not to wait before it learns what to wait for."""

    @model_validator(mode="after")
    def _check(self) -> "Seq2SeqConfig":
        if self.boundary >= self.vocab_size:
            raise ValueError(
                f"model.boundary={self.boundary}: must be below model.vocab_size={self.vocab_size}, as it is one "
                "of its tokens; set it to the data's"
            )
        return self

    reads: ClassVar[Literal["lanes", "samples", "vectors", "pairs"]] = "pairs"
    players: ClassVar[tuple[str, ...]] = ("model",)

    @property
    def length(self) -> int | None:
        return None

    @property
    def vocabulary_size(self) -> int | None:
        """None: it reads no running text."""
        return None

    def problem(self, data: PairData) -> str | None:
        """Why it cannot read this data, and what to do, or None."""
        size, boundary = data.vocab_size(), data.boundary()
        if self.vocab_size != size:
            return f"model.vocab_size is {self.vocab_size}, but the data has {size} tokens; set model.vocab_size={size}"
        if self.boundary != boundary:
            return f"model.boundary is {self.boundary}, the data's is token {boundary}; set model.boundary={boundary}"
        return None

    def build(self) -> "Seq2Seq":
        return Seq2Seq(self)


@dataclass(frozen=True, slots=True)
class Written:
    """One target token as it is written."""

    token: int
    reads: int
    """g(i): how many source tokens had been taken from the source."""
    weights: tuple[float, ...]
    """How much it read of each, and of the end of the source where that had been seen."""
    log_prob: float
    """Of the token, in nats."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A target that was written; `steps` has its tokens, and the boundary token where it came to its end."""

    steps: tuple[Written, ...]
    boundary: int

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(step.token for step in self.steps if step.token != self.boundary)

    @property
    def reads(self) -> tuple[int, ...]:
        """g(i) of each of `tokens`."""
        return tuple(step.reads for step in self.steps if step.token != self.boundary)

    def alignment(self) -> Tensor:
        """[len(steps), S] float64: the weights, zero where nothing had been read yet."""
        width = max((len(step.weights) for step in self.steps), default=0)
        rows = [[*step.weights, *[0.0] * (width - len(step.weights))] for step in self.steps]
        return torch.tensor(rows, dtype=torch.float64)


class Seq2Seq(Model):
    """See the module's docstring."""

    unit = "token"
    sampling = "expensive"

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        cell, embedding, width = CELLS[config.cell], config.embedding_width, config.width
        self.source_embedding = nn.Embedding(config.vocab_size + 1, embedding)
        """The last row is the end of the source."""
        self.target_embedding = nn.Embedding(config.vocab_size, embedding)
        self.encoder = cell(embedding, width, config.encoder_layers, batch_first=True)
        self.reader = cell(embedding, width, 1, batch_first=True)
        self.attention = config.attention.build(width, width)
        self.writer = cell(2 * width, width, config.writer_layers, batch_first=True)
        self.output = nn.Linear(width, config.vocab_size)
        self.dropout = nn.Dropout(config.dropout)

    def _encode(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """[R, S, W] memory and [R, S] where there is any, the end of each source included."""
        end = self.config.vocab_size
        positions_S = torch.arange(batch.sources.shape[1] + 1, device=batch.sources.device)
        lengths_R1 = batch.source_lengths[:, None]
        ids_RS = F.pad(batch.sources, (0, 1)).masked_fill(positions_S >= lengths_R1, end)
        memory_RSW, _ = self.encoder(self.dropout(self.source_embedding(ids_RS)))
        return memory_RSW, positions_S <= lengths_R1

    def read(self, batch: PairBatch, *, hard: bool) -> tuple[Tensor, Reading]:
        """[R, T, V] logits (float32) of every target position, given those before it, and how it read the source.

        Raises BadInput for a token that the vocabulary has not got.
        """
        self._check_tokens(batch)
        memory_RSW, present_RS = self._encode(batch)
        s_RTW, _ = self.reader(self.dropout(self.target_embedding(batch.inputs)))
        reading: Reading = self.attention(s_RTW, memory_RSW, present_RS, hard=hard)
        context_RTW = reading.weights.to(memory_RSW.dtype) @ memory_RSW
        o_RTW, _ = self.writer(torch.cat([s_RTW, context_RTW], dim=-1))
        return at_least_float32(self.output(self.dropout(o_RTW))), reading

    def _check_tokens(self, batch: PairBatch) -> None:
        """One past the vocabulary would be read as the end of the source, others would fail without a name."""
        positions_S = torch.arange(batch.sources.shape[1], device=batch.sources.device)
        given_RS = positions_S < batch.source_lengths[:, None]
        for side, ids, counts in (
            ("source", batch.sources, given_RS),
            ("target", batch.inputs, torch.ones_like(batch.inputs, dtype=torch.bool)),
            ("target", batch.labels, batch.labels != IGNORED),
        ):
            foreign = counts & ((ids < 0) | (ids >= self.config.vocab_size))
            if bool(foreign.any()):
                row, place = foreign.nonzero()[0].tolist()
                raise self._no_token(side, int(ids[row, place]), f"{place} of row {row}")

    def _no_token(self, side: str, token: int, where: str) -> BadInput:
        return BadInput(
            f"{side} token {token} at {where}: must be from 0 to {self.config.vocab_size - 1}, the model's vocabulary "
            f"(model.vocab_size={self.config.vocab_size}); encode the {side} with the tokenizer of the model's data"
        )

    def forward(self, batch: PairBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        logits_RTV, reading = self.read(batch, hard=False)
        nats = token_nats(logits_RTV, batch.labels).sum()
        lag = self._lag(batch, reading).sum()
        metrics = {"nats": nats.detach(), "lag": lag.detach()}
        return Loss(nats + self.latency_weight(step) * lag, self.count(batch), metrics=metrics)

    def latency_weight(self, step: int) -> float:
        """Nats per target token and source token of lag, at a step."""
        warmup = self.config.latency_warmup_steps
        risen = min(1.0, step / warmup) if warmup else 1.0
        return self.config.latency_weight * risen

    def count(self, batch: PairBatch) -> int:
        """Target tokens, each target's end included."""
        return int((batch.labels != IGNORED).sum())

    def _lag(self, batch: PairBatch, reading: Reading) -> Tensor:
        """[R] the expected DAL of each row, times what the row counts. The end of a target is no token that lags."""
        scored_R = (batch.labels != IGNORED).sum(1)
        if reading.stops is None:
            delays_RT = batch.source_lengths[:, None].expand_as(batch.labels).to(reading.weights)
        else:
            delays_RT = expected_delays(reading.stops, batch.source_lengths)
        return scored_R * differentiable_average_lagging(delays_RT, batch.source_lengths, scored_R - 1)

    def log_prob(self, batch: PairBatch) -> Tensor:
        """[R] exact log p(y | x) in nats of whole targets with their ends, read as `translate` reads: stops decided,
        no noise."""
        logits_RTV, _ = self.read(batch, hard=True)
        return -token_nats(logits_RTV, batch.labels).sum(1)

    def expected_log_prob(self, batch: PairBatch) -> Tensor:
        """[R] log p(y | x) of the distribution that training descends: the weights in expectation."""
        logits_RTV, _ = self.read(batch, hard=False)
        return -token_nats(logits_RTV, batch.labels).sum(1)

    @torch.no_grad()
    def translate(self, source: Iterable[int], *, max_tokens: int) -> Translation:
        """The greedy target of a source, at most so many tokens of it, with the one that ends it. Without dropout and
        noise, whatever the module's mode."""
        return Translation(tuple(self.stream(source, max_tokens=max_tokens)), self.config.boundary)

    @torch.no_grad()
    def stream(self, source: Iterable[int], *, max_tokens: int) -> Iterator[Written]:
        """The most probable tokens, each as soon as it is written: nothing is taken from `source` before it is needed.

        The last has the boundary token, unless `max_tokens` have been written without it. Nothing is dropped out.
        """
        incoming = Incoming(self, source)
        at, token = 0, self.config.boundary
        reader_state: object = None
        writer_state: object = None
        for _ in range(max_tokens):
            s_11W, reader_state = self.reader(self.target_embedding(self._ids([token])), reader_state)
            at = incoming.read_on(s_11W[0], at)
            memory_JW = torch.cat(incoming.memory[: at + 1])
            weights_J = self.attention.weights(s_11W[0], memory_JW)
            context_1W = weights_J.to(memory_JW.dtype)[None] @ memory_JW
            o_11W, writer_state = self.writer(torch.cat([s_11W[0], context_1W], dim=-1)[None], writer_state)
            log_probs_V = at_least_float32(self.output(o_11W[0, 0])).log_softmax(-1)
            token = int(log_probs_V.argmax())
            yield Written(token, incoming.taken, tuple(weights_J.tolist()), float(log_probs_V[token]))
            if token == self.config.boundary:
                return

    def _ids(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor([list(ids)], device=self.output.weight.device)

    def flops_per_count(self) -> float:
        """Of one target token and one source token: sources as long as targets; energies of one pair only."""
        return 2.0 * sum(p.numel() for name, p in self.named_parameters() if p.dim() > 1 and "embedding" not in name)


class Incoming:
    """The source as far as a stream has taken it."""

    def __init__(self, model: Seq2Seq, source: Iterable[int]) -> None:
        self._model, self._source = model, iter(source)
        self._state: object = None
        self.memory: list[Tensor] = []
        """[1, W] of each token, and of the end of the source once that was seen."""
        self.taken = 0
        self.ended = False

    def read_on(self, s_1W: Tensor, at: int) -> int:
        """The position at which the target position of query `s_1W` stops, from `at` on."""
        while True:
            while len(self.memory) <= at:
                self._take()
            ends_here = self.ended and at == len(self.memory) - 1
            if ends_here or self._model.attention.stops_here(s_1W, self.memory[at]):
                return at
            at += 1

    def _take(self) -> None:
        """One more position: the next token, or the end where there is none."""
        token, size = next(self._source, None), self._model.config.vocab_size
        if token is not None and not 0 <= token < size:
            raise self._model._no_token("source", token, str(self.taken))
        self.ended = token is None
        self.taken += token is not None
        embedded_11E = self._model.source_embedding(self._model._ids([size if token is None else token]))
        h_11W, self._state = self._model.encoder(embedded_11E, self._state)
        self.memory.append(h_11W[0])


def token_nats(logits_RTV: Tensor, labels_RT: Tensor) -> Tensor:
    """[R, T] -log p of each label, 0 where it is ignored."""
    return F.cross_entropy(logits_RTV.transpose(1, 2), labels_RT, ignore_index=IGNORED, reduction="none")
