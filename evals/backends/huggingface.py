"""Causal language models of the `transformers` library as networks to score (extra `segue[evals]`).

Shape legend as in `evals.scoring.window_model`.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_128

from data_pipeline.config import BadInput
from evals.scoring.output_layer import LinearOutput, OutputLayer, WholeOutput
from evals.scoring.window_model import WindowModel, hidden_from_each_other

OWN_MASKS = ("sliding_window", "attention_chunk_size", "window_size", "attention_types", "local_attention", "alibi")
"""Settings of models that mask, or weigh by distance, in ways of their own."""
OWN_LENGTHS = ("longrope", "dynamic")
"""Rotary encodings that depend on the length of a batch, so that each row is computed alone."""
PROBED = 600
"""Tokens of a context that is tried."""


class HuggingFaceNetwork:
    """The body of a causal model, and its output layer apart where that is a mere product.

    What a model's code does is not known here, so both are tried on a few tokens: a model that changes its logits
    afterwards (soft caps, scales) is scored from its own logits, and one that does not obey a mask of ours reads a
    shared context anew for each continuation.
    """

    def __init__(self, model: Any, identity: dict[str, Any], *, max_length: int | None = None) -> None:
        """Raises BadInput where the model does not say how much it reads, and `max_length` does not either."""
        self.model, self._identity = model.eval(), identity
        head = model.get_output_embeddings()
        self.device, self._dtype = head.weight.device, head.weight.dtype
        self.max_length = _length(model, max_length)
        self._refuse_what_looks_ahead()
        self.output: OutputLayer = _linear_output(head, model.config)
        self._body = lambda **given: model.base_model(**given).last_hidden_state
        if not self._gives_its_logits():
            self._body = lambda **given: model(**given).logits
            self.output = WholeOutput(self.output.vocab_size, lambda logits_NV: logits_NV.float())
        self.rows_alone = _rotary(model.config) in OWN_LENGTHS
        self.shares_contexts = not self.rows_alone and self._takes_masks()

    def hidden(self, tokens_RL: Tensor, positions_RL: Tensor | None, masked_R1LL: Tensor | None) -> Tensor:
        given: dict[str, Any] = {"input_ids": tokens_RL, "use_cache": False}
        if positions_RL is not None and masked_R1LL is not None:
            allowed = torch.zeros(masked_R1LL.shape, dtype=self._dtype, device=self.device)
            masked = allowed.masked_fill(masked_R1LL, torch.finfo(self._dtype).min)
            given |= {"position_ids": positions_RL, "attention_mask": masked}
        return self._body(**given)

    @torch.no_grad()
    def _refuse_what_looks_ahead(self) -> None:
        tokens_2L = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=self.device)
        logits_2LV = self.model(input_ids=tokens_2L, use_cache=False).logits.float()
        if not logits_2LV.isfinite().all():
            raise BadInput(f"{type(self.model).__name__}: its logits are not finite; are its weights?")
        if not _equal(logits_2LV[0, :3], logits_2LV[1, :3]):
            raise BadInput(f"{type(self.model).__name__}: what comes later changes its logits: it is no causal model")

    @torch.no_grad()
    def _gives_its_logits(self) -> bool:
        tokens_1L = self._some_tokens(6)
        own_LV = self.model(input_ids=tokens_1L, use_cache=False).logits[0].float()
        hidden_LW = self._body(input_ids=tokens_1L, use_cache=False)[0]
        found_LV = torch.cat(list(self.output.parts(hidden_LW)), 1)
        return found_LV.shape == own_LV.shape and _equal(found_LV, own_LV)

    @torch.no_grad()
    def _takes_masks(self) -> bool:
        """Whether a context and two continuations in one row are read as apart, over a distance that shows windows."""
        if any(getattr(_text_config(self.model.config), name, None) for name in OWN_MASKS):
            return False  # a mask of ours would take the place of its own
        size = min(PROBED, self.max_length - 2)
        tokens_1L = self._some_tokens(size + 4)
        last = [*range(size), size + 2, size + 3]
        branch_1L = np.array([[0] * size + [1, 1, 2, 2]])
        positions_1L = torch.tensor([[*range(size), size, size + 1, size, size + 1]], device=self.device)
        masked = torch.from_numpy(hidden_from_each_other(branch_1L)).to(self.device)
        alone_LW = self.hidden(tokens_1L[:, last], None, None)[0]
        try:
            shared_LW = self.hidden(tokens_1L, positions_1L, masked)[0]
        except (TypeError, ValueError, RuntimeError, IndexError):
            return False
        return _equal(shared_LW[last][-2:].float(), alone_LW[-2:].float())

    def _some_tokens(self, count: int) -> Tensor:
        return (torch.arange(1, count + 1, device=self.device) * 7919 % self.output.vocab_size)[None]

    def identity(self) -> dict[str, Any]:
        return self._identity | {"context": self.max_length}


def _linear_output(head: Any, config: Any) -> LinearOutput:
    """With what the configuration says is done to logits; whether that is all, is tried."""
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    return LinearOutput(head.weight, getattr(head, "bias", None), scale=scale, cap=cap)


def _length(model: Any, given: int | None) -> int:
    settings = _text_config(model.config)
    named = (getattr(settings, name, None) for name in ("n_positions", "max_position_embeddings"))
    most = next((int(limit) for limit in named if limit is not None), None)
    if most is None and given is None:
        raise BadInput(f"{type(model).__name__} does not say how many tokens it reads at a time: say so with --context")
    if given is not None and not 1 <= given <= (most or given):
        raise BadInput(
            f"context {given}: must be from 1 to {most or 'what it can read'}, what the model can read at a time"
        )
    return int(most or 0) if given is None else given


def _text_config(config: Any) -> Any:
    """Of a model of images and text, the part that is of text."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _rotary(config: Any) -> str | None:
    """The kind of its rotary encoding."""
    settings = _text_config(config)
    scaling = getattr(settings, "rope_parameters", None) or getattr(settings, "rope_scaling", None) or {}
    return scaling.get("rope_type", scaling.get("type"))


def _equal(one: Tensor, other: Tensor) -> bool:
    """Up to the rounding of the model's numbers."""
    return bool(torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max())))


LOCAL = ("/", "./", "../", "~")
"""Begin a path; other names may be of the hub."""

HOSTILE = " A  b\tc\n\n\u00c9\ufb01 na\u00efve \U0001f600 ."
"""What normalising tokenizers change: blanks, ends of lines, capitals, ligatures, characters that are rare."""


class HuggingFaceTokenizer:
    """A fast tokenizer of the library, without the special tokens that it would add."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises BadInput where it has no token that begins or ends a text."""
        self.tokenizer = tokenizer
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if start is None:
            raise BadInput("the tokenizer has neither a token that begins a text nor one that ends it")
        self.start = int(start)
        other = tokenizer.unk_token_id not in (None, tokenizer.eos_token_id, tokenizer.bos_token_id)
        self.unknown: int | None = tokenizer.unk_token_id if other else None  # GPT-2 calls its end so, and spells all
        if tokenizer.is_fast:
            content = tokenizer.backend_tokenizer.to_str()
        else:
            content = str(sorted(tokenizer.get_vocab().items()))
        self.lossless = self._spells(HOSTILE)
        self.prefix = self._prefix()
        self.hash = sha256(content.encode()).hexdigest()

    def _spells(self, text: str) -> bool:
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return bool(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text)

    def _prefix(self) -> tuple[int, ...]:
        """What it puts before a text by itself."""
        bare, whole = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        begins = (start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
        return tuple(whole[: next(begins, 0)])

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [np.array(ids, dtype=np.int64) for ids in found]


def open_huggingface(
    place: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    context: int | None = None,
) -> tuple[WindowModel, HuggingFaceTokenizer]:
    """A model and tokenizer by directory or hub name; no code of theirs is run. BadInput where there is none.

    `context`: tokens read at a time, rather than as many as the model says that it can.
    """
    if str(place).startswith(LOCAL) and not Path(place).is_dir():
        raise BadInput(f"hf:{place}: there is no such directory; a model of the hub has a name such as gpt2")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise BadInput(f"{place}: needs the transformers library: pip install 'segue[evals]'") from error
    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            place, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{place}: no causal language model of transformers: {str(error).splitlines()[0]}") from error
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if told.get(problem):
            name = sorted(map(str, told[problem]))[0]
            raise BadInput(
                f"{place}: its weights are not those of its config.json: {problem.replace('_', ' ')}, such as {name}; "
                "a model with weights left random, or left out, cannot be evaluated"
            )
    model, words = model.to(device or "cpu"), HuggingFaceTokenizer(tokenizer)
    identity = {
        "model": str(place),
        "kind": type(model).__name__,
        "weights_hash": weights_hash(model),
        "tokenizer_hash": words.hash,
        "dtype": str(dtype).removeprefix("torch."),
    }
    return WindowModel(HuggingFaceNetwork(model, identity, max_length=context)), words


def weights_hash(model: Any) -> str:
    """XXH3 of all weights with their names."""
    seen = xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        seen.update(name.encode())
        seen.update(tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy())
    return str(seen.hexdigest())
