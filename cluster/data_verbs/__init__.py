"""The verbs of `data`: what there is, a batch as a model sees it, lengths of documents, and whether files are whole."""
