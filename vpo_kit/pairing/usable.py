"""The pairs of a set that can be trained on, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vpo_kit.errors import DataError
from vpo_kit.pairing import store
from vpo_kit.pairing.hashed import Hashed
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.store import PairSet


def usable(
    found: PairSet, shape: Sequence[int], keeps: Callable[[Pair], bool], on_notice: Callable[[str], None]
) -> list[Pair]:
    """The pairs that can be trained on: readable, unchanged, of the model's latent `shape`, and kept by the method.
    Tensors are not read, and files that are as they were when they were last looked at are not hashed again.

    What is left out is named. Raises `DataError` when nothing remains.
    """
    wrong, hashed = list(found.broken), Hashed(found.path)
    pairs = []
    for pair in found.pairs:
        problem = None if pair.latents is None else _latents_problem(found, pair, pair.latents, shape, hashed)
        if problem:
            wrong.append(problem)
        else:
            pairs.append(pair)
    hashed.keep()
    for line in wrong[:5]:
        on_notice(f"left out: {line}")
    if len(wrong) > 5:
        on_notice(f"left out: {len(wrong) - 5} more pairs for such reasons")
    kept = [pair for pair in pairs if keeps(pair)]
    if not kept:
        reason = (
            wrong[0] if not pairs and wrong else "all of its pairs are ties or have no label: vpo label SET labels it"
        )
        raise DataError(f"{found.path} has nothing to learn from: {reason}")
    return kept


def _latents_problem(found: PairSet, pair: Pair, latents: str, shape: Sequence[int], hashed: Hashed) -> str | None:
    if problem := store.problem(found.path, pair, [latents], hashed):
        return problem
    try:
        shapes = store.latent_shapes(found.path / latents)
    except DataError as error:
        return f"{pair.id}: {error}"
    for name in ("first", "second"):
        if name not in shapes:
            return f"{pair.id}: {latents} holds no {name!r}"
        if shapes[name] != tuple(shape):
            made = store.sampling(found.path)
            size = (
                f": {found.path} was made at {made['frames']} frames of {made['width']} x {made['height']}, which "
                "the run takes where sampling sets none"
                if len(made) == len(store.SIZE)
                else ""
            )
            return f"{pair.id}: latents are {shapes[name]}, this model's are {tuple(shape)}{size}"
    return None
