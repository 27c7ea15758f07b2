"""How byte-level vocabularies write bytes: one printable character each (Radford et al. 2019, `bytes_to_unicode`).

The bytes that Latin-1 shows as a visible character are that character, all others, in order, those from U+0100 on.
"""

VISIBLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))


def _byte_of() -> dict[str, int]:
    hidden = (byte for byte in range(256) if byte not in VISIBLE)
    return {chr(byte): byte for byte in VISIBLE} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


BYTE_OF: dict[str, int] = _byte_of()
"""Character -> byte."""


def spelled(token: str) -> bytes | None:
    """The bytes of a token; None if it holds another character.

    >>> spelled("Ġthe"), spelled("東")
    (b' the', None)
    """
    try:
        return bytes(BYTE_OF[character] for character in token)
    except KeyError:
        return None
