"""Models that can be scored: Segue's own runs and exports, those of transformers, and the baselines."""
