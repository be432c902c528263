"""Where a model's weights go and how wide they are, from the words a user writes."""

import torch

from osler.errors import PromptError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of that name; None means what the checkpoint holds.

    Raises:
        PromptError: no dtype that a model runs in.
    """
    if not isinstance(dtype, str):
        return dtype
    if dtype not in DTYPES:
        raise PromptError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def torch_device(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        PromptError: no such device, or none here.
    """
    try:
        # An allocation is the one test that covers a word torch does not know, a build without
        # that backend, and a number beyond the devices present.
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError):
        raise PromptError(f"device is {str(device)!r}, which this machine does not have") from None
