"""The test files nearest to a module, by what they import and what they are called: no map of coverage is needed.

A file that mirrors the module's place comes first (``tests/methods/test_kto.py`` of ``vpo_kit/methods/kto.py``, and
``tests/rewards/test_rewards.py`` of what lies in ``rewards``), then those from which the fewest imports lead to it.
What the registries name counts as imported, and a test that says the module's name in quotes is nearer by a quarter,
up to four times.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PACKAGES = ("vpo_kit", "tests", "benchmarks")
TARGET = re.compile(r"(vpo_kit(?:\.\w+)+):\w+")
"""How a registry names a class."""
FAR = 4
"""Imports beyond which a test does not count as one of the module."""


@dataclass(frozen=True)
class Neighbours:
    """What every module imports, by its file, and the names in quotes of each test file."""

    imports: Mapping[str, set[str]]
    quoted: Mapping[str, Counter[str]]

    def of(self, file: str) -> list[tuple[float, str]]:
        """Distances and names of the test files near to a module, the nearest first."""
        found = []
        for test, words in self.quoted.items():
            steps = self._steps(test, file)
            if mirrored := _mirrored(test, file):
                found.append((0.0 if mirrored == "file" else 0.25, test))
            elif steps is not None and steps <= FAR:
                found.append((max(0.5, steps - 0.25 * min(4, words[Path(file).stem])), test))
        return sorted(found)

    def _steps(self, start: str, goal: str) -> int | None:
        seen, queue = {start}, deque([(start, 0)])
        while queue:
            file, steps = queue.popleft()
            if file == goal:
                return steps
            for other in self.imports.get(file, set()) - seen if steps < FAR else ():
                seen.add(other)
                queue.append((other, steps + 1))
        return None


def neighbours(root: Path) -> Neighbours:
    """The tests of the tree at `root`."""
    files = {p.relative_to(root).as_posix(): p.read_text() for name in PACKAGES for p in (root / name).rglob("*.py")}
    imports = {file: {one for name in _imported(text) for one in _files(name, files)} for file, text in files.items()}
    tests = [file for file in files if file.startswith("tests/") and Path(file).name.startswith("test_")]
    return Neighbours(imports, {file: Counter(re.findall(r'"(\w+)"', files[file])) for file in sorted(tests)})


def _imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from TARGET.findall(node.value)


def _files(name: str, files: Mapping[str, str]) -> list[str]:
    path = name.replace(".", "/")
    return [file for file in (f"{path}.py", f"{path}/__init__.py") if file in files]


def _mirrored(test: str, file: str) -> Literal["file", "folder"] | None:
    """Whether a test is of the module, or of its whole folder."""
    place, own = Path(file).relative_to(Path(file).parts[0]), Path(test).relative_to("tests")
    if own.parent != place.parent:
        return None
    if own.name == f"test_{place.name}":
        return "file"
    return "folder" if own.name == f"test_{place.parent.name}.py" else None
