"""Damage of all kinds to files and texts, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

TOKENS = [
    b"", b"\0", b"\xff\xfe", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"9" * 5000, b"null", b"true",
    b"../../etc/passwd", b"/etc/passwd", b"<script>", b"{", b"}", b"[" * 3000, b"{\"a\":" * 3000, b"\"", b"\n" * 5000,
    b"\r\n", b"\t", b": ", b"- ", b"&a [*a]", b"!!python/object/apply:os.system [x]",
    b"\xf0\x9f\x98\x80", b"\xed\xa0\x80",
    b"\\ud800", b"'", b"%s", b"{{1}}", b"\x1b[31m", b"<think>", b"</think>", b"verdict", b" " * 5000, b"+", b":",
    b"=", b".",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, -(2**63), 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "x", "../x",
    "/etc/passwd", "a\0b", "\ud800", "x" * 10_000, [], [[]], {}, {"": {}}, [1, "a", None], [0] * 2000, "<script>",
]  # fmt: skip


def damage(data: bytes, rng: random.Random) -> bytes:
    """One to three changes of bytes: flips, cuts, repeats, moves, and words that parsers stumble over."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_CHANGES)(data, rng)
    return data


def damage_json(text: bytes, rng: random.Random) -> bytes:
    """A JSON document, or one line of JSON lines, with one to three values, names or items changed."""
    lines = text.split(b"\n")
    number = rng.randrange(len(lines))
    try:
        value = json.loads(lines[number] if len(lines) > 2 else text)
    except ValueError:
        return damage(text, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = changed(value, rng)
    made = json.dumps(value).encode()  # also NaN and Infinity, as Python's own writer would
    if len(lines) <= 2:
        return made
    lines[number] = made
    return b"\n".join(lines)


def changed(value: Any, rng: random.Random) -> Any:
    """`value` with one place of it changed, somewhere along a random path."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        way = rng.random()
        if way < 0.1:
            return rest
        if way < 0.2:
            return {**rest, f"{key}x": value[key]}
        return {**value, key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        i = rng.randrange(len(value))
        way = rng.random()
        if way < 0.1:
            return value[:i] + value[i + 1 :]
        if way < 0.2:
            return value + value[i : i + 1]
        return [*value[:i], changed(value[i], rng), *value[i + 1 :]]
    if isinstance(value, str) and rng.random() < 0.3:
        return damage(value.encode(errors="replace"), rng).decode(errors="replace")
    return rng.choice(VALUES)


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 64, 1024)))


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"\1"
    # half of them near the start, where formats keep their sizes and names
    i = rng.randrange(min(len(data), 64) if rng.random() < 0.5 else len(data))
    return data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1 :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 2, 100, 1000)) + data[end:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(TOKENS) * rng.choice((1, 1, 3)) + data[at:]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def _word(data: bytes, rng: random.Random) -> bytes:
    """One of the words replaced by another thing."""
    words = data.split(b" ")
    words[rng.randrange(len(words))] = rng.choice(TOKENS)
    return b" ".join(words)


_CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    _flip, _flip, _cut, _truncate, _repeat, _insert, _insert, _overwrite, _swap_lines, _word, _word,
]  # fmt: skip
