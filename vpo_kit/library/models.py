"""A model to work with, with or without the LoRA of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from vpo_kit.config import Model, Sampling
from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel
from vpo_kit.training import loras, run, sampling_lora, sections


def load_model(
    model: str | None = None, *, lora: Path | str | None = None, config: Path | str | None = None, **settings: Any
) -> VideoModel:
    """A model by its embedded name, folder or hub id, on the GPU where there is one, ready to sample.

    `lora` is a run, LoRA folder or file that is loaded into it for good; a run's own model, precision and sampling are
    the defaults. `settings` are those of the model section of a recipe (``dtype="bfloat16"``, ``offload=True``,
    ``sampling={"steps": 20}``), `config` is a recipe that has them. Raises `ConfigError` or `ModelError`.
    """
    found = section(model, lora=lora, config=config, **settings)
    files = Path(lora) if lora is not None else None
    if files is not None:
        loras.weights_of(files)  # before anything is loaded
    made = run.load_model(found, late_encoders=False)
    run.use(made, found.sampling)
    if files is not None:
        loras.load(made, files)
    return made


def section(
    model: str | None = None, *, lora: Path | str | None = None, config: Path | str | None = None, **settings: Any
) -> Model:
    """The checked model section: `settings` over the file `config` over the run behind `lora`. Raises `ConfigError`."""
    given = settings if model is None else {**settings, "model": model}
    return sections.read(Model, given, Path(config) if config else None, Path(lora) if lora else None)


def has_lora(model: VideoModel) -> bool:
    """Whether a LoRA lies on one of the networks."""
    return any(getattr(network, "peft_config", None) for network in model.networks.values())


@contextmanager
def ready(
    model: VideoModel | str | None, lora: Path | None, file: Path | None, settings: dict[str, Any]
) -> Iterator[tuple[VideoModel, Sampling]]:
    """A model with a LoRA and its sampling settings; one that was loaded before is left as it was found.

    Raises `ConfigError` for settings of a loaded model that only loading could follow.
    """
    name = None if isinstance(model, VideoModel) else model
    found = section(name, lora=lora, config=file, **settings)
    if lora is not None:
        loras.weights_of(lora)
    if isinstance(model, VideoModel):
        if others := sorted(set(settings) - {"sampling"}):
            raise ConfigError(f"{others[0]}: the model is loaded already: give it to load_model")
        if (lora is not None or found.sampling.lora is not None) and has_lora(model):
            raise ConfigError("the loaded model has a LoRA already, which another one would take off: load it without")
        made, own = model, model.settings
        taken = found.sampling
    else:
        made = run.load_model(found)  # with the LoRA for sampling
        own, taken = made.settings, Sampling()
    try:
        run.use(made, found.sampling)
        with sampling_lora.attached(made, taken), loras.loaded(made, lora) if lora is not None else nullcontext():
            yield made, found.sampling
    finally:
        made.use(own)
