"""What comes back from a chat endpoint: a completion, or something else, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from vpo_kit.net.ask import line, said

SPOKEN = ("text", "output_text")
"""Types of the parts of a message that are what the model says."""


@dataclass(frozen=True)
class Reply:
    """What a model said, what it cost, and by which name the server calls the model."""

    text: str
    model: str
    input_tokens: int
    output_tokens: int


class Part(BaseModel):
    """One piece of a message's content."""

    type: str = "text"
    text: str | None = None


class Message(BaseModel):
    content: str | list[str | Part] | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """The words alone, of a text or of a list of parts; what a model thought in parts of their own is left out."""
        if not isinstance(self.content, list):
            return self.content or ""
        parts = [Part(text=part) if isinstance(part, str) else part for part in self.content]
        return "".join(part.text or "" for part in parts if part.type in SPOKEN)


class Alternative(BaseModel):
    message: Message
    finish_reason: str | None = None


class Usage(BaseModel):
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)

    @field_validator("*", mode="before")
    @classmethod
    def _not_counted(cls, value: object) -> object:
        return 0 if value is None else value

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Completion(BaseModel):
    """The fields of a chat completion that are read here; `problem` says why a body is none."""

    choices: list[Alternative] | None = None
    model: str | None = None
    usage: Usage | None = None
    error: Any = None
    problem: str | None = None

    @property
    def cost(self) -> Usage | None:
        """What the server says that it used, if it says so."""
        return self.usage if self.usage and self.usage.total else None

    def reply(self, model: str, tokens_in: int) -> Reply:
        """The model's words; `model` and `tokens_in` stand in for what the server does not say.

        Raises `ValueError` for a body that is no completion, is refused or was cut short.
        """
        if self.problem or not self.choices:
            words = said(self.error)
            raise ValueError(self.problem or (f"no choices, but the error {words!r}" if words else "no choices"))
        choice, usage = self.choices[0], self.cost or Usage(prompt_tokens=tokens_in)
        if choice.message.refusal:
            raise ValueError(f"the model refuses: {choice.message.refusal}")
        if choice.finish_reason == "length":
            raise ValueError("cut short: raise vlm.max_completion_tokens")
        name = line(self.model or model)
        return Reply(choice.message.text, name, usage.prompt_tokens, usage.completion_tokens)


def parse(body: bytes) -> Completion:
    """A body of status 200, whatever it holds."""
    try:
        return Completion.model_validate_json(body)
    except ValidationError:
        return Completion(problem=f"no chat completion: {body[:80].decode(errors='replace')!r}")
