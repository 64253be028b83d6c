"""How a labeller answers when the same two clips are shown in both orders: consistency and first-position bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vpo_kit.labelling.vlm.protocol import Verdict, fold

BIAS_Z = 3.0
CHANCE_Z = 2.0


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts over segments that were asked about in both orders, two verdicts each."""

    segments: int
    agreeing: int
    """Segments to which both orders give one label, a tie twice included."""
    first: int
    """Verdicts for the clip that was shown first."""
    second: int
    ties: int
    z: float
    """The z-score of the difference of `first` and `second`: about normal for a labeller to whom position means
    nothing.
    """

    @property
    def consistency(self) -> float:
        """Share of segments whose two verdicts agree."""
        return self.agreeing / self.segments

    @property
    def chance(self) -> float:
        """The consistency of guesses in the same shares: a third where all three verdicts are as frequent."""
        total = 2 * self.segments
        return 2 * self.first * self.second / total**2 + (self.ties / total) ** 2

    @property
    def guessing(self) -> bool:
        """Whether the orders agree no more often than guesses would (within two standard errors)."""
        spread = math.sqrt(self.segments * self.chance * (1 - self.chance))
        return self.agreeing - self.segments * self.chance <= CHANCE_Z * spread

    @property
    def first_share(self) -> float | None:
        """Share of the clip shown first among the verdicts that name one; 0.5 is no bias, None is no such verdict."""
        named = self.first + self.second
        return self.first / named if named else None

    @property
    def biased(self) -> bool:
        """Whether position counts beyond what chance explains (three standard errors)."""
        return abs(self.z) > BIAS_Z

    def facts(self) -> dict[str, Any]:
        """The counts as they stand in ``dataset.yaml``."""
        share = self.first_share
        return {
            "consistency": round(self.consistency, 4),
            "chance_consistency": round(self.chance, 4),
            "first_position_share": None if share is None else round(share, 4),
            "verdicts": {"first": self.first, "second": self.second, "tie": self.ties},
        }


def tally(verdicts: Sequence[tuple[Verdict, Verdict]]) -> Tally:
    """Count pairs of verdicts on one segment: in the order of the set, and swapped."""
    every = [verdict for both in verdicts for verdict in both]
    # a labeller that looks at the clips alone names the first place once and the second once: its segments count 0
    lean = [both.count("first") - both.count("second") for both in verdicts]
    spread = math.sqrt(sum(value * value for value in lean))
    return Tally(
        segments=len(verdicts),
        agreeing=sum(fold(*both) != 0 or both == ("tie", "tie") for both in verdicts),
        first=every.count("first"),
        second=every.count("second"),
        ties=every.count("tie"),
        z=sum(lean) / spread if spread else 0.0,
    )
