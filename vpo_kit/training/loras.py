"""A model with or without the LoRA of a run, to sample from.

A LoRA is one file; for a model with two experts it is one for each, and the file's name says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vpo_kit.config import EXPERTS
from vpo_kit.errors import ModelError, VpoError
from vpo_kit.models.base import VideoModel
from vpo_kit.training import lora_forms
from vpo_kit.training.lora import WEIGHTS_NAME


def weights_of(path: Path) -> dict[str, Path]:
    """The LoRA files behind a run folder, a LoRA folder or a file, by expert; a file alone under the name "".

    Raises `ModelError` where there is none, or more than one of an expert.
    """
    for candidate in (path, path / WEIGHTS_NAME, path / "lora" / WEIGHTS_NAME, path / "adapter_model.safetensors"):
        if candidate.is_file():
            return {"": candidate}
    for folder in (path, path / "lora"):
        found = {expert: sorted(folder.glob(f"*{expert}*.safetensors")) for expert in EXPERTS}
        for expert, files in found.items():
            if len(files) > 1:
                raise ModelError(f"{folder} holds several LoRAs of {expert}: {', '.join(file.name for file in files)}")
        if any(found.values()):
            return {expert: files[0] for expert, files in found.items() if files}
    files = sorted(path.glob("*.safetensors"))
    if len(files) > 1:
        raise ModelError(f"{path} holds {len(files)} files, {files[0].name} and {files[1].name} among them: name one")
    if files:
        return {"": files[0]}
    raise ModelError(f"{path} holds no LoRA: give a run folder, or a folder with {WEIGHTS_NAME}")


def count(file: Path) -> int:
    """How many numbers a LoRA's file has, by its header. Raises `ModelError`."""
    try:
        with safe_open(file, "pt") as opened:
            return sum(math.prod(opened.get_slice(key).get_shape()) for key in opened.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def places(model: VideoModel, path: Path) -> dict[str, Path]:
    """The LoRA files behind `path`, by the name of the network that each is for. Raises `ModelError`."""
    files, experts = weights_of(path), model.experts
    if not experts:
        if "" not in files:
            raise ModelError(f"{path} is a LoRA of a model with two experts, and {model.source} has one network")
        return {model.network_name: files[""]}
    if "" in files:
        named = [expert for expert in experts.values() if expert in files[""].name]
        if len(named) != 1:
            raise ModelError(
                f"{files['']} does not say which expert of {model.source} it is for: have {' or '.join(EXPERTS)} in "
                "its name, or give a folder with a file for each"
            )
        files = {named[0]: files[""]}
    return {name: files[expert] for name, expert in experts.items() if expert in files}


def load(model: VideoModel, path: Path) -> None:
    """Load the LoRA of `path` by the pipeline itself, as any user of diffusers would. Raises `ModelError`."""
    for name, file in places(model, path).items():
        _load(model, name, file)


@contextmanager
def loaded(model: VideoModel, path: Path) -> Iterator[None]:
    """`model` with the LoRA of `path`, which is taken off again. Raises `ModelError`."""
    places(model, path)  # what it refuses is not to be taken off again
    try:
        load(model, path)
        yield
    finally:
        model.pipeline.unload_lora_weights()


def _load(model: VideoModel, name: str, weights: Path) -> None:
    try:
        state = lora_forms.read(model, name, weights)
        _check_fit(model, name, weights, given(state, weights))
        options = model.lora_options(name)
        where = given(state, weights)
        model.pipeline.load_lora_weights(where.pop("what"), **where, **options)
        lora_forms.all_loaded(model, lora_forms.count(weights), weights)
        lacking = [key for key, value in model.networks[name].named_parameters() if ".lora_" in key and value.is_meta]
        if lacking:
            raise ModelError(f"{weights} lacks {len(lacking)} weights of its LoRA, {lacking[0]} for one")
    except VpoError:
        raise
    except Exception as error:  # diffusers and PEFT meet damaged files with a dozen kinds of error
        what = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{weights} does not load into {model.source}: {what}") from error


def given(state: Mapping[str, Tensor] | None, weights: Path) -> dict[str, Any]:
    """What diffusers' loaders take: the tensors that were read, or the file; they empty the mapping that they get."""
    if state is not None:
        return {"what": dict(state)}
    return {"what": str(weights.parent), "weight_name": weights.name}


def _check_fit(model: VideoModel, name: str, weights: Path, where: dict[str, Any]) -> None:
    """Raises `ModelError` for a LoRA of another network, of which diffusers leaves out what has no place and only logs
    it, and for one that is not finite.
    """
    network = model.networks[name]
    found = model.pipeline.lora_state_dict(where.pop("what"), **where)
    state: dict[str, Tensor] = found[0] if isinstance(found, tuple) else found
    prefix, layers = f"{model.network_name}.", dict(network.named_modules())
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    fitting = [key for key, value in own.items() if _fits(layers, key, value)]
    if not own or len(fitting) < len(state):
        rest = next(key for key in state if key.removeprefix(prefix) not in fitting)
        raise ModelError(
            f"{weights} is the LoRA of another model: {len(fitting)} of its {len(state)} weights have a place in "
            f"{type(network).__name__} of {model.source}, {rest} {list(state[rest].shape)} for one has none"
        )
    if broken := [key for key, value in state.items() if not value.isfinite().all()]:
        raise ModelError(
            f"{weights} holds numbers that are not finite, {broken[0]} for one: its training has failed: take an "
            "earlier checkpoint"
        )


def _fits(layers: dict[str, nn.Module], key: str, value: Tensor) -> bool:
    """Whether a factor, ``A [rank, in]`` or ``B [out, rank]``, has a layer with weight ``[out, in]``.

    Keys of an older form are left to diffusers.
    """
    name, separator, rest = key.partition(".lora_")
    layer = layers.get(name)
    weight = getattr(layer, "weight", None)
    if not separator or value.ndim < 2 or not isinstance(weight, Tensor):
        return not separator or name in layers
    # four bits lie in a weight of another shape
    shape = (layer.out_features, layer.in_features) if isinstance(layer, nn.Linear) else weight.shape
    side = 1 if rest.startswith("A") else 0
    return value.shape[side] == shape[side]
