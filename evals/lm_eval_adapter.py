r"""Segue's models in EleutherAI's lm-evaluation-harness (extra `segue[lm-eval]`).

    from evals.lm_eval_adapter import SegueLM
    lm_eval.simple_evaluate(SegueLM("runs/mine"), tasks=["lambada_openai"])

or from the command line:

    python -c "import evals.lm_eval_adapter; from lm_eval.__main__ import cli_evaluate; cli_evaluate()" \
        --model segue --model_args target=runs/mine --tasks lambada_openai
"""

from dataclasses import fields
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from data_pipeline.config import BadInput
from evals.scorer import Scorer
from evals.scoring.item import TokenModel
from evals.targets import Target
from evals.zero_shot import Reader


@register_model("segue")
class SegueLM(LM):
    """A target (`evals.targets`) as the harness's `LM`; it scores, and does not generate."""

    def __init__(
        self,
        target: str | tuple[TokenModel, Reader],
        batch_size: int | str = 16,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        """`target` by name with the settings of `Target` (checkpoint, stride, memory_length, ...), or opened.

        The harness passes `max_batch_size` and `device` by itself; they mean nothing here. BadInput for any other
        argument, or a batch size that is no number.
        """
        super().__init__()
        known = {field.name for field in fields(Target)} - {"name", "worker"}
        if unknown := sorted(settings.keys() - known):
            raise BadInput(f"model_args {unknown[0]}: is no setting of a target; there are {', '.join(sorted(known))}")
        self.model, self.reader = Target(target, **settings).open() if isinstance(target, str) else target
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise BadInput(f"batch_size {batch_size}: must be a number of rows, at least 1")
        self.scorer = Scorer(self.model, self.reader, rows=int(batch_size))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        answers = self.scorer.loglikelihood([request.args for request in requests])
        return [(-answer.total, all(answer.greedy)) for answer in answers]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """What a tokenizer puts before a text is scored too, as by the harness's own models."""
        texts = [request.args[0] for request in requests]
        return [-nats for nats in self.scorer.rolling(texts, score_prefix=True)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("segue scores text for the harness and does not generate; use `launch.py sample`")
