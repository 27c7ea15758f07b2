"""Redaction of what is written and shown: long texts that look like the beginning of a secret everywhere."""

import pytest

from data_pipeline.redaction import redact


@pytest.mark.parametrize(
    "unit",
    [
        "sk-",
        "eyJ-",
        "a.",
        "a-",
        "--a-",
        "a@",
        "://a:",
        "bearer ",
        "password=(",
        "password='",
        'key\\"',
        "token: ",
        "= ",
    ],
)
def test_a_long_text_of_beginnings_takes_no_time_by_its_square(unit: str) -> None:
    """By the square of it, half an hour."""
    text = unit * (400_000 // len(unit))
    assert redact(f"https://me:pass@host {text}").startswith("https://<redacted>@host ")


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abc_def-ghi-jkl-mno-1",
        f"sk-{'x' * 90}1",
        f"eyJ{'a' * 1000}.eyJ{'b' * 5000}.c",
        f"eyJ{'a' * 8}.b_-b.c_-",
    ],
)
def test_long_tokens_are_found(secret: str) -> None:
    assert redact(f"of {secret} it") == "of <redacted> it"


@pytest.mark.parametrize("key", ["password", "a.b.c.d.password", f"{'part.' * 60}password", "--x-y-z-password"])
def test_long_keys_are_found(key: str) -> None:
    assert redact(f"{key}=abcdef, x") == f"{key}=<redacted>, x"
