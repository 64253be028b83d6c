"""Which two rows are shown for which item, so that all are shown as often as each other.

The rows play a round-robin (circle method): within a round each of them plays once. Lap by lap every item is shown
with the next match, so after any number of pairs no match is more than one ahead of another, neither in all nor of one
item, and after the last lap each item was shown with every match.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from vpo_kit.judged.sets import JudgedClip, JudgedPair, JudgedSet
from vpo_kit.sampler import derive_seed
from vpo_kit.study.subjects import StudyRows

Match = tuple[int, int]


def matches(count: int) -> list[Match]:
    """All pairs of `count` players, round by round; with an odd count one rests in each round."""
    players: list[int | None] = [*range(count), *([None] if count % 2 else [])]
    found: list[Match] = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        for one, other in zip(players[:half], reversed(players[half:]), strict=True):
            if one is not None and other is not None:
                found.append((one, other))
        players = [players[0], players[-1], *players[1:-1]]
    return found


def drawn(items: int, rows: int, seed: int) -> Iterator[tuple[int, Match]]:
    """An item and its match, one after the other, until every item was shown with every match."""
    order = sorted(range(items), key=lambda item: derive_seed(seed, "study", item))
    every = matches(rows)
    cycle = len(every) // math.gcd(items, len(every))
    for lap in range(len(every)):
        # go on where the last lap ended; a cycle of laps shows all as often, and the next one begins one match further
        start = lap * items + lap // cycle
        for place, item in enumerate(order):
            one, other = every[(place + start) % len(every)]
            # either is the first member as often: what is stored must not favour a row
            yield item, (one, other) if (place // len(every) + lap) % 2 else (other, one)


def design(name: str, rows: StudyRows, pairs: int | None, seed: int) -> JudgedSet:
    """The first `pairs` pairs of the design (default: all of them) as a set that nobody has judged yet."""
    clips: dict[tuple[int, int], int] = {}
    known: list[JudgedClip] = []
    found: list[JudgedPair] = []
    for number, (item, match) in enumerate(drawn(len(rows.prompts), len(rows.names), seed)):
        if pairs is not None and number >= pairs:
            break
        for row in match:
            if (row, item) not in clips:
                clips[row, item] = len(known)
                name_of = rows.names[row]
                known.append(JudgedClip(path=rows.videos[name_of][item], prompt=rows.prompts[item], model=name_of))
        first, second = (clips[row, item] for row in match)
        found.append(JudgedPair(first=first, second=second, verdicts={}, row=number + 1))
    return JudgedSet(name=name, clips=known, pairs=found)
