"""What stands around each pass of a model for as long as a context lasts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions

Pass = Callable[[Tensor, Tensor, Conditions], Tensor]
"""`VideoModel.predict`."""


@contextmanager
def around(model: VideoModel, wrap: Callable[[Pass], Pass]) -> Iterator[None]:
    """Inside, `model.predict` is what `wrap` makes of it."""
    own: Any = model
    held = vars(model).get("predict")
    own.predict = wrap(model.predict)
    try:
        yield
    finally:
        if held is None:
            del own.predict
        else:
            own.predict = held


def lower_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where `device` has instructions that multiply in it, else None: without them it would be slower."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu":
        return None
    # newer than the oldest torch that the project takes
    able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else None


@contextmanager
def lowered(model: VideoModel, dtype: torch.dtype | None) -> Iterator[None]:
    """Inside, the products of a pass are done in `dtype` (`torch.autocast`), and what it predicts is float32 as always.

    Weights and latents stay as they are, and so do the sampler's own sums, which autocast would lower too. None changes
    nothing.
    """
    if dtype is None:
        yield
        return

    def wrap(predict: Pass) -> Pass:
        def lower(latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
            with warnings.catch_warnings(), torch.autocast(latents.device.type, dtype):
                # a norm whose weights stay in float32 is exact, and a little slower
                warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
                return predict(latents, time, conditions)

        return lower

    with around(model, wrap):
        yield
