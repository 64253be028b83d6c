"""The sections of a run's settings, each of which checks itself. No torch here.

What only a whole run can know (whether a method has the data it needs, whether prompts are held out from what chooses)
is checked in `training.recipe`, once the classes that the run names are loaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, field_validator

from vpo_kit.registry import METRICS

Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


EXPERTS = ("high_noise", "low_noise")
"""What the networks of a model with two are called; the files of their LoRAs have it in their names."""
Expert = Literal["high_noise", "low_noise"]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] < value[1] <= 1:
        raise ValueError("give a lower and a higher noise level, from 0 to 1")
    return value


Levels = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""A range of noise levels."""


def _shape(value: str) -> str:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", value):
        raise ValueError("write a bucket as frames x width x height: 81x832x480")
    return value


Bucket = Annotated[str, AfterValidator(_shape)]
"""A shape of videos, in words."""


class Sampling(Section):
    """How videos are sampled; what is not given is the model's own default."""

    frames: int | None = Field(None, ge=1, description="of a video")
    height: int | None = Field(None, ge=8, description="in pixels")
    width: int | None = Field(None, ge=8, description="in pixels")
    steps: int | None = Field(None, ge=1, description="denoising steps")
    guidance: float | dict[Expert, float] | None = Field(
        None, description="classifier-free guidance scale, 1 is off; of a model with two experts also one for each"
    )
    guidance_interval: Levels | None = Field(
        None,
        description="noise levels (0 clean, 1 noise) of the steps that are guided, the others cost one pass; "
        "default: all",
    )
    negative_prompt: str | None = Field(None, description="what guidance leads away from")
    shift: float | None = Field(None, gt=0, description="of the chain towards noise (Wan: 3 at 480p, 5 at 720p)")
    fps: float | None = Field(None, gt=0, description="frames a second of what is made and of the clips that are read")
    embedded_guidance: float | None = Field(
        None, ge=0, description="the scale that a training pass sees where the network takes it as an input; default: 1"
    )
    lora: Path | None = Field(
        None,
        description="a LoRA (run, folder or file) for sampling alone, as one for few steps: no pass of a loss has it, "
        "and no export",
    )
    lora_strength: float = Field(1.0, ge=0, description="of that LoRA")
    batch_size: int = Field(24, ge=1, description="videos sampled at once")

    @field_validator("guidance")
    @classmethod
    def _scales(cls, value: float | dict[Expert, float] | None) -> float | dict[Expert, float] | None:
        if isinstance(value, dict) and set(value) != set(EXPERTS):
            raise ValueError(f"guidance by expert needs both, {' and '.join(EXPERTS)}")
        if not all(scale >= 1 for scale in (value.values() if isinstance(value, dict) else [value or 1.0])):
            raise ValueError("input should be greater than or equal to 1")
        return value


class Lora(Section):
    rank: int = Field(64, ge=1, description="of the factors")
    alpha: float | None = Field(None, gt=0, description="the LoRA is applied at alpha / rank; default: the rank")
    targets: list[str] | None = Field(None, description="linear layers by name; default: the model family's")
    experts: Literal["both", "high_noise", "low_noise"] | None = Field(
        None, description="of a model with two (Wan 2.2 A14B): which are trained; default: both"
    )
    init: Path | None = Field(
        None, description="run, LoRA folder or file to start from, which is then the reference; sets rank and alpha"
    )

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Optimiser(Section):
    """AdamW with a linear warm-up, then a constant rate or one that falls to zero at the run's end."""

    name: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit keeps its two averages in eight bits; needs the extra quantised"
    )
    lr: PositiveFloat | dict[Expert, PositiveFloat] = Field(
        1e-5, description="highest rate; of a model with two experts also one for each"
    )
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="AdamW's")
    eps: float = Field(1e-8, gt=0, description="AdamW's")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's")
    warmup_steps: int = Field(5, ge=0, description="over which the rate rises from zero")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="how the rate falls to zero over the last decay_share of the run"
    )
    decay_share: float = Field(0.6, gt=0, le=1, description="share of the run over which the rate falls")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are shortened to this")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of an average of the LoRA's factors, kept in place of the last ones; 0 is off",
    )


class Evaluation(Section):
    """The measurement before and after training: held-out prompts, the same seeds."""

    prompts: Path | None = Field(None, description="text file; default: the model's own held-out prompts")
    num_prompts: int = Field(48, ge=0, description="at most so many of them; 0 turns evaluation off")
    videos_per_prompt: int = Field(1, ge=1, description="each with a noise of its own")
    seed: int | None = Field(None, ge=0, description="of the videos' noise; default: the run's seed")
    judges: list[str] = Field(["vqa", "gold"], description="rewards that look on, beside the one that is trained on")
    best_of: int = Field(
        8, ge=0, description="of comparisons: the base's best of so many samples, and of 2, 4, ..., as rows; 0 is off"
    )
    temporal: bool = Field(False, description="also flicker, warp error, smoothness and the rest of vpo eval's forms")
    metrics: list[str] = Field(
        [], description="what else is measured beside judges and motion: names of vpo metrics, or package.module:Class"
    )

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            METRICS.check(name)
        return value

    @property
    def measured(self) -> list[str]:
        """Names of all measures beside the judges; motion always is one."""
        return list(dict.fromkeys([*(["temporal"] if self.temporal else []), *self.metrics]))


class Selection(Section):
    """How much of the trained LoRA is kept: the best of a few strengths on prompts neither trained on nor reported."""

    strengths: list[Annotated[float, Field(gt=0, le=4)]] = Field(
        [], description="strengths that are measured after training, 1 is the LoRA as trained; empty is off"
    )
    reward: str | None = Field(None, description="what decides; default: the run's own reward")
    prompts: Path | None = Field(None, description="text file; default: the model's own validation prompts")
    num_prompts: int = Field(48, ge=1, description="at most so many of them, one video each for every strength")
    max_motion_change: float = Field(0.05, gt=0, description="share by which motion may change")


class Samples(Section):
    """Videos to look at while a run goes on."""

    every: int = Field(0, ge=0, description="optimiser steps between samples of the policy as it then stands; 0 is off")
    num_prompts: int = Field(4, ge=1, description="the first so many of the evaluation's prompts")


class Checkpoints(Section):
    every: int = Field(10, ge=1, description="optimiser steps")
    keep: int = Field(2, ge=1, description="so many of the newest stay")


class Data(Section):
    """The choice of a set's labels or ratings that are learnt from."""

    labeller: str | None = Field(None, description="whose labels (people, vqa, ...); default: all that are there")

    dimension: str | None = Field(
        None, description="what people judged or rated (VQ, MQ, Overall, ...); default: the set's label"
    )
    vote_weights: bool = Field(False, description="a pair counts by how far its votes are from a draw")
    first_frame: bool = Field(
        False, description="clips and pairs are made from their own first frame, as models from an image need it"
    )
    buckets: list[Bucket] = Field(
        [],
        description="frames x width x height (81x832x480): shapes for clips, or prompts with images, of several; each "
        "is cropped for the nearest, and a batch has one; default: the shape of sampling for all",
    )


class Health(Section):
    """The conditions under which a run has gone wrong and is stopped."""

    disable: list[str] = Field([], description="names of checks to turn off")
    window: int = Field(10, ge=1, description="optimiser steps that a check looks back over")


class Validation(Section):
    """The method's own loss on items that training never sees: whole prompts, the same times and noises each time."""

    share: float = Field(0.1, ge=0, lt=1, description="of the data, whole prompts; 0 turns validation off")
    every: int = Field(10, ge=1, description="optimiser steps")
    max_items: int = Field(64, ge=1, description="at most so many held-out items are looked at")


class EarlyStopping(Section):
    """Stop when a validation metric gets no better, and keep the best LoRA instead of the last."""

    patience: int = Field(0, ge=0, description="validations in a row without a better value; 0 is off")
    metric: str = Field("heldout_loss", description="a field of metrics.jsonl")
    greater_is_better: bool = Field(False, description="of the metric")


class Model(Section):
    """The model that is sampled, how it is held in memory, and what its videos are like: the same in all commands."""

    model: str = Field("sprites", description="sprites, duets, a diffusers pipeline folder or a hub id")
    revision: str | None = Field(None, description="of a model on the hub: branch, tag or commit")
    variant: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]+$",
        description="fp16 or another name of weight files that lie beside the usual ones",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the model's weights; the LoRA's are float32"
    )
    attention: Literal["auto", "sdpa", "xformers", "flash", "sage"] = Field(
        "auto", description="xformers is an extra, flash and sage are packages; for CUDA only; sage samples, no more"
    )
    vae: list[Literal["slicing", "tiling"]] = Field(
        [], description="the autoencoder takes one video at a time, or pieces of the picture: less memory, slower"
    )
    vae_tile_size: int | None = Field(
        None, ge=64, multiple_of=32, description="pixels of a side of such a piece; without it the family's own"
    )
    offload: bool = Field(
        False, description="text encoder, autoencoder and rewards are on the GPU only while they are used"
    )
    group_offload: bool = Field(
        False, description="the network's blocks are on the GPU only while they run; training needs checkpointing too"
    )
    quantise: Literal["none", "int8", "fp8", "nf4"] = Field(
        "none", description="the frozen network's weights; int8 and nf4 need the extra quantised"
    )
    sampling: Sampling = Sampling()

    @property
    def pieces(self) -> dict[str, Any]:
        """What the autoencoder takes a video in, as `models.memory.tune` is given it."""
        return {"vae": self.vae, "vae_tile_size": self.vae_tile_size}
