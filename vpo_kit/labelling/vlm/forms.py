"""How a model is asked about two clips and how its words become a verdict: our own form, and those that models learned.

A model that was trained on one question answers that one best. The questions are the authors' text, so they are read
from the authors' scripts (no line of which is run) and not repeated here; what is known here is where the pictures go
and what an answer looks like. Two clips of one segment, as in `protocol`: our protocol of both orders stays round it.

| form | file | an answer |
|---|---|---|
| `unifiedreward` | UnifiedReward 2.0, ``pair_score_video_generation.py`` (MIT) | shares of three aspects, summed |
| `unifiedreward-think` | ``qwen3_infer_cot_video_generation.py`` (MIT) | ``<answer>Video 1 is better</answer>`` |
| `unifiedreward-flex` | ``flex_pair_rank_video_generation.py`` (MIT) | JSON with ``winner`` |
| `vq-insight` | bytedance/Q-Insight, ``demo_vqinsight_comp.py`` (Apache-2.0) | ``<answer>A</answer>`` |
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vpo_kit.errors import ConfigError
from vpo_kit.labelling.vlm import protocol
from vpo_kit.labelling.vlm.pictures import Picture
from vpo_kit.labelling.vlm.protocol import OrderedAnswer, Verdict
from vpo_kit.labelling.vlm.settings import Preset, Vlm

Messages = list[dict[str, Any]]
MAX_EVIDENCE = 1000
"""Characters kept of a model's reasons."""
NUMBER = r"([01](?:\.\d+)?)"


@dataclass(frozen=True)
class Form:
    """`words` are all that is the same in every question: they are counted, and an answer belongs to them."""

    words: tuple[Any, ...]
    ask: Callable[[Sequence[Picture], Sequence[Picture], str], Messages]
    """A function from the pictures of the clip shown first, of the other, and the prompt of both, to one question's
    messages.
    """
    read: Callable[[str], OrderedAnswer]
    """A function from an answer to its verdict. It raises `ValueError` for an answer that holds none."""
    reads_prompt: bool = False

    def said(self, prompt: str) -> list[Any]:
        """All of a question but its pictures."""
        return [*self.words, *([prompt] if self.reads_prompt else [])]

    @property
    def characters(self) -> int:
        """The number of characters of text in one question, without the prompt."""
        return sum(len(word) for word in self.words if isinstance(word, str))


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The place where a form's question stands: the authors' file and the names that it gives to system text and
    question.
    """

    file: str
    place: str
    licence: str
    question: tuple[str, ...]
    """One name, or a template with ``{Question}`` and what goes there."""
    system: str | None
    clips: tuple[str, str] | None
    """What is written before each clip's pictures; None: pictures first, then all text."""
    read: Callable[[str], OrderedAnswer]


def of(settings: Vlm) -> Form:
    """The form that the settings ask for. Raises `ConfigError` without the file that its question stands in."""
    if settings.preset is None:
        words = (protocol.system(settings), protocol.QUESTION, protocol.SCHEMA)
        return Form(words, lambda first, second, _: protocol.messages(first, second, settings), protocol.read)
    source = SOURCES[settings.preset]
    if settings.question is None:
        raise ConfigError(
            f"vlm.preset {settings.preset}: download {source.file} of github {source.place} ({source.licence}) and "
            f"give its path with --set vlm.question=PATH"
        )
    system, question = _texts(settings.question, source, settings.preset)
    ask = partial(_messages, system, question, source.clips, settings)
    return Form((settings.preset, system, question), ask, source.read, "{prompt}" in question)


def _messages(
    system: str,
    question: str,
    clips: tuple[str, str] | None,
    settings: Vlm,
    first: Sequence[Picture],
    second: Sequence[Picture],
    prompt: str,
) -> Messages:
    shown = [[protocol.image(picture, settings) for picture in pictures] for pictures in (first, second)]
    parts: list[dict[str, Any]] = []
    for name, images in zip(clips or ("", ""), shown, strict=True):
        parts += [*([{"type": "text", "text": name}] if name else []), *images]
    parts.append({"type": "text", "text": question.replace("{prompt}", prompt)})
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": parts}]


def _texts(path: Path, source: _Source, preset: str) -> tuple[str, str]:
    """System text and question out of the authors' script, or a text file that is the question."""
    try:
        text = path.read_text(encoding="utf-8")
        found = _strings(ast.parse(text)) if path.suffix == ".py" else {source.question[0]: text}
        question = found[source.question[0]]
        for name in source.question[1:] if path.suffix == ".py" else ():
            question = question.replace("{Question}", found[name])
        return found.get(source.system or "", ""), question
    except (OSError, SyntaxError, UnicodeDecodeError, KeyError) as error:
        raise ConfigError(
            f"vlm.question: {path} does not hold the question of {preset}: {error} ({source.file} does)"
        ) from None


def _strings(tree: ast.AST) -> dict[str, str]:
    """Texts that a script gives names to, anywhere in it; a name inside an f-string stays as ``{name}``."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = _text(node.value)
            if text is not None:
                found[node.targets[0].id] = text
    return found


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [_text(part) for part in node.values]
        return None if None in parts else "".join(part or "" for part in parts)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        return f"{{{node.value.id}}}"
    return None


def read_answer(text: str) -> OrderedAnswer:
    """The last ``<answer>``: a letter or number of a video, alone or in a sentence, or words for a tie."""
    found = re.findall(r"<answer>(.{0,200}?)</answer>", text, re.DOTALL | re.IGNORECASE)
    if not found:
        raise ValueError("no <answer>")
    return OrderedAnswer(_evidence(text), _named(found[-1]))


def read_winner(text: str) -> OrderedAnswer:
    """A JSON object with ``winner`` and ``reason``, alone or between other words."""
    at = text.find("{")
    while at >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = None, at + 1
        if isinstance(value, dict) and "winner" in value:
            return OrderedAnswer(str(value.get("reason", ""))[:MAX_EVIDENCE], _named(str(value["winner"])))
        at = text.find("{", end)
    raise ValueError("no winner")


def read_shares(text: str) -> OrderedAnswer:
    """Three aspects, each with a share for either video; the larger sum wins, equal sums are a tie."""
    pattern = rf"(Alignment|Coherence|Style) Score:\s{{1,20}}Video 1:\s*{NUMBER}\s{{1,20}}Video 2:\s*{NUMBER}"
    found = {name: (float(first), float(second)) for name, first, second in re.findall(pattern, text)}
    if len(found) != 3:
        raise ValueError(f"{len(found)} of 3 aspects")
    difference = sum(first - second for first, second in found.values())
    verdict: Verdict = "tie" if abs(difference) < 1e-6 else "first" if difference > 0 else "second"
    return OrderedAnswer(_evidence(text), verdict)


def _named(words: str) -> Verdict:
    """The video that a few words name: exactly one of both, or none where they say that both are alike."""
    said = words.strip().strip("\"'.()[]*").lower()
    if re.search(r"\b(equal|equally|tie|similar|same)\b", said):
        return "tie"
    names = {"1": "first", "a": "first", "2": "second", "b": "second"}
    found = {names[match] for match in re.findall(r"\bvideo ([12ab])\b", said)} or {names.get(said, "")}
    if len(found) == 1 and (verdict := found.pop()):
        return "first" if verdict == "first" else "second"
    raise ValueError(f"an answer that names no video: {words.strip()[:60]!r}")


def _evidence(text: str) -> str:
    return " ".join(re.sub(r"</?(think|answer)>", " ", text).split())[:MAX_EVIDENCE]


_UNIFIED = "CodeGoat24/UnifiedReward"
SOURCES: dict[Preset, _Source] = {
    "unifiedreward": _Source(
        file="pair_score_video_generation.py",
        place=_UNIFIED,
        licence="MIT",
        question=("problem",),
        system=None,
        clips=None,
        read=read_shares,
    ),
    "unifiedreward-think": _Source(
        file="qwen3_infer_cot_video_generation.py",
        place=_UNIFIED,
        licence="MIT",
        question=("problem",),
        system=None,
        clips=None,
        read=read_answer,
    ),
    "unifiedreward-flex": _Source(
        file="flex_pair_rank_video_generation.py",
        place=_UNIFIED,
        licence="MIT",
        question=("problem",),
        system=None,
        clips=None,
        read=read_winner,
    ),
    "vq-insight": _Source(
        file="demo_vqinsight_comp.py",
        place="bytedance/Q-Insight",
        licence="Apache-2.0",
        question=("QUESTION_TEMPLATE", "PROBLEM"),
        system="SYSTEM_PROMPT",
        clips=("Video A:", "Video B:"),
        read=read_answer,
    ),
}
