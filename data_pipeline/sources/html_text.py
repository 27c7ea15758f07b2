"""The text of an HTML page: what a reader would see, without markup, scripts and styles.

A simple extraction with the standard library's parser: menus and footers stay. Where that matters, take WET files, or
text extracted by a tool of that trade.
"""

import re
from html.parser import HTMLParser

UNSEEN = frozenset(("script", "style", "noscript", "template", "svg", "math", "iframe", "object", "textarea"))
BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "br", "caption", "dd", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "option",
    "p", "pre", "section", "select", "table", "td", "th", "title", "tr", "ul",
))  # fmt: skip
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)


def text_of_html(html: str) -> str:
    """Its lines are its blocks; white space is one blank.

    >>> text_of_html("<title>x</title><p>One &amp; <b>two</b><script>no()</script><p>three")
    'x\\nOne & two\\nthree'
    """
    parser = _Seen()
    parser.feed(html)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\0"))
    return "\n".join(line for line in lines if line)


def charset_of_html(data: bytes) -> str | None:
    """As its beginning says."""
    found = _CHARSET.search(data[:4096])
    return found[1].decode("ascii") if found else None


class _Seen(HTMLParser):
    """Collects the text outside of unseen elements; NUL stands between blocks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen: str | None = None
        self._depth = 0

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """What begins as one and is none, such as `<![x[`, is a comment up to the next `>`, as in the HTML standard."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i, report)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._unseen is None and tag in UNSEEN:
            self._unseen, self._depth = tag, 1
        elif tag == self._unseen:
            self._depth += 1
        elif self._unseen is None and tag in BLOCKS:
            self.parts.append("\0")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._unseen:
            self._depth -= 1
            if self._depth == 0:
                self._unseen = None
        elif self._unseen is None and tag in BLOCKS:
            self.parts.append("\0")

    def handle_data(self, data: str) -> None:
        if self._unseen is None:
            self.parts.append(data.replace("\0", ""))
