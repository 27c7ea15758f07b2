"""Text in one spelling: Unicode form, line ends, control characters, trailing white space."""

import re
import unicodedata
from collections import Counter
from typing import ClassVar, Literal

from pydantic import Field

from data_pipeline.sources.document import Document
from data_pipeline.steps.step import DocumentStep, Dropped, with_text

_LINE_END = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
"""Besides line feed: The Unicode Standard, section 5.8, "Newline Guidelines"."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
"""Unicode's category Cc but for tab, line feed and carriage return; and the byte order mark."""
_TRAILING = re.compile(r"(?<![^\S\r\n])[^\S\r\n]++(?=\r?\n)")


class NormaliseConfig(DocumentStep):
    """Each option is counted as "altered" where it changed a document that stays. Doing it twice is doing it once."""

    reasons: ClassVar[tuple[str, ...]] = ("empty",)
    alters: ClassVar[bool] = True

    kind: Literal["normalise"]
    unicode: Literal["NFC", "NFKC"] | None = "NFC"
    """Unicode Standard Annex 15. NFKC also makes ligatures, full-width letters and superscripts plain."""
    line_ends: bool = True
    """CR LF, CR, vertical tab, form feed, NEL and Unicode's line and paragraph separators become LF."""
    control_characters: bool = True
    """All but tab, LF and CR, and byte order marks too, are removed."""
    trailing_white_space: bool = True
    """Removed at the end of each line, and empty lines at the end of the document."""
    most_empty_lines: int | None = Field(default=None, ge=0)
    """More of them in a row become so many."""

    def apply(self, document: Document, altered: Counter[str]) -> Document | Dropped:
        text = document.text
        for name, changed in (
            ("line_ends", self._line_ends),
            ("control_characters", self._control_characters),
            ("unicode", self._unicode),
            ("white_space", self._white_space),
        ):
            before, text = text, changed(text)
            if text != before:
                altered[name] += 1
        if text is document.text or text == document.text:
            return document
        return with_text(document, text) if text and not text.isspace() else Dropped("empty")

    def _line_ends(self, text: str) -> str:
        return _LINE_END.sub("\n", text) if self.line_ends else text

    def _control_characters(self, text: str) -> str:
        return _CONTROL.sub("", text) if self.control_characters else text

    def _unicode(self, text: str) -> str:
        if self.unicode is None or unicodedata.is_normalized(self.unicode, text):
            return text
        return unicodedata.normalize(self.unicode, text)

    def _white_space(self, text: str) -> str:
        if self.trailing_white_space:
            text = (_TRAILING.sub("", text) if "\n" in text else text).rstrip()
        if self.most_empty_lines is not None:
            most = "\n" * (self.most_empty_lines + 1)
            text = re.sub(rf"\n{{{len(most)},}}", most, text)
        return text
