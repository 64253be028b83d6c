"""The ready recipes that ship, by family, method and memory. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vpo_kit.errors import ConfigError
from vpo_kit.registry import nearest

FOLDER = Path(__file__).parent


@dataclass(frozen=True, order=True)
class Ready:
    """A recipe for one card of `gigabytes` (10^9 bytes)."""

    family: str
    method: str
    gigabytes: int

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / self.family / f"{self.method}-{self.gigabytes}GB.yaml"

    def __str__(self) -> str:
        return f"{self.family} --method {self.method} --memory {self.gigabytes}GB"


def ready() -> list[Ready]:
    """All of them, in order."""
    found = []
    for path in FOLDER.glob("*/*.yaml"):
        method, _, memory = path.stem.rpartition("-")
        found.append(Ready(path.parent.name, method, int(memory.removesuffix("GB"))))
    return sorted(found)


def find(family: str, method: str, gigabytes: float) -> Ready:
    """The recipe of a family and method for the largest card that is no larger than `gigabytes`.

    Raises `ConfigError` where there is none, with those that there are.
    """
    families = sorted({one.family for one in ready()})
    if family not in families:
        raise ConfigError(f"no ready recipe for {family!r}{nearest(family, families)}: there are {', '.join(families)}")
    own = [one for one in ready() if one.family == family]
    fitting = [one for one in own if one.method == method and one.gigabytes <= gigabytes]
    if not fitting:
        listed = ", ".join(f"{one.method} in {one.gigabytes}GB" for one in own)
        raise ConfigError(f"no ready recipe for {method} with {family} in {gigabytes:g}GB: there are {listed}")
    return max(fitting, key=lambda one: one.gigabytes)
