"""What comes back from a chat endpoint: a completion, or something else, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from vpo_kit.net.ask import line


@dataclass(frozen=True)
class Reply:
    """What a model said, what it cost, and by which name the server calls the model."""

    text: str
    model: str
    input_tokens: int
    output_tokens: int


class Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class Alternative(BaseModel):
    message: Message
    finish_reason: str | None = None


class Usage(BaseModel):
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Completion(BaseModel):
    """The fields of a chat completion that are read here; `problem` says why a body is none."""

    choices: list[Alternative] = []
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
            raise ValueError(self.problem or f"no choices, but the error {self.error!r}")
        choice, usage = self.choices[0], self.cost or Usage(prompt_tokens=tokens_in)
        if choice.message.refusal:
            raise ValueError(f"the model refuses: {choice.message.refusal}")
        if choice.finish_reason == "length":
            raise ValueError("cut short: raise vlm.max_completion_tokens")
        name = line(self.model or model)
        return Reply(choice.message.content or "", name, usage.prompt_tokens, usage.completion_tokens)


def parse(body: bytes) -> Completion:
    """A body of status 200, whatever it holds."""
    try:
        return Completion.model_validate_json(body)
    except ValidationError:
        return Completion(problem=f"no chat completion: {body[:80].decode(errors='replace')!r}")
