"""Prompt files: one prompt a line, UTF-8; empty lines and lines that start with # do not count. No torch here."""

from __future__ import annotations

from pathlib import Path

from vpo_kit.errors import DataError


def read_prompts(path: Path) -> list[str]:
    """All prompts of a file, in order, without repeats. Raises `DataError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read the prompts {path}: {error.strerror or error}") from error
    lines = (" ".join(line.split()) for line in text.splitlines())
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise DataError(f"{path} holds no prompts: write one a line")
    if any("\0" in prompt for prompt in prompts):
        raise DataError(f"{path} holds a zero byte: it is not a text file")
    return prompts
