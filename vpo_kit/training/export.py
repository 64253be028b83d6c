"""A finished LoRA in other forms, and whether a copy does what the original did."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import diffusers
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vpo_kit.folders import resolve
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import draw_noise
from vpo_kit.times import Times
from vpo_kit.training import comfyui
from vpo_kit.training.lora import POLICY, LoraPolicy, Start, file_name, part_of

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
    """The networks' outputs, float32 on the CPU, for small videos at two times of each network and two prompts: the
    same for every copy.
    """
    time, tall, wide = model.multiples
    # UNets halve their input three times
    height, width = model.only_size or (-(-64 // tall) * tall, -(-64 // wide) * wide)
    if model.largest_size is not None:
        height, width = min(height, model.largest_size[0]), min(width, model.largest_size[1])
    frames = 2 * time + int(model.causal)
    shape = model.latent_shape(frames, height, width)
    x = draw_noise(shape, [1, 2], model.device)
    conditions, outputs = model.conditions_at(PROMPTS, frames=frames, height=height, width=width), []
    for name in model.networks:
        t = model.time_sampler(Times(name="uniform"), model.settings, [name]).draw([1, 2], model.device)
        outputs.append(model.predict(x, model.schedule.network_time(t), conditions).float().cpu())
    return torch.cat(outputs)


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


def compare_merged(model: VideoModel, lora: Start, folder: Path) -> Weights:
    """The networks in the pipeline `folder` against those of the bare `model` and the LoRA that was added: each weight
    to its last digits.
    """
    unmatched = wrong = total = 0
    kept = whole = 0.0
    for name, network in model.networks.items():
        part = replace(lora, state=part_of(lora.state, model.prefix(name)))
        found = _compare_network(network, part, folder / name)
        unmatched, wrong, total = unmatched + found.unmatched, wrong + found.wrong, total + found.total
        kept, whole = kept + found.kept, whole + found.whole
    return Weights(unmatched, wrong, total, kept / whole if whole else 1.0)


@dataclass(frozen=True, kw_only=True)
class _Merged:
    """The comparison of one network: weights without a counterpart, wrong ones, all; and the LoRA's inner product with
    what was added (`kept`) and with itself (`whole`).
    """

    unmatched: int
    wrong: int
    total: int
    kept: float
    whole: float


def _compare_network(network: nn.Module, lora: Start, folder: Path) -> _Merged:
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
    return _Merged(unmatched=len(own.keys() ^ seen), wrong=wrong, total=len(own), kept=kept, whole=whole)


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


def write_comfyui(policy: LoraPolicy, target: Path) -> None:
    """A safetensors file for each trained network, as ComfyUI reads it: `target` where its name says that it is one
    file, else files in a folder. Raises `ModelError` where the family has no such form.
    """
    family, state = type(policy.model.pipeline).__name__, policy.state()
    for name, network in policy.networks.items():
        made = network.peft_config[POLICY]
        own = comfyui.convert(family, part_of(state, policy.model.prefix(name)), made.lora_alpha / made.r)
        file = target if target.suffix == ".safetensors" else target / file_name(policy.model, name)
        file.parent.mkdir(exist_ok=True)
        save_file(own, file, metadata={"format": "pt"})


def write_merged(policy: LoraPolicy, folder: Path, revision: str | None, variant: str | None = None) -> None:
    """The pipeline with the LoRA added to its networks' weights, which stay in their dtype; `policy` is used up.

    The other components are copied as they are: a text encoder that was loaded in another dtype keeps its own on disk.
    With a `variant` the networks' files have that name, as those of the model that it was made of.
    """
    model = policy.model
    source = _folder_of(model.source, revision, variant)
    parts = [name for name in model.pipeline.config if (source / name).is_dir() and name not in policy.networks]
    for name in [*parts, "prompts", "preview_decoder"]:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns(*PICKLES))
    for name in ("model_index.json", "vpo.json", "recipe.yaml"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    for name, network in policy.networks.items():
        network.fuse_lora(safe_fusing=True, adapter_names=[POLICY])
        network.unload_lora()
        network.save_pretrained(folder / name, safe_serialization=True, variant=variant)
        config = f"{name}/config.json"  # diffusers notes in its own where the weights were on this machine
        shutil.copy(source / config, folder / config)


def _folder_of(source: str, revision: str | None, variant: str | None) -> Path:
    """The folder of a model on this machine; that of a hub id is in the cache, from which it was just loaded."""
    found = resolve(source)
    if Path(found).is_dir():
        return Path(found)
    return Path(diffusers.DiffusionPipeline.download(found, revision=revision, variant=variant, use_safetensors=True))
