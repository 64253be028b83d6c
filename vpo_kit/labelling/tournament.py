"""Scores from comparisons: the candidates of a prompt play a tournament, and a score is the share of games won.

`all` lets each two candidates meet: ``n (n - 1) / 2`` games. `knockout` looks for the best and the worst alone, in the
fewest games in which both can be found, ``ceil(3 n / 2) - 2`` (Pohl 1972): a first round splits the candidates, its
winners then play for the best and its losers for the worst. Either way, where the judge is transitive and knows no tie,
the best has score 1, the worst 0, and nobody else has either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["auto", "all", "knockout"]
Game = tuple[int, int]
"""Rows of two candidates of one prompt, the one that is shown first first."""
Ask = Callable[[Sequence[Game]], Sequence[int | None]]
"""+1 where the first one of each game is better, -1 the second, 0 a tie; None is no answer."""
EVERYONE = 4
"""Up to so many candidates `auto` lets each two of them meet."""


def of(kind: Kind, size: int) -> Literal["all", "knockout"]:
    """The kind of tournament of `size` candidates."""
    if kind == "auto":
        return "all" if size <= EVERYONE else "knockout"
    return kind


def games(kind: Kind, size: int) -> int:
    """How many games one prompt's `size` candidates play (at least 2 candidates)."""
    return size * (size - 1) // 2 if of(kind, size) == "all" else (3 * size + 1) // 2 - 2


@dataclass(kw_only=True)
class Standings:
    """Points and games of each row, a tie is half a point; a game without an answer is none, and counted as failed."""

    size: int
    points: list[float] = field(init=False)
    played: list[int] = field(init=False)
    asked: int = 0
    ties: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        self.points, self.played = [0.0] * self.size, [0] * self.size

    def enter(self, game: Game, verdict: int | None) -> None:
        self.asked += 1
        if verdict is None:
            self.failed += 1
            return
        self.ties += verdict == 0
        for row, share in zip(game, ((1 + verdict) / 2, (1 - verdict) / 2), strict=True):
            self.points[row] += share
            self.played[row] += 1

    @property
    def scores(self) -> list[float]:
        """The share of its games that each row has won; one half where it has none, which is what a tie says."""
        return [p / n if n else 0.5 for p, n in zip(self.points, self.played, strict=True)]


def play(groups: int, size: int, kind: Kind, ask: Ask) -> Standings:
    """Let rows ``i * size ... (i + 1) * size - 1`` of each of the `groups` play; each round is asked for all groups."""
    table = Standings(size=groups * size)
    firsts = [group * size for group in range(groups)]
    if of(kind, size) == "all":
        _round([(first + i, first + j) for first in firsts for j in range(size) for i in range(j)], ask, table)
        return table
    winners, losers = _split([list(range(first, first + size)) for first in firsts], ask, table)
    while len(winners[0]) > 1 or len(losers[0]) > 1:
        sides = [*winners, *losers]
        better, worse = _split(sides, ask, table)
        winners, losers = better[:groups], worse[groups:]
    return table


def _split(sides: Sequence[list[int]], ask: Ask, table: Standings) -> tuple[list[list[int]], list[list[int]]]:
    """Neighbours of each side meet: who is better and who is worse; an odd one out stays in both.

    After a tie, and without an answer, the earlier row counts as better: candidates are drawn alike, so that is a lot.
    """
    pairs = [(side[i], side[i + 1]) for side in sides for i in range(0, len(side) - 1, 2)]
    verdicts = iter(_round(pairs, ask, table))
    better, worse = [], []
    for side in sides:
        found = [
            (side[i], side[i + 1]) if (next(verdicts) or 0) >= 0 else (side[i + 1], side[i])
            for i in range(0, len(side) - 1, 2)
        ]
        odd = side[-1:] if len(side) % 2 else []
        better.append([a for a, _ in found] + odd)
        worse.append([b for _, b in found] + odd)
    return better, worse


def _round(pairs: Sequence[Game], ask: Ask, table: Standings) -> list[int | None]:
    """The verdicts on `pairs` as they stand. Every second one is shown the other way round, so that a judge who leans
    to a place favours nobody.
    """
    turned = [(b - a) % 2 == 0 for a, b in pairs]
    found = []
    for pair, turn, verdict in zip(
        pairs, turned, ask([pair[::-1] if turn else pair for pair, turn in zip(pairs, turned, strict=True)]),
        strict=True,
    ):  # fmt: skip
        straight = -verdict if turn and verdict is not None else verdict
        table.enter(pair, straight)
        found.append(straight)
    return found
