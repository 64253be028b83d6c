"""Pair steps of the published architectures on a CUDA card, with random weights: ``python -m benchmarks.speed.gpu``.

Seconds and peak memory of a whole `dpo` step of one pair (reference, forward and backward pass, AdamW) in bfloat16 at
the model's own size, and the share of the card's matrix rate that its floating point operations come to. The text is
random numbers, for the text encoder takes no part in a step. Writes ``benchmarks/results/speed_gpu.json``.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import facts
from vpo_kit.config import Lora, Optimiser
from vpo_kit.errors import ConfigError
from vpo_kit.methods.base import Batch, Context
from vpo_kit.methods.dpo import DPO, DPOConfig
from vpo_kit.models import memory
from vpo_kit.models.attention import check_attention, check_family, set_attention
from vpo_kit.models.base import Conditions, VideoModel
from vpo_kit.planning.published import PUBLISHED
from vpo_kit.planning.skeleton import _cast
from vpo_kit.registry import MODELS
from vpo_kit.training import optimisers
from vpo_kit.training.lora import LoraPolicy

TOKENS = {"Wan-AI/Wan2.1-T2V-1.3B-Diffusers": 512, "Lightricks/LTX-Video": 128, "THUDM/CogVideoX-5b": 226}
"""The models, and how many tokens of text each network takes."""
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "low_memory": {"low_memory": True},
    "gradient_checkpointing": {"checkpointing": True},
    "gradient_checkpointing, low_memory": {"checkpointing": True, "low_memory": True},
    "gradient_checkpointing, compile": {"checkpointing": True, "compile": True},
    "gradient_checkpointing, xformers": {"checkpointing": True, "attention": "xformers"},
    "gradient_checkpointing, flash": {"checkpointing": True, "attention": "flash"},
}
STEPS = 4


def build(name: str, device: str) -> VideoModel:
    """The production adapter over networks of random weights in bfloat16, without a text encoder."""
    family, makers = PUBLISHED[name]()
    parts: dict[str, Any] = {"text_encoder": None}
    for key, make in makers.items():
        if key in ("transformer", "vae"):
            with torch.device(device):
                parts[key] = make()
            _cast(parts[key], torch.bfloat16)
        elif key != "text_encoder":
            parts[key] = make()
    adapter: Callable[..., VideoModel] = MODELS.load(family)
    return adapter(getattr(diffusers, family)(**parts), None, name)


def step_of(
    model: VideoModel, tokens: int, *, checkpointing: bool = False, compile: bool = False, low_memory: bool = False,
    attention: str = "auto", **sizes: int,
) -> Callable[[], None]:  # fmt: skip
    """A whole optimiser step on one pair of random latents. Raises `ConfigError` for what cannot run here."""
    check_attention(attention, "bfloat16")
    check_family(attention, type(model.pipeline).__name__)
    memory.tune(model, gradient_checkpointing=checkpointing, compile=compile)
    if attention != "auto":
        set_attention(model, attention)
    settings = model.settings.changed(**sizes)
    policy = LoraPolicy(model, Lora(), seed=0)
    optimiser = optimisers.build(Optimiser(lr=1e-5), policy.parameters)
    text = torch.randn(1, tokens, 4096, device=model.device, dtype=model.dtype)
    mask = {"mask": torch.ones(1, tokens, device=model.device)} if "LTX" in type(model.pipeline).__name__ else {}
    conditions = Conditions({"embeds": text, **mask})
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    tensors = {key: torch.randn(1, *shape, device=model.device) for key in ("first", "second")}
    tensors["label"] = torch.ones(1, device=model.device)
    method = DPO(DPOConfig(low_memory=low_memory), Context(policy, None, settings, conditions, 1, 0))

    def step() -> None:
        output = method.step(Batch(0, ["text"], conditions, [0], [0], [0], tensors))
        for part in [output.loss] if output.parts is None else output.parts:
            part.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def measure(name: str, variant: dict[str, Any], rate: float) -> dict[str, Any]:
    try:
        step = step_of(build(name, "cuda"), TOKENS[name], **variant)
        step()  # warms up, and compiles
        torch.cuda.reset_peak_memory_stats()
        times = [_seconds(step) for _ in range(STEPS)]
        peak = torch.cuda.max_memory_allocated() / 2**30
    except ConfigError as error:
        return {"left out": str(error)}
    except torch.OutOfMemoryError:
        return {"left out": "out of memory"}
    found = {"seconds": round(median(times), 3), "peak GiB": round(peak, 2)}
    if variant.get("compile") or variant.get("attention"):
        return found  # their kernels are not counted
    with FlopCounterMode(display=False) as counter:
        step()
    return {**found, "of the matrix rate": round(counter.get_total_flops() / median(times) / rate, 3)}


def matrix_rate(size: int = 8192) -> float:
    """Floating point operations a second in a large bfloat16 product."""
    one, other = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = [_seconds(lambda: one @ other) for _ in range(20)]
    return 2 * size**3 / median(times[5:])


def _seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device")
    rate = matrix_rate()
    found: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "matrix TFLOP/s": round(rate / 1e12, 1),
        "models": {},
    }
    for name in TOKENS:
        rows = found["models"][name] = {}
        for label, variant in VARIANTS.items():
            rows[label] = measure(name, variant, rate)
            print(name, label, rows[label], flush=True)
            gc.collect()
            torch.cuda.empty_cache()
            torch.compiler.reset()
    facts.write("speed_gpu", found)


if __name__ == "__main__":
    main()
