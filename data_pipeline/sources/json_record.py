"""The text and the id in a JSON object; what is wrong with it is counted or stops, and is no exception of json's.

>>> JsonFields("page.text", "id").read("a.jsonl:0", b'{"id": 7, "page": {"text": "words"}}', Report())
('7', 'words')
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from data_pipeline.config import BadInput
from data_pipeline.sources.decoding import InvalidUtf8, text_of
from data_pipeline.sources.document import Reason, Report

ABSENT = object()


@dataclass(frozen=True, slots=True)
class JsonFields:
    """Where text and id are, and what to do about a record that has none."""

    text_field: str
    id_field: str | None = None
    bad_record: Literal["skip", "stop"] = "skip"
    invalid_utf8: InvalidUtf8 = "skip"

    def read(self, place: str, data: bytes, report: Report) -> tuple[str | None, str] | None:
        """The id (None: no field was named) and the text; None if it is left out, BadInput if it has to stop."""
        line = text_of(place, data, self.invalid_utf8, report)
        if line is None:
            return None
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            return self._bad(place, "not_json", f"no JSON ({error})", report)
        if not isinstance(record, dict):
            return self._bad(place, "not_json", f"a JSON {type(record).__name__}, not an object", report)
        text = _field(record, self.text_field)
        if text is ABSENT:
            return self._bad(place, "no_text", f"has no {self.text_field} (it has {_keys(record)})", report)
        if not isinstance(text, str):
            message = f"{self.text_field} is {type(text).__name__}, not a string"
            return self._bad(place, "text_not_a_string", message, report)
        if self.id_field is None:
            return None, text
        identity = _field(record, self.id_field)
        if isinstance(identity, bool) or not isinstance(identity, str | int) or not _is_sound(str(identity)):
            return self._bad(
                place, "no_id", f"has no string or integer {self.id_field} (it has {_keys(record)})", report
            )
        return str(identity), text

    def _bad(self, place: str, reason: Reason, message: str, report: Report) -> tuple[str | None, str] | None:
        if self.bad_record == "stop":
            raise BadInput(f"{place}: {message}; mend it, correct the field's name, or set corpus.bad_record to skip")
        report.add(reason, place)
        return None


def _field(record: dict[str, Any], path: str) -> Any:
    """The value of that key, or at the end of a dotted path; ABSENT."""
    if path in record:
        return record[path]
    value: Any = record
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return ABSENT
        value = value[key]
    return value


def _keys(record: dict[str, Any]) -> str:
    """Some of them, for a message."""
    return ", ".join(repr(key)[:40] for key in list(record)[:8]) or "nothing"


def _is_sound(identity: str) -> bool:
    """Not empty, and without halves of surrogate pairs, which no file could store."""
    return bool(identity) and not any("\ud800" <= letter <= "\udfff" for letter in identity)
