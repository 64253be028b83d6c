"""How a pair set is made and labelled: the settings of `vpo pair` and `vpo label`. No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vpo_kit.config import Model, Section
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
    """Settings of which candidates of a prompt become pairs (`vpo_kit.pairing.choose`)."""

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


class Local(Section):
    """Real clips of which a part is made anew (LocalDPO)."""

    level: float = Field(0.8, gt=0, le=1, description="noise level from which the part is made: the chain's nearest")
    least: float = Field(0.4, gt=0, le=1, description="least share of each side of the clip, and of its length")
    most: float = Field(0.8, gt=0, le=1, description="largest share")

    @model_validator(mode="after")
    def _ordered(self) -> Local:
        if self.least > self.most:
            raise ValueError("least must not be above most")
        return self


class Cutting(Section):
    """Settings of the segments into which a clip is cut: what all labellers have in common."""

    segment_seconds: float | None = Field(
        None, gt=0, description="default: 1, or a quarter of a clip shorter than four seconds"
    )


class Labelling(Cutting):
    """Settings of the way from scores of segments to first, second or tie."""

    tie_margin: float | None = Field(None, ge=0, description="closer scores are a tie; default: calibrated")
    tie_share: float = Field(0.25, ge=0, lt=1, description="share of the segments that a calibrated margin calls ties")
    motion_veto: float | None = Field(
        None,
        ge=0,
        le=1,
        description="a winner that moves less than this share of the loser's motion is a tie; "
        "default: 0.5 for independent pairs, 0 (off) for guided ones; not in the paper",
    )
    clip_label: Literal["vote", "score"] = Field("vote", description="the whole clip's label: vote is DenseDPO's")


class PairSettings(Model):
    """Everything that decides what is in a set, beside data, strategy, LoRA and seed."""

    guided: Guided = Guided()
    independent: Independent = Independent()
    local: Local = Local()
    labelling: dict[str, Any] = Field({}, description="the labeller's own, segment_seconds among them")
