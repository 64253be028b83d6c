"""New sets from old ones: several merged, or one split by prompt. The old sets stay as they are.

A new set is built in a hidden folder beside its place and renamed when it is whole. Its files are hard links where the
disk allows them, else copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from vpo_kit import files, plain
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.pairing import check, store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.store import PairSet
from vpo_kit.sampler import derive_seed

SIDES = ("train", "heldout")


def merge(sets: Sequence[PairSet], output: Path, tick: Callable[[], None] = lambda: None) -> PairSet:
    """One set of the pairs of all `sets`; the ids of the k-th set begin with ``k-``, counted from 0.

    ``dataset.yaml`` keeps what all sets have in common, and under ``origins`` what each of them said. Raises
    `ConfigError` for sets of different models, `DataError` when a set is not sound, when latents differ in shape, and
    when two sets hold one pair.
    """
    if len({found.path.resolve() for found in sets}) < max(2, len(sets)):
        raise ConfigError("merge takes two sets or more, each of them once")
    first = sets[0]
    for other in sets[1:]:
        if other.model != first.model:
            raise ConfigError(
                f"{first.path} was made by {first.model}, {other.path} by {other.model}: latents of two models "
                "do not belong in one set"
            )
    _free(output, sets)
    shapes = [_sound(found, tick) for found in sets]
    for found, shape in zip(sets, shapes, strict=True):
        if shape != shapes[0]:
            raise DataError(
                f"latents of {first.path} are {check.shape_text(shapes[0])}, those of {found.path} "
                f"{check.shape_text(shape)}: a set has one shape"
            )
    for name, twin in check.repeated((f"{pair.id} of {found.path}", pair) for found in sets for pair in found.pairs):
        raise DataError(f"{name} and {twin} are one pair, of one prompt and the same videos: leave one of the sets out")
    common = {
        key: value
        for key, value in first.facts.items()
        if key != "skipped" and all(key in found.facts and found.facts[key] == value for found in sets)
    }
    # copies, or YAML would write references in place of what a set has in common with the first
    origins = [
        {"prefix": f"{k}-", "path": str(found.path), "facts": deepcopy(found.facts)} for k, found in enumerate(sets)
    ]
    with files.beside(output) as partial:
        pairs = []
        for k, found in enumerate(sets):
            for pair in found.pairs:
                pairs.append(store.renamed(pair, f"{k}-{pair.id}"))
                _put(found.path, pair, partial, pairs[-1])
        store.write(partial, {**common, "pairs": len(pairs), "origins": origins}, pairs)
    return store.read(output)


def split(
    found: PairSet,
    share: float,
    seed: int,
    output: Path,
    tick: Callable[[], None] = lambda: None,
    on_notice: Callable[[str], None] = lambda _: None,
) -> tuple[PairSet, PairSet]:
    """Two sets, ``output/train`` and ``output/heldout``, as `held_out` divides them; `on_notice` gets a line where one
    prompt has to be on both sides.

    Raises `ConfigError` for a share that is not between 0 and 1, `DataError` when the set is not sound or has one pair.
    """
    if not 0 < share < 1:
        raise ConfigError(f"--share {share:g}: give a share of the pairs above 0 and below 1")
    prompts = [pair.prompt for pair in found.pairs]
    if len(prompts) < 2:
        raise DataError(f"{found.path} has a single pair, which cannot be on both sides")
    _free(output, [found])
    _sound(found, tick)
    held = held_out(prompts, share, seed)
    if held.inside is not None:
        on_notice(held.said())
    sides = [[p for i, p in enumerate(found.pairs) if (i in held.items) == wanted] for wanted in (False, True)]
    with files.beside(output) as partial:
        for side, pairs in zip(SIDES, sides, strict=True):
            for pair in pairs:
                _put(found.path, pair, partial / side, pair)
            about = {"side": side, "of": str(found.path), "share": share, "seed": seed}
            store.write(partial / side, {**found.facts, "pairs": len(pairs), "split": about}, pairs)
    train, heldout = (store.read(output / side) for side in SIDES)
    return train, heldout


@dataclass(frozen=True)
class HeldOut:
    """The numbers of the items that are held out, and the prompt whose items are on both sides, where one has to be."""

    items: frozenset[int]
    inside: str | None

    def said(self) -> str:
        """A line on that prompt, or nothing."""
        if self.inside is None:
            return ""
        return (
            f"whole prompts do not fill the share: items of {self.inside!r} are on both sides, held out is not unseen"
        )


def held_out(prompts: Sequence[str], share: float, seed: int) -> HeldOut:
    """`share` of the items, rounded up: whole prompts in an order drawn by the seed, as far as they fit; where none
    fits, the smallest, if it is no more than twice what is wanted.

    What then is less than half of what is wanted is filled up from inside the largest prompt. Something is left to
    train on, and the choice depends on prompts, share and seed alone.
    """
    wanted = min(math.ceil(share * len(prompts)), len(prompts) - 1)
    groups: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(plain.one_line(prompt), []).append(i)
    order = sorted(groups, key=lambda prompt: derive_seed(seed, "split", prompt))
    held: list[int] = []
    for prompt in order:
        if len(held) + len(groups[prompt]) <= wanted:
            held += groups[prompt]
    smallest = min((groups[prompt] for prompt in order), key=len)
    if not held and len(groups) > 1 and len(smallest) <= 2 * wanted:
        held = smallest
    if 2 * len(held) >= wanted:
        return HeldOut(frozenset(held), None)
    largest = max(order, key=lambda prompt: len(groups[prompt]))
    inside = sorted(enumerate(groups[largest]), key=lambda numbered: derive_seed(seed, "split", numbered[0]))
    return HeldOut(frozenset([*held, *(i for _, i in inside[: wanted - len(held)])]), largest)


def _sound(found: PairSet, tick: Callable[[], None]) -> check.Shape | None:
    """The set's latent shape. Raises `DataError` when any pair is wrong: a new set must not inherit that."""
    checked = check.pairs(found, tick=tick)
    if checked.wrong or not found.pairs:
        reason = checked.wrong[0] if checked.wrong else "it holds no pairs"
        raise DataError(f"{found.path} is not sound: {reason} (vpo pair check {found.path} names all that is wrong)")
    return checked.shape


def _free(output: Path, sets: Sequence[PairSet]) -> None:
    """Raises when `output` is taken, or would lie among the files of a set."""
    if any(output.resolve().is_relative_to(found.path.resolve()) for found in sets):
        raise ConfigError(f"{output} lies inside a set that it is made from: give another --output")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} exists: give another --output")


def _put(old: Path, pair: Pair, new: Path, renamed: Pair) -> None:
    for source, target in zip(pair.files, renamed.files, strict=True):
        files.link(old / source, new / target)
