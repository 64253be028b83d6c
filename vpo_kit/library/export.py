"""A run's LoRA in another form, loaded again and compared before it is called done."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from vpo_kit import config, files, models
from vpo_kit.errors import ConfigError, ModelError, OutputError
from vpo_kit.models.base import VideoModel
from vpo_kit.training import comfyui, initial, loras, sections
from vpo_kit.training.export import (
    LEFT,
    Check,
    check,
    compare_loras,
    compare_merged,
    probe,
    write_comfyui,
    write_merged,
)
from vpo_kit.training.lora import LoraPolicy, Start

Format = Literal["diffusers", "comfyui", "merged"]


@dataclass(frozen=True, kw_only=True)
class LoraSource:
    """A finished LoRA (a run folder, a LoRA folder or a file) and the model that it belongs to."""

    lora: Path
    model: str
    revision: str | None
    dtype: str
    variant: str | None = None

    def load(self) -> VideoModel:
        return models.load(self.model, revision=self.revision, variant=self.variant, dtype=self.dtype)


@dataclass(frozen=True)
class Original:
    """What a copy must give: the LoRA's weights, and the output of the network with it."""

    lora: Start
    output: Tensor


def export(path: Path, form: Format, output: Path, model: str | None = None, dtype: str | None = None) -> Check:
    """Write the LoRA at `path` (a run folder, a LoRA folder or file) to `output`, whole or not at all, and return what
    the copy gave. `model` and `dtype` are by default those of the run.

    Raises `ModelError` when the copy does not give the same, and then leaves nothing behind; `ConfigError` and
    `OutputError` before a weight is loaded.
    """
    source = _source(path, model, dtype)
    if output.exists():
        raise OutputError(f"{output} exists: give another --output")
    if form == "comfyui":
        _check_name(loras.weights_of(path), output)
    with files.beside(output) as copy:
        original = _write(source, form, copy)
        gc.collect()  # the first model goes before the second comes
        result = _compare(source, form, copy, original)
        if not result.passed:
            rounded = result.weights.left is not None and result.weights.left < LEFT
            hint = "; give --dtype float32" if rounded and source.dtype != "float32" else ""
            raise ModelError(f"{form} does not give what {source.lora} gave: {result}; nothing is written{hint}")
    return result


def notes(path: Path) -> list[str]:
    """What the user should know of the run at `path` before its LoRA is written in another form."""
    kind = sections.of_run(path).get("quantise", "none")
    return [] if kind == "none" else [f"trained on a base in {kind}: it is put on the exact one, and compared there"]


def _check_name(weights: Mapping[str, Path], output: Path) -> None:
    """A ComfyUI LoRA is one file, that of a model with two experts a folder: ComfyUI loads each on its own."""
    alone, one = "" in weights, output.suffix == ".safetensors"
    if alone and not one:
        raise ConfigError(f"--output {output}: a ComfyUI LoRA is one file: call it {output.name}.safetensors")
    if one and not alone:
        raise ConfigError(f"--output {output}: each expert gets a file of its own: give a folder, {output.stem}")


def _source(path: Path, model: str | None, dtype: str | None) -> LoraSource:
    """Model, revision and dtype as the run had them, where they are not given. Raises `ConfigError`, `ModelError`."""
    loras.weights_of(path)  # before anything is loaded
    file = path / "config.yaml"
    if not file.is_file():
        if model is None:
            raise ConfigError(f"{path} is no run folder: say what model the LoRA is for with --model")
        return LoraSource(lora=path, model=model, revision=None, dtype=dtype or "float32")
    made = config.build(config.read_file(file))
    own = model in (None, made.model)
    return LoraSource(
        lora=path,
        model=model or made.model,
        revision=made.revision if own else None,
        dtype=dtype or made.dtype,
        variant=made.variant if own else None,
    )


def _write(source: LoraSource, form: Format, target: Path) -> Original:
    model = source.load()
    if form == "comfyui":
        comfyui.check_family(type(model.pipeline).__name__)
    start = initial.read(model, source.lora)
    with loras.loaded(model, source.lora):
        output = probe(model)
    policy = LoraPolicy(model, config.Lora(rank=start.rank, alpha=start.alpha), 0, start)
    if form == "merged":
        output = probe(model)  # with the LoRA in float32: the pipeline has rounded it to the model's dtype
        write_merged(policy, target, source.revision, source.variant)
    elif form == "comfyui":
        write_comfyui(policy, target)
    else:
        policy.export(target)
        card = next(iter(loras.weights_of(source.lora).values())).parent / "README.md"
        if card.is_file():
            shutil.copy(card, target / card.name)
    return Original(start, output)


def _compare(source: LoraSource, form: Format, copy: Path, original: Original) -> Check:
    fresh, output = source.load(), None
    if form == "merged":
        weights = compare_merged(fresh, original.lora, copy)
        del fresh
        gc.collect()
        if weights.right:  # diffusers would make up what is missing
            output = probe(models.load(str(copy), dtype=source.dtype, variant=source.variant))
    else:
        weights = compare_loras(original.lora, initial.read(fresh, copy))
        with loras.loaded(fresh, copy):
            output = probe(fresh)
    return check(weights, original.output, output, source.dtype)
