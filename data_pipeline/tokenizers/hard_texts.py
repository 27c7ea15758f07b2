"""On what a faster way to the same ids is compared with the reference before it is believed."""

from collections.abc import Sequence

HARD_TEXTS = (
    "It's 10:45, don't you'd I'LL we've 'S o'clock'",
    "  two  spaces \t tab\r\n\r\n   \n x \n",
    "a\u0301 na\u00efve \u00c5ngstr\u00f6m \u00a0no-break\u2003em\u3000wide\u2028line\u0085next",
    "東京都 русский العربية हिन्दी",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd \U0001f1e9\U0001f1ea\ufe0f \U0010ffff",
    "\u00b2\u00bd\u2167\u0661\u0e53 3.14159e-10 1,000,000",
    "\x01\x1c\x1d\x1e\x1f\x7f\x80 \x0b\x0c",
    "<|endoftext|><eos><unk>[CLS]</s>",
    "a" * 300 + " " * 300 + "=" * 300 + "\n" * 300 + "ab" * 300,
    "def f(x):\n    return {'a': [x**2, None]}  # \\n\n",
    "https://example.org/a_b?c=d&e=%20f#g \ufeff\ufffd",
    " ",
    "\n",
    "",
)

FIRST_CHARACTERS = 1 << 16


class FirstTexts:
    """Hands out what comes first of all texts that come, some thousand characters altogether."""

    def __init__(self) -> None:
        self._left = FIRST_CHARACTERS

    def take(self, texts: Sequence[str]) -> list[str]:
        """The first of these, as long as there were not enough."""
        taken: list[str] = []
        for text in texts:
            if self._left <= 0:
                break
            taken.append(text[: self._left])
            self._left -= 1 + len(taken[-1])
        return taken
