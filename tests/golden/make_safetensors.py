"""Writes safetensors/mixed.safetensors with the reference writer (safetensors 0.8.0): one tensor of every dtype we read.

Values are 0, 1, 2, ... of each dtype (BOOL: false, true, false), so that the test can state them.
"""
import pathlib

import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent / "safetensors"
here.mkdir(exist_ok=True)
tensors = {
    "bool": torch.tensor([False, True, False]),
    "bytes.u8": torch.arange(5, dtype=torch.uint8),
    "bytes.i8": torch.arange(3, dtype=torch.int8),
    "i16": torch.arange(4, dtype=torch.int16),
    "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "bfloat": torch.arange(2, dtype=torch.bfloat16),
    "i32": torch.arange(2, dtype=torch.int32),
    "float b": torch.arange(6, dtype=torch.float32).reshape(3, 2),
    "float a": torch.arange(1, dtype=torch.float32),
    "double": torch.arange(2, dtype=torch.float64),
    "i64": torch.arange(2, dtype=torch.int64),
    "scalar": torch.tensor(0.0),
    "empty": torch.zeros(0, 3),
}
save_file(tensors, here / "mixed.safetensors", metadata={"format": "pt"})
