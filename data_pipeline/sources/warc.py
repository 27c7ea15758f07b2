"""Web archives (WARC 1.0 and 1.1, ISO 28500): the text of WET files, and the plain text and HTML in WARC files."""

from collections.abc import Iterator
from typing import Literal

from data_pipeline.redaction import redact
from data_pipeline.sources.decoding import Found, text_of, without_mark
from data_pipeline.sources.document import Report, Span
from data_pipeline.sources.file_corpus import FileCorpus
from data_pipeline.sources.folder import Folder
from data_pipeline.sources.html_text import charset_of_html, text_of_html
from data_pipeline.sources.opening import opened
from data_pipeline.sources.web_records import Page, pages_of

MOST_HTML_BYTES = 1 << 22
"""Longer pages are left out as too long: on some of them the standard library's parser would take hours."""


class WarcConfig(FileCorpus):
    """One document for each record with text: conversions (WET), resources, and answers with status 200.

    Its id is the record's WARC-Record-ID, its source the URL.
    """

    kind: Literal["warc"]

    def found_in(self, folder: Folder, span: Span, report: Report) -> Iterator[Found]:
        with opened(folder, span.name) as stream:
            for page in pages_of(stream, self.max_document_bytes, report):
                report.start = page.start
                if page.is_html and len(page.data) > MOST_HTML_BYTES:
                    report.add("too_long", page.id)
                    continue
                content = self._content(page, report)
                if content is not None:
                    source = redact(page.url) if "@" in page.url else page.url
                    yield Found(page.id, content, source, page.start, page.stop)

    def _content(self, page: Page, report: Report) -> str | None:
        charset = page.charset or (charset_of_html(page.data) if page.is_html else None)
        text = text_of(page.id, without_mark(page.data, report), self.invalid_utf8, report, charset=charset)
        return text_of_html(text) if text is not None and page.is_html else text
