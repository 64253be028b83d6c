"""One case of a target: a folder of its own, damaged bytes, and what is called with them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.mutations import damage, damage_json


@dataclass(frozen=True)
class Stage:
    """One case: a folder that is cleared afterwards, and its random numbers."""

    folder: Path
    rng: random.Random
    sound: bool = False
    """Nothing is damaged: then nothing may be refused either."""

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def copy(self, source: Path) -> Path:
        shutil.copytree(source, self.folder / source.name)
        return self.folder / source.name

    def damage(self, data: bytes, *, json_too: bool = False) -> bytes:
        if self.sound:
            return data
        if json_too and self.rng.random() < 0.7:
            return damage_json(data, self.rng)
        return damage(data, self.rng)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


Read = Callable[[Stage], None]
Target = Callable[[Path], Read]
