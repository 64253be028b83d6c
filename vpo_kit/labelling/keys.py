"""The keys of a pair's scores: they are known by all that they depend on, and not by its place in a set."""

from __future__ import annotations

import hashlib
import json

from vpo_kit.pairing.records import Pair


def score_key(pair: Pair) -> str:
    """Hexadecimal SHA-256 of both videos, their rates, the segments and the prompt."""
    members = [
        [digest, member.fps, member.segments]
        for digest, member in zip((pair.sha256.first, pair.sha256.second), pair.videos, strict=True)
    ]
    return hashlib.sha256(json.dumps([pair.prompt, members]).encode()).hexdigest()
