"""How a vision-language model is asked: the settings of `vpo label --with vlm`. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from vpo_kit.net.ask import Patience
from vpo_kit.pairing.settings import Cutting

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


class Vlm(Patience):
    """How a vision-language model is asked, and how much of it (`vpo label --with vlm`)."""

    preset: Preset | None = Field(None, description="a form that a model was trained on; default: DenseDPO's, for any")
    question: Path | None = Field(None, description="the authors' script that holds the question of the preset")

    fps: float = Field(8.0, gt=0, description="frames a second that it is shown; DenseDPO's")
    max_pixels: int = Field(512 * 512, ge=32 * 32, description="larger frames are scaled down to so many pixels")
    jpeg_quality: int = Field(90, ge=1, le=95, description="of the frames that are sent")
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


class VlmLabelling(Cutting):
    """The settings of `vpo label --with vlm`."""

    base_url: str | None = Field(None, exclude=True, description="chat endpoint, http://HOST:PORT/v1")
    model: str | None = Field(None, exclude=True, description="its name on that server")
    vlm: Vlm = Vlm()
