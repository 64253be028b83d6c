"""How a pair set is made and labelled: the settings of `vpo pair` and `vpo label`. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vpo_kit.config import Sampling, Section
from vpo_kit.registry import CHOICES


class Guided(Section):
    """Pairs from partly noised real clips (DenseDPO)."""

    eta_min: float = Field(0.65, gt=0, le=1, description="lowest noise level at which a pair may start")
    eta_max: float = Field(0.8, gt=0, le=1, description="highest one; the level is the schedule's own nearest")
    pairs_per_clip: int = Field(1, ge=1, description="not in the paper")
    max_windows: int | None = Field(None, ge=1, description="windows of a long clip; default: all that fit")

    @model_validator(mode="after")
    def _ordered(self) -> Guided:
        if self.eta_min > self.eta_max:
            raise ValueError("eta_min must not be above eta_max")
        return self


class Choosing(Section):
    """Which candidates of a prompt become pairs (`vpo_kit.pairing.choose`)."""

    num_candidates: int = Field(2, ge=2, description="videos for each prompt (n)")
    pairs: str = Field(
        "best", description=f"which candidates are paired: {', '.join(CHOICES.targets())}, or a function of one's own"
    )
    num_pairs: int = Field(
        1, ge=1, description="best: k best against k worst in turn; crossed: each of the k best against each worst"
    )
    min_margin: float = Field(0.0, ge=0, description="closer scores are no pair, and equal ones never are")

    @field_validator("pairs")
    @classmethod
    def _known(cls, value: str) -> str:
        CHOICES.check(value)
        return value

    @model_validator(mode="after")
    def _enough_candidates(self) -> Choosing:
        if self.pairs == "all" and self.num_pairs != 1:
            raise ValueError("pairs: all takes every two candidates: leave num_pairs out")
        if 2 * self.num_pairs > self.num_candidates:
            raise ValueError(f"{self.num_pairs} pairs of a prompt need at least {2 * self.num_pairs} candidates")
        return self


class Independent(Choosing):
    """Pairs from candidates that share nothing but their prompt."""


class Labelling(Section):
    """From scores of segments to first, second or tie."""

    segment_seconds: float | None = Field(
        None, gt=0, description="default: 1, or a quarter of a clip shorter than 4 seconds"
    )
    tie_margin: float | None = Field(None, ge=0, description="closer scores are a tie; default: calibrated")
    tie_share: float = Field(0.25, ge=0, lt=1, description="share of the segments that a calibrated margin calls ties")
    motion_veto: float | None = Field(
        None, ge=0, le=1, description="a winner that moves less than this share of the loser's motion is a tie; "
        "default: 0.5 for independent pairs, 0 (off) for guided ones; not in the paper",
    )  # fmt: skip
    clip_label: Literal["vote", "score"] = Field("vote", description="the whole clip's label: vote is DenseDPO's")


class PairSettings(Section):
    """Everything that decides what is in a set, beside model, data, strategy and seed."""

    guided: Guided = Guided()
    independent: Independent = Independent()
    labelling: Labelling = Labelling()
    sampling: Sampling = Sampling()


CHECKLIST = [
    "shapes that melt, stretch or turn into something else from frame to frame",
    "limbs, fingers or faces that are too many, missing, fused or twisted",
    "things that appear or vanish without a cause",
    "rigid things that bend, wobble or change their size",
    "things that pass through each other",
    "blur or smearing that the motion does not explain",
    "texture that boils, and brightness or colour that flickers or jumps",
    "motion that jerks, stops or goes backwards without a reason",
]  # DenseDPO's flaws and a few of ours


Preset = Literal["unifiedreward", "unifiedreward-think", "unifiedreward-flex", "vq-insight"]


class Vlm(Section):
    """How a vision-language model is asked, and how much of it (`vpo label --with vlm`)."""

    preset: Preset | None = Field(None, description="a form that a model was trained on; default: DenseDPO's, for any")
    question: Path | None = Field(None, description="the authors' script that holds the question of the preset")

    fps: float = Field(8.0, gt=0, description="frames a second that it is shown; DenseDPO's")
    max_pixels: int = Field(512 * 512, ge=32 * 32, description="larger frames are scaled down to so many pixels")
    jpeg_quality: int = Field(90, ge=1, le=95)
    detail: Literal["low", "high", "auto"] | None = Field(None, description="OpenAI's size of pictures; sent if given")
    checklist: list[str] = Field(CHECKLIST, min_length=1, description="flaws to look for")
    temperature: float | None = Field(None, ge=0, description="sent only if given: some models take none")
    max_completion_tokens: int | None = Field(
        2048, ge=1, description="for one answer, reasoning included; null is not sent"
    )
    extra: dict[str, Any] = Field({}, description="more fields of the request's body, as the server names them")
    answers: Literal["auto", "schema", "text"] = Field(
        "auto", description="by JSON schema, by the prompt's words alone, or schema where the server takes it"
    )
    concurrency: int = Field(8, ge=1, le=256, description="questions under way at once")
    timeout_s: float = Field(300.0, gt=0, description="for one request")
    retries: int = Field(6, ge=0, description="after 408, 409, 429, 500 and above, a time-out or a cut connection")
    backoff_s: float = Field(1.0, ge=0, description="wait before the first retry; doubles up to 60 s")
    tries: int = Field(3, ge=1, description="answers to a question before its pair counts as failed")
    max_failed: int = Field(20, ge=1, description="pairs in a row that fail before the labelling stops")
    budget_requests: int | None = Field(None, ge=1, description="of one command, retries included")
    budget_tokens: int | None = Field(None, ge=1, description="of one command, in and out, as the server counts them")
    tokens_per_frame: int | None = Field(None, ge=1, description="for the estimate; default: by the frame's size")

    @field_validator("extra")
    @classmethod
    def _of_its_own(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = {"model", "messages", "response_format", "stream", "n", "temperature", "max_completion_tokens"}
        if taken & set(value):
            raise ValueError(f"{', '.join(sorted(taken & set(value)))} cannot be set here")
        return value


class VlmLabelling(Section):
    """The settings of `vpo label --with vlm`."""

    segment_seconds: float | None = Field(
        None, gt=0, description="default: 1, or a quarter of a clip shorter than 4 seconds"
    )
    vlm: Vlm = Vlm()
