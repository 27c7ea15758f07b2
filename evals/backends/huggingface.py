"""Causal language models of the `transformers` library as networks to score (extra `segue[evals]`).

Shape legend as in `evals.scoring.window_model`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.scoring.window_model import WindowModel


class HuggingFaceNetwork:
    """The body of a causal model, and its output layer apart."""

    def __init__(self, model: Any, identity: dict[str, Any], *, max_length: int | None = None) -> None:
        """Raises BadInput where the model does not say how much it reads, and `max_length` does not either."""
        self.model, self._identity = model.eval(), identity
        self.body, self.head = model.base_model, model.get_output_embeddings()
        self.vocab_size = int(self.head.weight.shape[0])
        limits = (
            max_length,
            *(getattr(model.config, name, None) for name in ("n_positions", "max_position_embeddings")),
        )
        known = [limit for limit in limits if limit is not None]
        if not known:
            raise BadInput(f"{type(model).__name__} does not say how many tokens it reads at a time: give max_length")
        self.max_length = int(known[0])
        self.device = self.head.weight.device

    def hidden(self, tokens_RL: Tensor, positions_RL: Tensor | None, masked_R1LL: Tensor | None) -> Tensor:
        given: dict[str, Any] = {"input_ids": tokens_RL, "use_cache": False}
        if positions_RL is not None and masked_R1LL is not None:
            lowest = torch.finfo(self.head.weight.dtype).min
            allowed = torch.zeros(masked_R1LL.shape, dtype=self.head.weight.dtype, device=self.device)
            given |= {"position_ids": positions_RL, "attention_mask": allowed.masked_fill(masked_R1LL, lowest)}
        hidden_RLW: Tensor = self.body(**given).last_hidden_state
        return hidden_RLW

    def logits(self, hidden_NW: Tensor) -> Tensor:
        logits_NV: Tensor = self.head(hidden_NW).float()
        return logits_NV

    def identity(self) -> dict[str, Any]:
        return self._identity | {"context": self.max_length}


class HuggingFaceTokenizer:
    """A fast tokenizer of the library, without the special tokens that it would add."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises BadInput where it has no token that begins or ends a text."""
        self.tokenizer = tokenizer
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if start is None:
            raise BadInput("the tokenizer has neither a token that begins a text nor one that ends it")
        self.start = int(start)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [np.array(ids, dtype=np.int64) for ids in found]


def open_huggingface(
    place: str | Path, *, dtype: torch.dtype = torch.float32
) -> tuple[WindowModel, HuggingFaceTokenizer]:
    """A model and tokenizer by directory or hub name; no code of theirs is run. BadInput where there is none."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise BadInput(f"{place}: needs the transformers library: pip install 'segue[evals]'") from error
    try:
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{place}: no causal language model of transformers: {str(error).splitlines()[0]}") from error
    identity = {"model": str(place), "kind": type(model).__name__, "dtype": str(dtype).removeprefix("torch.")}
    return WindowModel(HuggingFaceNetwork(model, identity)), HuggingFaceTokenizer(tokenizer)
