"""Log-likelihoods of text under a language model: what a task asks, in tokens, in batches, from any back end."""
