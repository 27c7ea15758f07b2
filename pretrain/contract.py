"""The one interface between models, the trainer and the engines.

A model is one function from a batch and a carry to summed nats. Whatever outlives a step and is no parameter is the
*carry*, handed in and out by row. Whatever else a model can do (sample, score, encode) is a named method behind one of
the small protocols below, and `capabilities` reads from them what the model can do.

Shape legend: R rows of a micro-batch, L positions of a segment, V vocabulary.
"""

import abc
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from data_pipeline.batch import Batch
from data_pipeline.config import BadInput

Carry = dict[str, Tensor]
"""State by row: name -> tensor whose first dimension is the rows of the micro-batch; its shape never changes."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a model's forward returns: sums, never means; the trainer divides once, by the global count."""

    total: Tensor
    """[] differentiable, summed over the micro-batch, in nats where the model has a likelihood."""
    count: int
    """What `total` is a sum over; equals `Model.count(batch)`."""
    carry: Carry | None = None
    """The state that the next step of these rows is handed, detached."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Further sums over the same count, each []; logged divided by the global count."""


class Model(nn.Module, abc.ABC):
    """A trainable model. `forward` is the objective, since engines hook forward and nothing else."""

    players: tuple[str, ...] = ("model",)
    """Each has its own parameters and optimizer; of the class, or of the model where a field of its config decides."""

    unit: ClassVar[Literal["token", "image", "row"]] = "row"
    """What one count is, for the logs (nats/token, images/s)."""

    sampling: ClassVar[Literal["cheap", "expensive"]] = "cheap"
    """What a sample costs: one pass, or one for each value or step of a chain."""

    controls_latents: ClassVar[bool] = False
    """Whether the design says how much goes through the latents, as where a decoder of its own models the rest."""

    objective_has_value: ClassVar[bool] = True
    """False: only the gradient of the objective means something, so that its value is no score."""

    lower_is_better: ClassVar[frozenset[str]] = frozenset({"objective"})
    """Of the objective and the further sums: whose value is lower of a better model. Others have no direction."""

    @abc.abstractmethod
    def forward(self, batch: Any, carry: Carry | None, *, player: str, step: int) -> Loss:
        """The objective that `player` descends, on one micro-batch of the kind that the model's config `reads`."""

    def count(self, batch: Any) -> int:
        """What the loss of this batch will be a sum over, known before forward: rows, unless overridden."""
        return int(batch.rows)

    def turns(self, step: int) -> tuple[str, ...]:
        """Whose move it is, in order, within one step."""
        return self.players

    def initial_carry(self, rows: int) -> Carry | None:
        """The carry of `rows` fresh rows, or None for a model without state. May draw random numbers.

        Its shape comes from the config: under ZeRO 3 a parameter has no shape between steps, only dtype and device.
        """
        return None

    def after_turn(self, player: str, step: int) -> None:
        """Called once the player's parameters have moved (weight clipping and the like)."""
        return

    def player_parameters(self, player: str) -> Iterable[tuple[str, nn.Parameter]]:
        """(full name, parameter) of one player, in a fixed order, shared parameters once.

        Of several players each is the submodule of that name, unless overridden; together they have all parameters.
        """
        if player not in self.players:
            raise ValueError(f"player {player!r}: this model's players are {', '.join(self.players)}")
        if self.players == ("model",):
            return self.named_parameters()
        return getattr(self, player).named_parameters(prefix=player)

    def flops_per_count(self) -> float:
        """Floating-point operations of one forward pass per unit of `count`, matrix products only."""
        return 2.0 * sum(p.numel() for p in self.parameters())

    def recomputed_flops_per_count(self) -> float:
        """Of these, what backward computes again where activations are recomputed: those of blocks; 0 without any."""
        return 0.0


@runtime_checkable
class ExactLikelihood(Protocol):
    """log p(x) itself, in nats, per row."""

    def log_prob(self, batch: Batch) -> Tensor: ...


@runtime_checkable
class BoundedLikelihood(Protocol):
    """A lower bound of log p(x), in nats, per row: the mean of many draws is below log p(x), never above."""

    def log_prob_bound(self, batch: Batch, samples: int) -> Tensor:
        """[R] log 1/K sum_k w_k of K `samples` of the latents (Burda et al. 2016, equation 8): for one, the ELBO."""


@runtime_checkable
class UnnormalizedDensity(Protocol):
    """log p(x) + log Z, in nats, per row."""

    def unnormalized_log_prob(self, batch: Batch) -> Tensor: ...


@runtime_checkable
class LanguageModel(Protocol):
    """Token by token: state in, next-token logits out; it is memory (Transformer-XL) or keys and values (GPT)."""

    def begin(self, rows: int) -> Carry:
        """The state before any token."""

    def advance(self, tokens_RL: Tensor, state: Carry) -> tuple[Tensor, Carry]:
        """Reads L more tokens; returns logits [R, V] (float32) after the last one, and the new state."""


@runtime_checkable
class Sampler(Protocol):
    """Draws whole samples."""

    def sample(self, count: int) -> Tensor: ...


@runtime_checkable
class ConditionalSampler(Protocol):
    """Draws whole samples of given classes."""

    def sample_of(self, labels_N: Tensor) -> Tensor: ...


@runtime_checkable
class Completer(Protocol):
    """Draws what is missing, given the rest."""

    def complete(self, values_ND: Tensor, known_ND: Tensor) -> Tensor:
        """[N, D]: the values where `known` is true, draws where it is not."""


@runtime_checkable
class Encoder(Protocol):
    """Latents of data."""

    def encode(self, batch: Batch) -> Tensor:
        """[R, Z]; the mean, where they are a distribution."""


@runtime_checkable
class Decoder(Protocol):
    """Data of latents."""

    def decode(self, latents_NZ: Tensor) -> Tensor:
        """[N, D]; the mean, where they are a distribution."""


@runtime_checkable
class Autoencoder(Encoder, Decoder, Protocol):
    """To latents and back."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The four columns of the README's capability table."""

    evaluate: Literal["exact", "bound", "unnormalized", "no"]
    """p(x)."""
    sample: Literal["cheap", "expensive", "no"]
    latents: bool
    """Can be extracted."""
    control: Literal["yes", "no", "n/a"]
    """Of what information is in the latents."""


def capabilities(model: type[Model]) -> Capabilities:
    """Read from a model's class what it can do: which of the protocols above it has."""
    evaluate: Literal["exact", "bound", "unnormalized", "no"] = "no"
    for name, kind in EVALUATES.items():
        if hasattr(model, name):
            evaluate = kind
            break
    latents = hasattr(model, "encode")
    return Capabilities(
        evaluate=evaluate,
        sample=model.sampling if any(hasattr(model, name) for name in SAMPLES) else "no",
        latents=latents,
        control="n/a" if not latents else "yes" if model.controls_latents else "no",
    )


SAMPLES = ("sample", "advance", "translate")
"""Whole rows, token by token, or a target for a given source (`evals.translation.Translator`)."""

EVALUATES: dict[str, Literal["exact", "bound", "unnormalized"]] = {
    "log_prob": "exact",
    "log_prob_bound": "bound",
    "unnormalized_log_prob": "unnormalized",
}


def exact_log_prob(model: Model, batch: Batch) -> Tensor:
    """[R] log p(x) in nats; BadInput from a model that does not know it."""
    if isinstance(model, ExactLikelihood):
        return model.log_prob(batch)
    instead = {
        "bound": "it has a lower bound of it, log_prob_bound",
        "unnormalized": "it has log p(x) + log Z, unnormalized_log_prob",
        "no": "it only draws samples",
    }[capabilities(type(model)).evaluate]
    raise BadInput(f"{type(model).__name__} does not know log p(x): {instead}")
