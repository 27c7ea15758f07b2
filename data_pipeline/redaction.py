"""Secrets leave no trace: whatever is written or shown goes through `redact` or `redact_values` first.

A secret is the value of an environment variable with a secret name, the user and password in a URL, a token of a
well-known shape, or the value beside a key whose name is secret. It becomes `<redacted>`.
"""

import io
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TextIO
from urllib.parse import quote

REDACTED = "<redacted>"

LEAST_LENGTH = 6
"""Shorter values of environment variables are words like `true`, and would blot out too much."""

SECRET_WORDS = frozenset(
    ("TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWORDS", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS")
) | {"APIKEY", "AUTHORIZATION"}
SECRET_ENDINGS = ("PASSWORD", "PASSWD", "SECRET", "APIKEY", "AUTHTOKEN")
"""Of words that are written as one, such as PGPASSWORD."""
KEY_OWNERS = frozenset(("API", "ACCESS", "PRIVATE", "SECRET", "AUTH", "ENCRYPTION", "SIGNING", "ACCOUNT"))
"""`KEY` is secret after one of these, `TOKENS` too."""
OF_TEXT = frozenset(("NUM", "MAX", "MIN", "VOCAB", "PAD", "BOS", "EOS", "UNK", "UNKNOWN", "CLS", "SEP", "MASK")) | {
    "START", "END", "SPECIAL", "NEXT", "LAST", "FIRST", "PER", "ID", "IDS", "COUNT",
}  # fmt: skip
"""Beside one of these, a token is one of a text."""
ABOUT = frozenset(("PATH", "FILE", "DIR", "DIRECTORY", "MODE", "TYPE", "NAME", "LENGTH", "SIZE", "ENABLED"))
"""A name that ends so tells something of a secret, but not the secret."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SHORT_NUMBER = re.compile(r"\d{1,5}")
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
USER_AND_PASSWORD = re.compile(r"(?<=://)[^/\s:@\"'<>]*:[^/\s\"'<>]*(?=@)")
TOKEN_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|sk-(?=[\w-]{0,99}?\d)[\w-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|xox[a-z]-[A-Za-z0-9-]{10,}"
    r"|eyJ[\w-]{8,1024}+\.[\w-]{4,}+\.[\w-]+)"
)
"""Hugging Face, GitHub, GitLab, OpenAI and its like, AWS, Google, Slack, JSON web tokens.

What a shape looks at before it is told from others is bounded, here and below: else a long text of beginnings alone
takes time by the square of its length.
"""
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/-]{8,}=*")
_KEY = re.compile(
    r"""(?<![A-Za-z0-9_])(?:--(?P<option>[A-Za-z][\w-]{0,127}+)\s+"""
    r"""|(?P<key>[A-Za-z][\w.-]{0,127}+)\\?["']?\]?\s*+[=:]\s*)"""
)
"""`--key value`, or what stands before the value in `key=value`, `key: value` and `"key": "value"`."""
_VALUE = re.compile(r"""\\"(?s:.*?)\\"|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s&;"'<]*[^\s&;"'<,()\[\]{}]""")


def redact(text: str) -> str:
    """The text without its secrets.

    >>> redact("api_token=abcdef for https://me:pass@host, num_tokens=7")
    'api_token=<redacted> for https://<redacted>@host, num_tokens=7'
    """
    return _redact(text, environment_secrets(os.environ))


def redact_values(values: Any) -> Any:
    """Plain JSON values without their secrets; all values below a key whose name is secret are taken for such.

    >>> redact_values({"password": "abc", "steps": 3, "from": "s3://me:it@bucket"})
    {'password': '<redacted>', 'steps': 3, 'from': 's3://<redacted>@bucket'}
    """
    secrets = environment_secrets(os.environ)
    return _map_strings(values, lambda text: _redact(text, secrets))


def same_but_for_secrets(a: Any, b: Any) -> bool:
    """Whether two plain JSON values can be the same, each `<redacted>` standing for any text."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_but_for_secrets(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same_but_for_secrets, a, b))
    return bool(a == b) or _fits(a, b) or _fits(b, a)


def redacted_keys(values: Any, prefix: str = "") -> list[str]:
    """The dotted keys of plain values in which something was redacted."""
    if isinstance(values, dict):
        return [key for name, inner in values.items() for key in redacted_keys(inner, f"{prefix}.{name}")]
    if isinstance(values, list):
        return [prefix[1:]] if any(redacted_keys(inner, "._") for inner in values) else []
    return [prefix[1:]] if isinstance(values, str) and REDACTED in values else []


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether what goes by this name, in any of the usual spellings, is secret.

    >>> [is_secret_name(name) for name in ("HF_TOKEN", "apiKey", "db.password", "max_tokens", "pad_token", "tokenizer")]
    [True, True, True, False, False, False]
    """
    words = [word.upper() for word in _WORD.findall(name)]
    if not words or words[-1] in ABOUT:
        return False
    owned = any(
        word in ("KEY", "KEYS", "TOKENS") and before in KEY_OWNERS for before, word in itertools.pairwise(words)
    )
    if owned or any(word.endswith(SECRET_ENDINGS) for word in words) or (words[-1] == "PASS" and len(words) > 1):
        return True
    found = SECRET_WORDS.intersection(words)
    return bool(found) and not (found == {"TOKEN"} and bool(OF_TEXT.intersection(words)))


def environment_secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables with a secret name as they may stand in a text, the longest first."""
    values = {value for name, value in environment.items() if len(value) >= LEAST_LENGTH and is_secret_name(name)}
    lines = {line for value in values for line in value.splitlines() if len(line) >= LEAST_LENGTH}
    return _spellings(frozenset(values | lines))


@lru_cache(maxsize=16)
def _spellings(values: frozenset[str]) -> tuple[str, ...]:
    """As they are, in a string of JSON or Python, and in a URL."""
    spelt = {*values, *(json.dumps(v)[1:-1] for v in values), *(repr(v)[1:-1] for v in values)}
    spelt |= {quote(value, safe="") for value in values}
    return tuple(sorted(spelt, key=lambda value: (-len(value), value)))


def _redact(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    text = PRIVATE_KEY.sub(REDACTED, text)
    text = USER_AND_PASSWORD.sub(REDACTED, text)
    text = TOKEN_SHAPES.sub(REDACTED, text)
    text = _BEARER.sub(rf"\1\2{REDACTED}", text)
    return _without_assigned(text)


def _without_assigned(text: str) -> str:
    """The text without the values beside keys whose names are secret."""
    kept, position = [], 0
    for found in _KEY.finditer(text):
        key = found["key"] or found["option"]
        value = _VALUE.match(text, found.end()) if found.end() >= position and is_secret_name(key) else None
        if value is None or not _can_be_secret(key, value[0].strip("\\\"'")):
            continue
        quotes = re.match(r"\\?[\"']|", value[0])
        mark = quotes[0] if quotes else ""
        kept += [text[position : value.start()], mark, REDACTED, mark]
        position = value.end()
    return "".join([*kept, text[position:]])


def _can_be_secret(key: str, value: str) -> bool:
    """Nothing, the small number of a token, and the path of a file in somebody's home hide nothing."""
    if value.lower() in ("", "none", "null", "true", "false") or value.startswith("~/"):
        return False
    return not ("TOKEN" in key.upper() and _SHORT_NUMBER.fullmatch(value))


def _map_strings(values: Any, change: Callable[[str], str], *, secret_key: str = "") -> Any:
    if isinstance(values, dict):
        return {
            change(name): _map_strings(
                inner, change, secret_key=name if isinstance(name, str) and is_secret_name(name) else secret_key
            )
            for name, inner in values.items()
        }
    if isinstance(values, list | tuple):
        return [_map_strings(inner, change, secret_key=secret_key) for inner in values]
    if secret_key and isinstance(values, str | int) and not isinstance(values, bool):
        return REDACTED if _can_be_secret(secret_key, str(values)) else values
    return change(values) if isinstance(values, str) else values


def _fits(pattern: Any, value: Any) -> bool:
    if not isinstance(pattern, str) or REDACTED not in pattern:
        return False
    parts = map(re.escape, pattern.split(REDACTED))
    return re.fullmatch(".*".join(parts), str(value), re.DOTALL) is not None


class RedactedStream(io.TextIOBase):
    """Stands in the place of a text stream and lets no secret through, also none that comes in several writes.

    What has no line end yet is held back until it has, or until `flush`.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.held = ""
        self.lock = threading.RLock()

    def write(self, text: str) -> int:
        with self.lock:
            lines, end, rest = (self.held + text).rpartition("\n")
            self.held = rest
            if end:
                self.stream.write(redact(lines + end))
        return len(text)

    def flush(self) -> None:
        with self.lock:
            held, self.held = self.held, ""
            if held:
                self.stream.write(redact(held))
            self.stream.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors


def redact_standard_streams() -> None:
    """Let all that this process prints, tracebacks too, lose its secrets on the way; what was done is not undone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, RedactedStream):
            setattr(sys, name, RedactedStream(stream))
