"""Text in tar files (plain, .gz, .zst), as WebDataset (https://github.com/webdataset/webdataset) packs it."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from data_pipeline.archives.tar_members import Member, members_in
from data_pipeline.config import BadInput
from data_pipeline.sources.decoding import Found, without_mark
from data_pipeline.sources.document import Report, Span
from data_pipeline.sources.file_corpus import FileCorpus, SkipOrStop
from data_pipeline.sources.folder import Folder
from data_pipeline.sources.json_record import JsonFields
from data_pipeline.sources.opening import opened

PICKLED = frozenset(("pkl", "pickle", "pyd", "pt", "pth", "npy", "npz"))
"""Extensions that are, or can hold, Python objects."""


def _of_text(extension: str) -> str:
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", extension):
        raise ValueError(f"{extension!r}: write an extension without its first dot, such as txt")
    if extension.rpartition(".")[2].lower() in PICKLED:
        raise ValueError(f"{extension!r}: can hold pickled objects, which run code when they are read; choose text")
    return extension


class WebDatasetConfig(FileCorpus):
    """One document for each member with the extension; its id is the tar's name and the member's."""

    kind: Literal["webdataset"]
    extension: Annotated[str, AfterValidator(_of_text)] = "txt"
    """After the first dot of the member's name, or a last part of that: `txt` is that of a.txt and of a.en.txt. Members
    with another are counted, and not read."""
    text_field: str = Field(default="text", min_length=1)
    """Where the extension is (or ends with) json: the field of the object, as in kind jsonl."""
    bad_record: SkipOrStop = "skip"
    """Likewise: what to do about a member that is no JSON object, or has no text."""

    def found_in(self, folder: Folder, span: Span, report: Report) -> Iterator[Found]:
        with opened(folder, span.name) as stream:
            for member in members_in(stream):
                if member.is_folder:
                    continue
                report.start = member.offset
                if member.refusal is not None:
                    raise BadInput(
                        f"{folder.shown}/{span.name}: member {member.name!r} is refused: {member.refusal.detail}; pack "
                        "regular files only, with relative names"
                    )
                if not self._is_text(member.name):
                    report.add("other_member", f"{span.name}:{_in_unicode(member.name)}")
                elif member.size > self.max_document_bytes:
                    report.add("too_long", f"{span.name}:{_in_unicode(member.name)}")
                else:
                    yield from self._found(span.name, member, without_mark(member.read(), report), report)

    def _is_text(self, name: str) -> bool:
        return f".{name.rpartition('/')[2].partition('.')[2]}".endswith(f".{self.extension}")

    def _found(self, tar: str, member: Member, data: bytes, report: Report) -> Iterator[Found]:
        identity = f"{tar}:{_in_unicode(member.name)}"
        content: bytes | str = data
        if self.extension.rpartition(".")[2] == "json" and data:
            record = JsonFields(self.text_field, None, self.bad_record, self.invalid_utf8).read(identity, data, report)
            if record is None:
                return
            content = record[1]
        yield Found(identity, content, tar, member.offset, member.offset + member.size)


def _in_unicode(name: str) -> str:
    """With `\\xe9` for a byte that is not UTF-8, which `tarfile` gives as half of a surrogate pair."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
