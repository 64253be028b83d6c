"""Prompts that are longer than a model reads: its tokenizer cuts them without a word."""

from __future__ import annotations

from collections.abc import Iterable

from vpo_kit.inputs import Inputs, inputs_of
from vpo_kit.models.base import VideoModel


def cut_short(model: VideoModel, items: Iterable[str | Inputs]) -> str | None:
    """A line where prompts are longer than `VideoModel.most_tokens`: how many of the different ones, and the first."""
    most, tokenizer = model.most_tokens, getattr(model.pipeline, "tokenizer", None)
    prompts = list(dict.fromkeys(inputs_of(item).prompt for item in items))
    if most is None or tokenizer is None or not prompts:
        return None
    counts = [len(ids) for ids in tokenizer(prompts, truncation=False, padding=False, verbose=False)["input_ids"]]
    long = [(prompt, count) for prompt, count in zip(prompts, counts, strict=True) if count > most]
    if not long:
        return None
    first, count = long[0]
    return (
        f"{len(long)} of {len(prompts)} prompts are longer than the {most} tokens that the model reads, and what is "
        f"behind them is not seen: {first[:60]!r} has {count}"
    )
