"""What a model reads of a prompt."""

from __future__ import annotations

from pathlib import Path

import torch

from vpo_kit import models
from vpo_kit.models.tokens import cut_short


def test_two_prompts_that_differ_behind_the_limit_are_one_and_that_is_said(tiny_wan: Path) -> None:
    model = models.load(str(tiny_wan))
    most = model.most_tokens
    assert most is not None
    words = "red circle " * most
    one, other = (model.encode_prompts([f"{words} {last}"]).tensors for last in ("moving", "square"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    line = cut_short(model, ["a red circle", f"{words} moving", f"{words} moving"])
    assert line is not None
    assert line.startswith(f"1 of 2 prompts are longer than the {most} tokens that the model reads")
    assert cut_short(model, ["a red circle"]) is None
