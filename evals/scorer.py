"""Log-likelihoods of text from Python, by any model that can be evaluated.

model, reader = Target("runs/mine").open()
scorer = Scorer(model, reader)
scorer.loglikelihood([("Memory carries", " on")])[0].total        # nats of the continuation
scorer.rolling(["A whole text."])                                 # nats of each text
scorer.choices("The trophy does not fit, since the", ["trophy", "case"], " is too big.")
"""

from collections.abc import Sequence

import numpy as np

from evals.scoring.encoding import Request, encode_requests, windows
from evals.scoring.item import Item, TokenModel, score_items
from evals.tasks.task import Answer
from evals.zero_shot import Reader


class Scorer:
    """Scores what it is given in batches of `rows` contexts."""

    def __init__(self, model: TokenModel, reader: Reader, *, rows: int = 16) -> None:
        self.model, self.reader, self.rows = model, reader, rows

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """Of (context, continuation) pairs: nats and likeliness of each token of the continuation, in the order given.

        An empty context is the start of a document. Contexts that do not fit are cut from their beginning
        (`Answer.dropped`). CannotBeAsked where a continuation has no token, or does not fit.
        """
        return self._answers([Request(*pair) for pair in pairs], list(range(len(pairs))))

    def rolling(self, texts: Sequence[str], *, score_prefix: bool = False) -> list[float]:
        """Nats of each text from the start of a document, every token scored once; an empty text has none.

        `score_prefix`: what the model's tokenizer puts before a text is scored as a part of it, as
        lm-evaluation-harness does.
        """
        items: list[Item] = []
        owners: list[int] = []
        r = self.reader
        before = np.array(r.prefix if score_prefix else (), dtype=np.int64)
        for owner, text in enumerate(r.tokenizer.encode_batch(texts)):
            tokens = np.concatenate([before, text.astype(np.int64)])
            if len(tokens):
                cut = windows(tokens, start=r.start, max_length=r.max_length, stride=r.stride, segments=r.segments)
                items += cut
                owners += [owner] * len(cut)
        totals = [0.0] * len(texts)
        for owner, score in zip(owners, score_items(self.model, items, self.rows), strict=True):
            totals[owner] += score.total
        return totals

    def choices(self, context: str, options: Sequence[str], suffix: str = "") -> list[Answer]:
        """Of each option with what follows it, after a context that is read once; a blank comes between."""
        between = " " if context else ""
        requests = [Request(context, f"{between}{option}{suffix}") for option in options]
        return self._answers(requests, [0] * len(requests))

    def _answers(self, requests: Sequence[Request], owners: Sequence[int]) -> list[Answer]:
        r = self.reader
        encoded = encode_requests(
            requests, r.tokenizer, start=r.start, max_length=r.max_length, owners=owners, prefix=r.prefix
        )
        scores = score_items(self.model, [one.item for one in encoded], self.rows)
        return [
            Answer(tuple(score.nats.tolist()), tuple(score.greedy.tolist()), score.greedy_barred, one.dropped)
            for one, score in zip(encoded, scores, strict=True)
        ]
