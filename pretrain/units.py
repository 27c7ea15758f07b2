"""From summed nats to the units that fields report. Only this module knows them.

nats are sums of -ln p; a count is what the sum is over.
"""

import math

LN2 = math.log(2.0)


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """-log2 p of the text, per byte of the original text (also bits per character where a character is a byte)."""
    return nats / LN2 / num_bytes


def perplexity(nats: float, count: int) -> float:
    """exp of the mean nats; infinite where that overflows."""
    mean = nats / count
    return math.exp(mean) if mean < 700.0 else math.inf


def bits_per_dimension(nats: float, num_dimensions: int) -> float:
    """-log2 p(x) per dimension, for images."""
    return nats / LN2 / num_dimensions
