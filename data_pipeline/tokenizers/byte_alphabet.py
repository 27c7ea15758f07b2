"""How byte-level vocabularies write bytes: one printable character each (Radford et al. 2019, `bytes_to_unicode`).

The bytes that Latin-1 shows as a visible character are that character, all others, in order, those from U+0100 on.
"""

VISIBLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))

NOT_ONE = 0x2603
"""Some character that stands for no byte."""


def _byte_of() -> dict[str, int]:
    hidden = (byte for byte in range(256) if byte not in VISIBLE)
    return {chr(byte): byte for byte in VISIBLE} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


BYTE_OF: dict[str, int] = _byte_of()
"""Character -> byte."""

_LATIN = {byte: NOT_ONE for byte in range(256) if byte not in VISIBLE} | {
    ord(character): byte for character, byte in BYTE_OF.items()
}
"""For `str.translate`: each of them to the character of Latin-1 that is that byte; others of Latin-1 to none."""


def spelled(token: str) -> bytes | None:
    """The bytes of a token; None if it holds another character.

    >>> spelled("Ġthe"), spelled("東")
    (b' the', None)
    """
    try:
        return token.translate(_LATIN).encode("latin-1")
    except UnicodeEncodeError:
        return None
