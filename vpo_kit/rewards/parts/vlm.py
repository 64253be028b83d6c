"""What the judges built on vision-language models share: the stock network, its processor, the question it is asked.

transformers is imported inside the functions: `vpo rewards` lists a judge without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpo_kit.errors import ConfigError, DataError, ModelError, first_line
from vpo_kit.rewards.parts.weights import State, check_fit


def read_template(path: Path, name: str) -> str:
    """The question that a judge was trained on, with ``{text_prompt}`` where the video's prompt goes.

    `path` is a text file, or a Python file or model card in which `name` is given in triple quotes. The text is the
    authors', so it is read from their files and not repeated here. Raises `ModelError`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"cannot read the question that the judge was trained on: {first_line(error)}: give a file that holds "
            f"{name} with --set reward.question=PATH"
        ) from None
    quoted = re.search(rf'\b{name}\s*=\s*"""(.*?)"""', text, re.DOTALL)
    text = quoted[1] if quoted else text
    if "{text_prompt}" not in text:
        raise ModelError(f"{path} does not hold the question of the judge: {name} with {{text_prompt}} in it")
    return text


def load_processor(folder: Path) -> Any:
    """The stock processor of a model folder, padding on the right. Raises `ModelError`."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, padding_side="right", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot load the processor in {folder}: {first_line(error)}") from None


def load_config(folder: Path, kind: str) -> Any:
    """The configuration of a model folder, whose ``model_type`` must be `kind`. Raises `ModelError`."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot read the configuration in {folder}: {first_line(error)}") from None
    if config.model_type != kind:
        raise ModelError(f"{folder} holds a {config.model_type} model, not {kind}")
    return config


def stock_model(kind: Any, config: Any, state: State, dtype: torch.dtype, path: Path) -> Any:
    """A frozen transformers model `kind` with the weights of `state`, every name as it must be. Raises `ModelError`."""
    from transformers.utils import logging

    with torch.device("meta"):
        check_fit(kind(config), state, path, kind.__name__)
    logging.disable_progress_bar()
    return kind.from_pretrained(None, config=config, state_dict=state, dtype=dtype).requires_grad_(False).eval()


def prompts_of(prompts: Sequence[str] | None, count: int, reward: str, marks: Sequence[str]) -> list[str]:
    """The prompts, one for each video, and none of them with a control token of the judge."""
    if prompts is None or len(prompts) != count:
        raise ConfigError(f"reward {reward!r} judges a video by its prompt: give one prompt for each video")
    for prompt in prompts:
        if any(mark in prompt for mark in marks):
            raise DataError(f"reward {reward!r}: the prompt {prompt!r} holds one of its control tokens: {list(marks)}")
    return list(prompts)


def last_tokens(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The hidden state ``[B, C]`` of each row's last token that is not padding."""
    last = (attention_mask * torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def judged(
    video: Tensor,
    prompts: list[str],
    spans: Sequence[tuple[int, int]],
    pick: Callable[[int], Tensor],
    ask: Callable[[Tensor, list[str]], Tensor],
    batch_size: int,
) -> Tensor:
    """The answers ``[B, S, K]`` of `ask` on each span of `video` ``[B, F, 3, H, W]``, equal spans asked once.

    `pick` gives the frames of a span of so many; `ask` takes ``[b, T, 3, H, W]`` and b prompts, and gives ``[b, K]``.
    """
    found: dict[tuple[int, int], Tensor] = {}
    rows = [slice(i, i + batch_size) for i in range(0, len(video), batch_size)]
    for low, high in spans:
        if (low, high) not in found:
            frames = low + pick(high - low)
            found[low, high] = torch.cat([ask(video[row][:, frames], prompts[row]) for row in rows])
    return torch.stack([found[span] for span in spans], 1)
