"""The dtypes that a checkpoint stores, by the names that safetensors gives them."""

from typing import Literal

import torch

DTypeName = Literal["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]

DTYPES: dict[DTypeName, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES: dict[torch.dtype, DTypeName] = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: torch.dtype) -> DTypeName:
    """Raises ValueError for a dtype that a checkpoint cannot store."""
    if dtype not in _NAMES:
        raise ValueError(f"dtype {dtype} cannot be stored in a checkpoint; use one of {', '.join(map(str, _NAMES))}")
    return _NAMES[dtype]
