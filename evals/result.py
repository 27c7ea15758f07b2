"""What an evaluation found: numbers with their records, for people and for programs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data_pipeline.config import BadInput
from evals.language_model import TextScore
from evals.metric import Metric

MEMORY, NO_MEMORY, WINDOWS = "memory", "memory off", "windows"
"""How text was read: with memory carried, without, or in independent windows."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What was measured, and how."""

    protocol: dict[str, Any]
    """What all metrics share."""
    metrics: tuple[Metric, ...]
    scores: dict[str, TextScore]
    """Of text, by how it was read: `memory`, `memory off`, or `windows` for models without memory."""

    @property
    def with_memory(self) -> TextScore:
        return self._score(MEMORY)

    @property
    def without_memory(self) -> TextScore:
        return self._score(NO_MEMORY)

    def _score(self, name: str) -> TextScore:
        if name not in self.scores:
            raise BadInput(
                f"there is no score with {name}: this model was scored by {', '.join(self.scores) or 'image'}"
            )
        return self.scores[name]

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)

    def lines(self) -> list[str]:
        """The result for people."""
        p = self.protocol
        head = f"{p['split']} of {p['run']}: checkpoint of step {p['checkpoint']['step']}, {p['dtype']}"
        if read := p.get("split_read"):
            head += (
                f"; {read['pairs']:,} of {read['lines']:,} pairs ({read['empty']:,} empty and {read['too_long']:,} of "
                f"more than {read['max_length']} tokens left out), {read['unknown']:,} tokens unknown"
            )
        return [head, *_text_lines(self.scores), *([] if self.scores else map(_metric_line, self.metrics))]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "protocol": self.protocol,
            "metrics": [metric.to_json() for metric in self.metrics],
            "scores": {name: asdict(score) for name, score in self.scores.items()},
        }


def _text_lines(scores: Mapping[str, TextScore]) -> list[str]:
    lines: list[str] = []
    for name, score in scores.items():
        if not lines:
            lines.append(f"{score.documents:,} documents, {score.tokens:,} tokens, {score.num_bytes:,} bytes")
        per_byte = f"{score.bits_per_byte:.4f} bits/byte, " if score.num_bytes else ""
        lines.append(f"{name:10}  {per_byte}perplexity {score.perplexity:.2f}, {score.nats_per_token:.4f} nats/token")
    return lines


def _metric_line(metric: Metric) -> str:
    return f"{metric.name:24}  {metric.value:.4f} {metric.unit}, over {metric.count:,}"
