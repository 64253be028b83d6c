"""Commands that sample: a model, with or without a LoRA from a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn

from vpo_kit.errors import ModelError
from vpo_kit.models.base import VideoModel
from vpo_kit.training.lora import WEIGHTS_NAME


def weights_of(path: Path) -> Path:
    """The LoRA file behind a run folder, a LoRA folder or a file. Raises `ModelError`."""
    for candidate in (path, path / WEIGHTS_NAME, path / "lora" / WEIGHTS_NAME):
        if candidate.is_file():
            return candidate
    raise ModelError(f"{path} holds no LoRA: give a run folder, or a folder with {WEIGHTS_NAME}")


@contextmanager
def loaded(model: VideoModel, path: Path) -> Iterator[None]:
    """`model` with the LoRA of `path`, loaded by the pipeline itself as any user of diffusers would."""
    weights = weights_of(path)
    try:
        _check_fit(model, weights)
        model.pipeline.load_lora_weights(str(weights.parent), weight_name=weights.name)
    except (ValueError, RuntimeError, KeyError, SafetensorError, OSError) as error:
        raise ModelError(f"{weights} does not load into {model.source}: {str(error).splitlines()[0]}") from error
    try:
        yield
    finally:
        model.pipeline.unload_lora_weights()


def _check_fit(model: VideoModel, weights: Path) -> None:
    """Raises `ModelError` for a LoRA of another network: diffusers leaves out what has no place, and only logs it."""
    found = model.pipeline.lora_state_dict(str(weights.parent), weight_name=weights.name)
    state: dict[str, Tensor] = found[0] if isinstance(found, tuple) else found
    prefix, layers = f"{model.network_name}.", dict(model.network.named_modules())
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    fitting = [key for key, value in own.items() if _fits(layers, key, value)]
    if not own or len(fitting) < len(own):
        raise ModelError(
            f"{weights} is the LoRA of another model: {len(fitting)} of its {len(state)} weights have a place in "
            f"{type(model.network).__name__} of {model.source}"
        )


def _fits(layers: dict[str, nn.Module], key: str, value: Tensor) -> bool:
    """Whether a factor, ``A [rank, in]`` or ``B [out, rank]``, has a layer with weight ``[out, in]``.

    Keys of an older form are left to diffusers.
    """
    name, separator, rest = key.partition(".lora_")
    weight = getattr(layers.get(name), "weight", None)
    if not separator or value.ndim < 2 or not isinstance(weight, Tensor):
        return not separator or name in layers
    side = 1 if rest.startswith("A") else 0
    return value.shape[side] == weight.shape[side]
