"""Segue's models in EleutherAI's lm-evaluation-harness (extra `segue[lm-eval]`).

    from evals.lm_eval_adapter import SegueLM
    lm_eval.simple_evaluate(SegueLM("runs/mine"), tasks=["lambada_openai"])

or, after `import evals.lm_eval_adapter`, by its name `segue`: `--model segue --model_args target=runs/mine`.
"""

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from evals.scoring.encoding import Request, encode_requests, windows
from evals.scoring.item import Item, TokenModel, score_items
from evals.targets import Target
from evals.zero_shot import Reader


@register_model("segue")
class SegueLM(LM):
    """A target (`evals.targets`) as the harness's `LM`; it scores, and does not generate."""

    def __init__(self, target: str | tuple[TokenModel, Reader], batch_size: int | str = 16, **_: Any) -> None:
        """`target` by name, or opened. The harness passes further arguments (device, ...) that mean nothing here."""
        super().__init__()
        self.model, self.reader = Target(target).open() if isinstance(target, str) else target
        self.rows = int(batch_size)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        asked = [Request(*request.args) for request in requests]
        encoded = encode_requests(
            asked, self.reader.tokenizer, start=self.reader.start, max_length=self.reader.max_length
        )
        scores = score_items(self.model, [one.item for one in encoded], self.rows)
        return [(-score.total, bool(score.greedy.all())) for score in scores]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        items: list[Item] = []
        owners: list[int] = []
        for owner, tokens in enumerate(self.reader.tokenizer.encode_batch([request.args[0] for request in requests])):
            cut = windows(
                tokens, start=self.reader.start, max_length=self.reader.max_length, segments=self.reader.segments
            )
            items += cut
            owners += [owner] * len(cut)
        totals = [0.0] * len(requests)
        for owner, score in zip(owners, score_items(self.model, items, self.rows), strict=True):
            totals[owner] -= score.total
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("segue scores text for the harness and does not generate; use `launch.py sample`")
