"""What an item is known by where things are made in parts and resumed: what is in it, not its place. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable


def key(*parts: object) -> str:
    """32 hexadecimal digits from plain values (text, numbers, None, lists of these), the same in every process."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def distinct(keys: Iterable[str]) -> list[str]:
    """The keys in their order, equal ones told apart by how many came before: two copies of a clip are two items."""
    seen: Counter[str] = Counter()
    found = []
    for one in keys:
        found.append(key(one, seen[one]) if seen[one] else one)
        seen[one] += 1
    return found
