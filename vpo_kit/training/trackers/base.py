"""What a tracker is, and several of them as one.

The programs' own libraries are called, and not Accelerate's trackers: those have no videos and no tables, and write a
run's settings under the time of day, so that a resumed run would look like two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from vpo_kit.errors import ConfigError
from vpo_kit.registry import TRACKERS

FOLDER = "tracking"


class Tracker(ABC):
    """One program's record of a run, in a folder of its own; nothing is sent anywhere unless the user asks for it."""

    package: ClassVar[str]
    """What must be installed, which is also the extra's name."""

    @abstractmethod
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """Begin or go on with the run `name`; `settings` are those of ``config.yaml``."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers after an optimiser step; a resumed run gives some steps again, and the last ones hold."""

    @abstractmethod
    def table(self, step: int, name: str, rows: Sequence[Sequence[str]]) -> None:
        """A table; its first row has the names of the columns."""

    @abstractmethod
    def video(self, step: int, name: str, path: Path, caption: str) -> None:
        """A clip that lies on the disk, with its prompt."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held."""


class Trackers:
    """All trackers of a run; with none of them nothing happens."""

    def __init__(self, parts: Sequence[Tracker]) -> None:
        self._parts = parts

    def scalars(self, row: Mapping[str, float]) -> None:
        """A row of ``metrics.jsonl``."""
        values = {key: float(value) for key, value in row.items() if key != "step"}
        for part in self._parts:
            part.scalars(int(row["step"]), values)

    def table(self, step: int, name: str, rows: Sequence[Sequence[str]]) -> None:
        for part in self._parts:
            part.table(step, name, rows)

    def videos(self, step: int, name: str, clips: Mapping[Path, str]) -> None:
        """Clips with their prompts, numbered."""
        for number, (path, caption) in enumerate(clips.items()):
            for part in self._parts:
                part.video(step, f"{name}/{number}", path, caption)


@contextmanager
def opened(names: Sequence[str], folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Trackers]:
    """The trackers called `names`, closed at the end; their records lie in ``tracking/`` of the run `folder`."""
    with ExitStack() as held:
        parts = []
        for kind in names:
            part: Tracker = TRACKERS.load(kind)(folder / FOLDER / kind, name, settings)
            held.callback(part.close)
            parts.append(part)
        yield Trackers(parts)


def check(names: Sequence[str]) -> None:
    """Raises `ConfigError` for a tracker that is not known, or whose package is not there."""
    for name in names:
        kind = TRACKERS.load(name)
        if find_spec(kind.package) is None:
            raise ConfigError(f"tracking: {name} needs a package: pip install 'vpo-kit[{kind.package}]'")
