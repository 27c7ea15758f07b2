"""Models without a neural network that stand beside the trained ones: n-grams and the uniform distribution."""

from evals.baselines.baseline import Baseline
from evals.baselines.kneser_ney import KneserNey
from evals.baselines.ngram_model import NGramModel
from evals.baselines.uniform import BYTES, Uniform, byte_ids
from evals.baselines.words import Words, read_lines

__all__ = ["BYTES", "Baseline", "KneserNey", "NGramModel", "Uniform", "Words", "byte_ids", "read_lines"]
