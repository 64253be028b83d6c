"""How a pair set is made and labelled: the settings of `vpo pair` and `vpo label`. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vpo_kit.config import Sampling, Section


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


class Independent(Section):
    """Pairs from candidates that share nothing but their prompt."""

    num_candidates: int = Field(2, ge=2, description="videos for each prompt (n)")
    pairs: Literal["best", "all"] = Field("best", description="best against worst, or all pairs above the margin")
    min_margin: float = Field(0.0, ge=0, description="pairs whose clip scores are closer are left out")


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
