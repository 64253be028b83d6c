"""The order in which the items of a source come; it depends on the seed alone, not on the number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from vpo_kit.errors import DataError
from vpo_kit.inputs import Inputs
from vpo_kit.methods.base import Batch
from vpo_kit.models.encoding import Encode
from vpo_kit.models.settings import Settings, Size
from vpo_kit.pairing.arrange import held_out
from vpo_kit.processes import Processes
from vpo_kit.sampler import derive_seed
from vpo_kit.training.data import Source


@dataclass(frozen=True)
class Split:
    """The numbers of the items that are trained on and of those that are held out, and a line on how."""

    items: list[int]
    held: list[int]
    said: str


def split(source: Source, share: float, seed: int) -> Split:
    """`share` of the items held out, as `vpo_kit.pairing.arrange.held_out` divides them; none of a single item."""
    count = len(source.prompts)
    if share == 0 or count < 2:
        return Split(list(range(count)), [], f"{count} items to train on, none held out")
    found = held_out(source.prompts, share, seed)
    items, held = ([i for i in range(count) if (i in found.items) == side] for side in (False, True))
    said = f"{len(items)} items to train on, {len(held)} held out"
    return Split(items, held, f"{said}; {found.said()}" if found.inside is not None else said)


class Stream:
    """Batches of a source in shuffled passes: batch ``i`` depends on the seed and ``i`` alone. `settings` are those of
    the run's videos; where items have shapes of their own, a batch has one, and each shape its own passes.

    An item that could be read when the run began and cannot any more is named to `on_notice` and left out: the next one
    of its shape stands in its place, in a run that goes on the same one.
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        batch_size: int,
        seed: int,
        encode: Encode,
        part: Processes,
        settings: Settings,
        on_notice: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._source = source
        self._indices = indices
        self._size = batch_size
        self._seed = seed
        self._encode = encode
        self._part = part
        self._settings = settings
        self._on_notice = on_notice
        self._unread = set[int]()
        self._groups = list(_by_shape(source, indices).values())
        self._orders: dict[int, tuple[int, list[int]]] = {}
        self._turns = Turns([len(group) for group in self._groups])

    def batch(self, number: int, step: int) -> Batch:
        """This process's part of the global batch `number`."""
        group, own = self._turns[number]
        count = len(self._groups[group])
        positions = self._part.share(range(self._size))
        visits = [(own * self._size + position) // count for position in positions]
        made = self._make(self._items(number), step, positions, visits)
        self._source.ahead(self._items(number + 1))
        return made

    def wanted(self, batches: int) -> list[tuple[str | Inputs, Settings]]:
        """What this process's parts of the first `batches` batches are made from, each once, with its settings."""
        found: dict[int, None] = {}
        for number in range(batches):
            found |= dict.fromkeys(self._items(number))
            if len(found) == len(self._indices):
                break
        return [(self._source.inputs[i], self._sized(i)) for i in found]

    def item(self, index: int, step: int) -> Batch:
        """One item by itself, as the batch of a step."""
        return self._make([index], step, [0], [0])

    def names(self, indices: Sequence[int]) -> str:
        """What items are called, for a message."""
        shown = ", ".join(self._source.names[i] for i in indices[:8])
        return f"{shown} and {len(indices) - 8} more" if len(indices) > 8 else shown

    def in_order(self) -> Iterator[Batch]:
        """Every item once, in batches that are the same each time; this process's share of them.

        Every process gets the same number of batches: one whose share ends before the others' gets a filler.
        """
        size = max(1, self._size // self._part.count)
        for group in self._groups:
            share = self._part.share(range(len(group)))
            for start in range(0, -(-len(group) // self._part.count), size):
                positions = share[start : start + size] or [0]
                batch = self._make([group[p] for p in positions], 0, positions, [0] * len(positions))
                yield replace(batch, filler=start >= len(share))

    def _items(self, number: int) -> list[int]:
        """This process's items of the global batch `number`."""
        group, own = self._turns[number]
        return [self._at(group, own * self._size + position) for position in self._part.share(range(self._size))]

    def _at(self, group: int, position: int) -> int:
        items = self._groups[group]
        visit, place = divmod(position, len(items))
        if group not in self._orders or self._orders[group][0] != visit:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", visit))
            self._orders[group] = visit, torch.randperm(len(items), generator=generator).tolist()
        return items[self._orders[group][1][place]]

    def _sized(self, index: int) -> Settings:
        sizes = self._source.sizes
        return self._settings.sized(None if sizes is None else sizes[index])

    def _make(self, indices: Sequence[int], step: int, positions: Sequence[int], visits: Sequence[int]) -> Batch:
        try:
            return self._read(indices, step, positions, visits)
        except DataError:  # of one of them: each by itself
            return self._read([self._readable(i) for i in indices], step, positions, visits)

    def _read(self, indices: Sequence[int], step: int, positions: Sequence[int], visits: Sequence[int]) -> Batch:
        prompts, settings = [self._source.prompts[i] for i in indices], self._sized(indices[0])
        conditions = self._encode([self._source.inputs[i] for i in indices], settings)
        device = next(iter(conditions.tensors.values())).device
        tensors = {name: value.to(device) for name, value in self._source.tensors(indices).items()}
        return Batch(
            step=step,
            settings=settings,
            prompts=prompts,
            conditions=conditions,
            positions=positions,
            indices=indices,
            visits=visits,
            tensors=tensors,
        )

    def _readable(self, index: int) -> int:
        """`index`, or the next item that can be read: of its shape, or where none can, the same one for all of them.

        Raises `DataError` where most of the items cannot be read, so that it is not about them.
        """
        own = next(group for group in self._groups if index in group)
        place = own.index(index)
        others = [i for group in self._groups if group is not own for i in group]
        for one in [*own[place:], *own[:place], *others]:
            try:
                self._read([one], 0, [0], [0])
            except DataError as error:
                self._leave_out(one, error)
            else:
                return one
        raise DataError("none of the items can be read any more")

    def _leave_out(self, index: int, error: DataError) -> None:
        if index in self._unread:
            return
        self._unread.add(index)
        counted = f"{len(self._unread)} of {len(self._indices)} items cannot be read any more"
        if 2 * len(self._unread) > len(self._indices):
            raise DataError(f"{error}; {counted}: put them back and go on with --resume") from error
        self._on_notice(f"left out: {error}; {counted}, and others stand in their place")


class Turns:
    """Which of several groups each batch comes from, and the batch's number in it: by their sizes, spread evenly.

    The next batch is of the group that lags most behind its share, the first of equals.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._shares = [count / sum(counts) for count in counts]
        self._taken = [0] * len(counts)
        self._turns: list[tuple[int, int]] = []

    def __getitem__(self, number: int) -> tuple[int, int]:
        while len(self._turns) <= number:
            due = len(self._turns) + 1
            lags = [round(share * due - taken, 9) for share, taken in zip(self._shares, self._taken, strict=True)]
            group = lags.index(max(lags))
            self._turns.append((group, self._taken[group]))
            self._taken[group] += 1
        return self._turns[number]


def _by_shape(source: Source, indices: Sequence[int]) -> dict[Size | None, list[int]]:
    """The items of each shape, in their order; None is the run's own."""
    found: dict[Size | None, list[int]] = {}
    for i in indices:
        found.setdefault(None if source.sizes is None else source.sizes[i], []).append(i)
    return found
