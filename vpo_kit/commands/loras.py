"""Commands that sample: a model, with or without a LoRA from a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

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
        model.pipeline.load_lora_weights(str(weights.parent), weight_name=weights.name)
    except (ValueError, RuntimeError, KeyError, SafetensorError, OSError) as error:
        raise ModelError(f"{weights} does not load into {model.source}: {str(error).splitlines()[0]}") from error
    try:
        yield
    finally:
        model.pipeline.unload_lora_weights()
