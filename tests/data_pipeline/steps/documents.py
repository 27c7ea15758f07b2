"""Documents for tests of steps."""

from collections import Counter

from data_pipeline.sources.document import Document
from data_pipeline.steps.step import DocumentStep


def document(text: str) -> Document:
    """A document of this text."""
    return Document(id="a", text=text, num_bytes=len(text.encode()))


def outcome(step: DocumentStep, text: str) -> str:
    """The text that is left, or `-reason`."""
    found = step.apply(document(text), Counter())
    return found.text if isinstance(found, Document) else f"-{found.reason}"


def alterations(step: DocumentStep, text: str) -> dict[str, int]:
    """What is counted as altered."""
    altered = Counter[str]()
    step.apply(document(text), altered)
    return dict(+altered)
