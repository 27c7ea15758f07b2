"""Packages that only media need: imported when they are used, so that recipes of other data do without them."""

import importlib
from typing import Any

from data_pipeline.config import BadInput


def library(module: str) -> Any:
    """The module; BadInput where its package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadInput(f"{module} cannot be imported ({error}); install it: pip install 'segue[media]'") from error
