"""C4's rules: Raffel et al. 2020, JMLR 21(140), section 2.2, with five words a line and three sentences a page.

Not here: its list of bad words, its classifier of English, and the removal of repeated spans of three sentences
(`exact_duplicates` and `near_duplicates` drop documents). Sentences are counted by how they end, not by NLTK's model.
Nor what TensorFlow Datasets' code does and the paper does not say: it leaves out lines that end in `...` or have a word
of more than 1,000 characters.
"""

import re
from collections import Counter
from typing import ClassVar, Literal

from pydantic import Field

from data_pipeline.sources.document import Document
from data_pipeline.steps.step import DocumentStep, Dropped, with_text

END_MARKS = (".", "!", "?", '"', "”")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")

_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”\u2019)\]]*+(?=\s|$)")
_CITATION = re.compile(r"\[(?:\d{1,4}|edit|citation needed)\]")


class C4QualityConfig(DocumentStep):
    """Lines are left out, then documents with too little left."""

    reasons: ClassVar[tuple[str, ...]] = ("lorem_ipsum", "curly_bracket", "few_sentences")
    alters: ClassVar[bool] = True

    kind: Literal["c4_quality"]
    terminal_punctuation: bool = True
    """Lines stay only if they end in a period, an exclamation or question mark, or an end quotation mark."""
    least_words_per_line: int = Field(default=5, ge=0)
    least_sentences: int = Field(default=3, ge=0)
    lorem_ipsum: bool = True
    """Documents with these words are dropped."""
    curly_brackets: bool = True
    """Documents with an opening one are dropped: they are programs."""
    javascript: bool = True
    """Lines that name it are left out: they ask to have it on."""
    policies: bool = True
    """Lines on terms of use, privacy and cookies are left out."""
    citations: bool = True
    """Marks of Wikipedia such as [3] and [citation needed] are removed."""

    def apply(self, document: Document, altered: Counter[str]) -> Document | Dropped:
        text = document.text
        if self.curly_brackets and "{" in text:
            return Dropped("curly_bracket")
        if self.lorem_ipsum and "lorem ipsum" in text.lower():
            return Dropped("lorem_ipsum")
        uncited = _CITATION.sub("", text) if self.citations else text
        lines = uncited.split("\n")
        kept = "\n".join(line for line in lines if self._stays(line))
        if len(_SENTENCE_END.findall(kept)) < self.least_sentences or not kept.strip():
            return Dropped("few_sentences")
        altered["citations"] += uncited != text
        altered["lines"] += kept != uncited
        return document if kept == text else with_text(document, kept)

    def _stays(self, line: str) -> bool:
        if self.terminal_punctuation and not line.rstrip().endswith(END_MARKS):
            return False
        if len(line.split()) < self.least_words_per_line:
            return False
        lower = line.lower()
        if self.javascript and "javascript" in lower:
            return False
        return not (self.policies and any(phrase in lower for phrase in POLICIES))
