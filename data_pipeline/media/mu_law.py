"""Companding of samples into 256 codes, close together where a wave is quiet.

ITU-T recommendation G.711 in the form of van den Oord et al. 2016 (WaveNet, https://arxiv.org/abs/1609.03499, section
2.2): with x from -1 to 1 and mu = 255,

    f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),    code = round((f + 1) / 2 * mu)
"""

import numpy as np

MU = 255


def mu_law_codes(samples: np.ndarray) -> np.ndarray:
    """uint8 codes of int16 samples."""
    x = samples.astype(np.float64) / 32768.0
    companded = np.sign(x) * np.log1p(MU * np.abs(x)) / np.log1p(MU)
    return np.floor((companded + 1) / 2 * MU + 0.5).astype(np.uint8)
