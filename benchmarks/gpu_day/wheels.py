"""The wheels that a card's machine is brought, where it has torch of its own and no network: ``wheels.txt``.

``python -m benchmarks.gpu_day --wheels`` makes the list anew, of what is installed here: everything that the package
and its tests need but torch and what comes with it. A day begins by asking for each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vpo_kit import files

LIST = Path(__file__).parent / "wheels.txt"
ROOTS = ("vpo-kit", "pytest")
OF_THE_CARD = ("torch", "torchvision")
"""They are of the card's own kind, and are used as they are there: without them nothing can be brought that works."""
HEAD = "# pip download --no-deps --only-binary=:all: -r wheels.txt -d wheels\n"


def closure(roots: Iterable[str]) -> set[str]:
    """The packages that these need, themselves among them, without extras."""
    found, ahead = set[str](), [canonicalize_name(name) for name in roots]
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        found.add(name)
        needed = [Requirement(text) for text in requires(name) or ()]
        ahead += [canonicalize_name(one.name) for one in needed if one.marker is None or one.marker.evaluate()]
    return found


def write() -> None:
    """The list anew, with the versions that are installed here."""
    names = closure(ROOTS) - closure(["torch"]) - {*OF_THE_CARD, "vpo-kit"}
    files.write(LIST, HEAD + "".join(f"{name}=={version(name)}\n" for name in sorted(names)))


def listed() -> dict[str, str]:
    """Version by name."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==", 1) for line in lines if not line.startswith("#"))


def missing() -> list[str]:
    """What is needed and is not here in any version: a card's machine may have another one of its own."""
    wanted = {**dict.fromkeys(OF_THE_CARD, ""), **{name: f"=={pinned}" for name, pinned in listed().items()}}
    return [f"{name}{pinned}" for name, pinned in wanted.items() if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
