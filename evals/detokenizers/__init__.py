"""Invertible de-tokenizers of the language-modelling benchmarks."""

from evals.detokenizers.ptb import PennTreebank
from evals.detokenizers.round_trip import Detokenizer, RoundTrip, round_trip
from evals.detokenizers.wikitext import WikiText

__all__ = ["Detokenizer", "PennTreebank", "RoundTrip", "WikiText", "round_trip"]
