"""What a vision-language model is asked about two clips, and how its answers become one label (DenseDPO's protocol).

Both members' frames of one segment go into one question. It is asked in both orders, and two verdicts that disagree
are a tie. Nothing here knows of servers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vpo_kit.labelling.vlm.pictures import Picture, frames_shown
from vpo_kit.labelling.vlm.settings import Vlm
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import Range

Verdict = Literal["first", "second", "tie"]
Label = Literal[-1, 0, 1]

ROLE = """\
You compare two short video clips and say which of them has fewer and milder visual flaws. Each clip is given as its \
frames in order, each with its time in seconds.

Go through this list for both clips:
{checklist}

Say what you see before you decide, with the times of the frames. Judge only what the frames show. Which clip is \
shown first means nothing, and a clip is not better for moving less. Be careful: if the clips are equally good or \
equally bad, if the difference would escape someone who watches at normal speed, or if you are not sure, the verdict \
is "tie".

Answer with one JSON object and nothing else:
{{"evidence": "what you see in each clip, in one to three sentences", "verdict": "first" or "second" or "tie"}}"""
QUESTION = "Which clip has fewer and milder visual flaws: first, second, or is it a tie?"
AGAIN = "Your last answer could not be read. Answer in the form that was asked for and with nothing else."

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {  # in this order: the verdict follows from the evidence, not the other way round
        "evidence": {"type": "string", "description": "what is seen in each clip, with times"},
        "verdict": {"type": "string", "enum": list(get_args(Verdict))},
    },
    "required": ["evidence", "verdict"],
    "additionalProperties": False,
}
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "comparison", "strict": True, "schema": SCHEMA},
}
# bounded: a model that repeats itself must not make the search take for ever
_LINE = re.compile(
    r"^[^\w\n]{0,80}(?:final\s{1,80})?verdict\W{1,80}(first|second|tie)[^\w\n]{0,80}$", re.IGNORECASE | re.MULTILINE
)
_MAX_BROKEN = 100
"""The number of openings of objects that are none after which a text is taken to have no more of them."""


@dataclass(frozen=True)
class OrderedAnswer:
    """One verdict about two clips in the order in which they were shown."""

    evidence: str
    verdict: Verdict


def system(settings: Vlm) -> str:
    """The words that come before every question."""
    return ROLE.format(checklist="\n".join(f"- {line}" for line in settings.checklist))


def messages(first: Sequence[Picture], second: Sequence[Picture], settings: Vlm) -> list[dict[str, Any]]:
    """A question in the form of Chat Completions: pictures as JPEG data URLs, each after its time."""
    parts: list[dict[str, Any]] = []
    for name, pictures in (("First", first), ("Second", second)):
        parts.append({"type": "text", "text": f"{name} clip, {len(pictures)} frames:"})
        for picture in pictures:
            parts += [{"type": "text", "text": f"{picture.seconds:.2f} s"}, image(picture, settings)]
    parts.append({"type": "text", "text": QUESTION})
    return [{"role": "system", "content": system(settings)}, {"role": "user", "content": parts}]


def image(picture: Picture, settings: Vlm) -> dict[str, Any]:
    """A picture as a part of a message."""
    url = {"url": f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"}
    return {"type": "image_url", "image_url": {**url, "detail": settings.detail} if settings.detail else url}


def read(text: str) -> OrderedAnswer:
    """The answer in a model's words: the JSON object, wherever it stands, or else a line ``verdict: first``.

    Raises `ValueError` when there is no verdict, or when there are several that differ.
    """
    words = _spoken(text)
    found = _objects(words) or [
        OrderedAnswer(" ".join(words.split()), _verdict(match.group(1))) for match in _LINE.finditer(words)
    ]
    if len({answer.verdict for answer in found}) != 1:
        raise ValueError("no verdict" if not found else "verdicts that contradict each other")
    return found[-1]


def fold(stored_order: Verdict, swapped_order: Verdict) -> Label:
    """The label of a segment: +1 or -1 where both orders name the same member, else 0."""
    signs: dict[Verdict, Label] = {"first": 1, "second": -1, "tie": 0}
    return signs[stored_order] if signs[stored_order] == -signs[swapped_order] else 0


def key(model: str, pair: Pair, segment: Range, swapped: bool, settings: Vlm, words: Sequence[Any]) -> str:
    """Hexadecimal SHA-256 of all that a model's answer depends on: model, words, parameters, frames.

    `words` are the question without its pictures.

    Frames count by their file's hash and their numbers. The limit on an answer's length does not count: an answer that
    was whole is so under another limit too.
    """
    parameters = {"temperature", "extra", "detail", "max_pixels", "jpeg_quality"}
    files = [pair.sha256.first, pair.sha256.second]
    content = {
        "model": model,
        "words": list(words),
        "parameters": settings.model_dump(mode="json", include=parameters),
        "files": files[::-1] if swapped else files,
        "frames": list(frames_shown(segment, pair.fps, settings.fps)),
        "fps": pair.fps,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _spoken(text: str) -> str:
    """The text without what stands between ``<think>`` and ``</think>``."""
    parts, at = [], 0
    while (start := text.find("<think>", at)) >= 0 and (end := text.find("</think>", start)) >= 0:
        parts.append(text[at:start])
        at = end + len("</think>")
    return "".join([*parts, text[at:]])


def _objects(text: str) -> list[OrderedAnswer]:
    decoder, found, at, broken = json.JSONDecoder(), [], text.find("{"), 0
    while at >= 0 and broken < _MAX_BROKEN:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end, broken = None, at + 1, broken + 1
        if isinstance(value, dict) and "verdict" in value:
            found.append(OrderedAnswer(str(value.get("evidence", "")), _verdict(value["verdict"])))
        at = text.find("{", end)
    return found


def _verdict(value: object) -> Verdict:
    word = value.strip().lower() if isinstance(value, str) else ""
    for verdict in get_args(Verdict):
        if word == verdict:
            return verdict  # type: ignore[no-any-return]
    raise ValueError(f"a verdict that is none of first, second, tie: {str(value)[:60]!r}")
