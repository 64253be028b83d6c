"""A finished LoRA in other forms, and whether a copy does what the original did."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vpo_kit.models.base import VideoModel
from vpo_kit.models.loading import resolve
from vpo_kit.sampler import draw_noise
from vpo_kit.training import comfyui
from vpo_kit.training.lora import POLICY, LoraPolicy, Start

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""How far a copy's output may be off, as a share of the output's largest value."""
LEFT = 0.9
"""How much of a LoRA must be left when it has been added to weights, which rounds it to their precision."""
PROMPTS = ["a red circle moving right", "rain on a street at night"]
PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.h5", "*.msgpack")
"""Weights of other frameworks that lie about in model folders; the safetensors beside them are the same weights."""


@dataclass(frozen=True)
class Weights:
    """A copy's weights against what they must be: without a counterpart, wrong, all; of a merged LoRA, what is left."""

    unmatched: int
    wrong: int
    total: int
    left: float | None = None

    @property
    def right(self) -> bool:
        return not self.unmatched and not self.wrong and (self.left is None or self.left >= LEFT)


@dataclass(frozen=True)
class Check:
    """What a copy gave when it was loaded again: its weights, and the largest difference in the network's output (None
    where the weights alone were bad enough).
    """

    weights: Weights
    difference: float | None
    limit: float

    @property
    def passed(self) -> bool:
        return self.weights.right and self.difference is not None and self.difference <= self.limit  # False for NaN

    def __str__(self) -> str:
        found = self.weights
        left = "" if found.left is None else f", {found.left:.1%} of the LoRA left"
        weights = f"of {found.total} weights {found.unmatched} unmatched and {found.wrong} wrong{left}"
        if self.difference is None:
            return weights
        return f"{weights}; largest difference in the output {self.difference:.2g}, limit {self.limit:.2g}"


@torch.no_grad()
def probe(model: VideoModel) -> Tensor:
    """The network's output, float32 on the CPU, for small videos at two times and prompts: the same for every copy."""
    time, tall, wide = model.multiples
    sides = [-(-64 // side) * side for side in (tall, wide)]  # UNets halve their input three times
    shape = model.latent_shape(2 * time + int(model.causal), *sides)
    x = draw_noise(shape, [1, 2], model.device)
    t = model.schedule.network_time(model.schedule.sample_t(2, torch.Generator().manual_seed(0)))
    return model.predict(x, t, model.encode_prompts(PROMPTS)).float().cpu()


def check(weights: Weights, original: Tensor, copy: Tensor | None, dtype: str) -> Check:
    """`original` and `copy` are outputs of `probe`."""
    difference = None if copy is None else float((copy - original).abs().max())
    return Check(weights, difference, TOLERANCE[dtype] * float(original.abs().max()))


def compare_loras(original: Start, copy: Start) -> Weights:
    """Layer by layer, what is added to the weights: factors may be scaled as long as their product is the same."""
    ours, theirs = _layers(original), _layers(copy)
    shared = ours & theirs
    wrong = [name for name in shared if not _same(_delta(original, name), _delta(copy, name))]
    return Weights(len(ours ^ theirs), len(wrong), len(ours))


def compare_merged(network: nn.Module, lora: Start, folder: Path) -> Weights:
    """The files in `folder` against the bare `network` and the LoRA that was added: each weight to its last digits."""
    own, layers, seen, wrong = network.state_dict(), _layers(lora), set(), 0
    kept, whole = 0.0, 0.0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in sorted(set(file.keys()) & own.keys()):
                found, before, layer = file.get_tensor(name), own[name].cpu(), name.removesuffix(".weight")
                if layer in layers and found.shape == before.shape:
                    change = _delta(lora, layer).reshape(before.shape)
                    moved = found.float() - before.float()
                    wrong += not bool(((moved - change).abs() <= _rounding(before, found.dtype, lora, layer)).all())
                    kept += float((moved * change).sum(dtype=torch.float64))
                    whole += float(change.square().sum(dtype=torch.float64))
                else:
                    wrong += not torch.equal(found, before)
            seen.update(file.keys())
    return Weights(len(own.keys() ^ seen), wrong, len(own), kept / whole if whole else 1.0)


def _layers(lora: Start) -> set[str]:
    return {key.rpartition(".lora_")[0] for key in lora.state}


def _delta(lora: Start, layer: str) -> Tensor:
    """What a LoRA adds to a layer's weight, ``[out, in]``, kernels flattened into ``in``."""
    down, up = lora.state[f"{layer}.lora_A.weight"], lora.state[f"{layer}.lora_B.weight"]
    return up.flatten(1) @ down.flatten(1) * (lora.alpha / lora.rank)


def _rounding(before: Tensor, dtype: torch.dtype, lora: Start, layer: str) -> Tensor:
    """How far ``before + change`` may be off in `dtype`: its last digit, and what the sum over the rank adds."""
    down, up = lora.state[f"{layer}.lora_A.weight"], lora.state[f"{layer}.lora_B.weight"]
    terms = up.flatten(1).abs() @ down.flatten(1).abs() * abs(lora.alpha / lora.rank)
    size = before.float().abs() + terms.reshape(before.shape)
    return (torch.finfo(dtype).eps + 1e-5) * size + torch.finfo(dtype).smallest_normal


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= 1e-5 * one.norm())


def write_comfyui(policy: LoraPolicy, file: Path) -> None:
    """One safetensors file as ComfyUI reads it. Raises `ModelError` where the family has no such form."""
    made = policy.model.network.peft_config[POLICY]
    family = type(policy.model.pipeline).__name__
    state = comfyui.convert(family, policy.state(), made.lora_alpha / made.r)
    save_file(state, file, metadata={"format": "pt"})


def write_merged(policy: LoraPolicy, folder: Path, revision: str | None) -> None:
    """The pipeline with the LoRA added to its network's weights, which stay in their dtype; `policy` is used up.

    The other components are copied as they are: a text encoder that was loaded in another dtype keeps its own on disk.
    """
    model = policy.model
    network = model.network
    network.fuse_lora(safe_fusing=True, adapter_names=[POLICY])
    network.unload_lora()
    source = _folder_of(model.source, revision)
    parts = [name for name in model.pipeline.config if (source / name).is_dir() and name != model.network_name]
    for name in [*parts, "prompts"]:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns(*PICKLES))
    for name in ("model_index.json", "vpo.json"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    network.save_pretrained(folder / model.network_name, safe_serialization=True)
    config = f"{model.network_name}/config.json"
    shutil.copy(source / config, folder / config)  # diffusers notes in its own where the weights were on this machine


def _folder_of(source: str, revision: str | None) -> Path:
    """The folder of a model on this machine; that of a hub id is in the cache, from which it was just loaded."""
    found = resolve(source)
    if Path(found).is_dir():
        return Path(found)
    return Path(diffusers.DiffusionPipeline.download(found, revision=revision, use_safetensors=True))
