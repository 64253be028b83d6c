"""Run real code without memory or arithmetic, and keep the accounts: which bytes live when, and what is computed.

The weights are fake tensors (shapes without data), and whatever touches them is fake too. What never does, such as a
scheduler's times, stays real and small, so that the code takes the branches it would take. Storages are followed from
birth to death; nothing is said about workspace inside a kernel, or about an allocator's gaps.
"""

from __future__ import annotations

import sys
import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vpo_kit.planning.fakes import answer, choose

aten = torch.ops.aten
R = TypeVar("R")

Part = Literal["weights", "reference", "lora", "activations", "autoencoder", "reward", "text"]
PARTS: tuple[Part, ...] = ("weights", "reference", "lora", "activations", "autoencoder", "reward", "text")
REAL = 2**18
"""Elements up to which a tensor that no weight has touched stays real."""


@dataclass(frozen=True)
class Op:
    """What one operator does: its kind, floating point operations, and bytes read and written."""

    kind: Literal["matrix", "convolution", "other"]
    flops: int
    bytes: int


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is open: `live` bytes of each part, their sum's `peak` with its parts, and all operators.

    A tensor belongs to the part in whose `scope` it was made; in a backward pass, to that of its forward operator.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = fake
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.ops: Counter[Op] = Counter()
        self._known: dict[int, tuple[weakref.ref[Any], str, int]] = {}
        self._scopes: list[Part] = []
        self._marks: list[tuple[int, Part]] = [(0, "activations")]
        self._times = 1
        self._time_marks: list[tuple[int, int]] = [(0, 1)]

    @contextmanager
    def scope(self, part: Part) -> Iterator[None]:
        """What is made inside belongs to `part`."""
        self._scopes.append(part)
        self._marks.append((_sequence(), part))
        try:
            yield
        finally:
            self._scopes.pop()
            self._marks.append((_sequence(), self._scopes[-1] if self._scopes else "activations"))

    @contextmanager
    def standing(self, times: int) -> Iterator[None]:
        """What runs inside, and in a backward pass through it, stands for `times` of it: each operator counts so often,
        and so does what the graph keeps of it. What is recomputed for a backward pass is there once at a time.
        """
        outer = self._times
        before = set(self._known) if torch.is_grad_enabled() and not _in_backward() else None
        self._times = times
        self._time_marks.append((_sequence(), times))
        try:
            yield
        finally:
            self._times = outer
            self._time_marks.append((_sequence(), outer))
            if before is not None:
                for key in [key for key in self._known if key not in before]:
                    reference, part, size = self._known[key]
                    self.live[part] += size * (times - 1)
                    self._known[key] = reference, part, size * times
                self._look()

    def adopt(self, tensors: Iterable[Tensor], part: Part | None, share: float = 1.0) -> None:
        """Count tensors made elsewhere, or give known ones to another part (None: to none): `share` of their bytes."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            known = self._known.get(storage._cdata)
            if known is None:
                self._born(storage, part or self.part, share)
            else:
                reference, owner, before = known
                size = round(storage.nbytes() * share)
                self.live[owner] -= before
                self.live[part or owner] += size
                self._known[storage._cdata] = (reference, part or owner, size)
        self._look()

    @contextmanager
    def phase(self) -> Iterator[Counter[str]]:
        """A part of a run with a peak and operators of its own: the peak's parts are in what is given, at the end."""
        found: Counter[str] = Counter()
        before, self.peak = self.peak, Counter(self.live)
        yield found
        found.update(self.peak)
        self.peak = max(before, self.peak, key=_sum)

    def counted(self, run: Callable[[], R]) -> tuple[R, Counter[Op]]:
        """`run` with the operators it needs, which are also added to `ops`."""
        before, self.ops = self.ops, Counter()
        try:
            result = run()
        finally:
            found, self.ops = self.ops, before
            self.ops.update(found)
        return result, found

    def replay(self, growth: Mapping[str, int], ops: Counter[Op]) -> None:
        """Account for something that has run before: its peak's growth over what was live, and its operators."""
        self.ops.update(ops)
        there = Counter(self.live)
        there.update(growth)
        self.peak = max(self.peak, there, key=_sum)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        out = self._run(func, args, kwargs, inputs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        fresh = False
        for tensor in outputs:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._born(storage, self.part)
                fresh = True
        self._look()
        if fresh or func._schema.is_mutable:
            self.ops[_cost(func, args, kwargs, out, inputs, outputs)] += self._count()
        return out

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]) -> Any:
        if not any(isinstance(tensor, FakeTensor) for tensor in inputs):
            return self._small(func, args, kwargs)
        try:
            return func(*args, **kwargs)
        except DataDependentOutputException:
            return answer(func, inputs)
        except DynamicOutputShapeException:
            return choose(func, args)

    def _small(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Real tensors give real ones, unless they would be large."""
        if not func._schema.is_mutable and _most((args, kwargs)) > REAL:
            try:
                with self.fake:
                    out = func(*args, **kwargs)
            except (DataDependentOutputException, DynamicOutputShapeException):
                return func(*args, **kwargs)
            if sum(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)) > REAL:
                return out
        return func(*args, **kwargs)

    @property
    def part(self) -> Part:
        """The part that what is made now belongs to."""
        if self._scopes:
            return self._scopes[-1]
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return "activations"
        place = bisect_right(self._marks, node._sequence_nr(), key=lambda mark: mark[0]) - 1
        return self._marks[max(place, 0)][1]

    def _count(self) -> int:
        """How many operators the present one stands for."""
        node: Any = torch._C._current_autograd_node()
        if self._times > 1 or node is None:
            return self._times
        place = bisect_right(self._time_marks, (node._sequence_nr(), sys.maxsize)) - 1
        return self._time_marks[max(place, 0)][1]

    def _born(self, storage: Any, part: str, share: float = 1.0) -> None:
        key, size = storage._cdata, round(storage.nbytes() * share)
        self._known[key] = (weakref.ref(storage, lambda _: self._died(key)), part, size)
        self.live[part] += size

    def _died(self, key: int) -> None:
        _, part, size = self._known.pop(key)
        self.live[part] -= size

    def _look(self) -> None:
        if _sum(self.live) > _sum(self.peak):
            self.peak = Counter(self.live)


def _most(values: Any) -> float:
    """A bound of the elements that an operator can make of `values`, without asking it: what they can be repeated,
    padded, crossed or spread to.
    """
    found = 1.0
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            found *= max(leaf.numel(), 1)
        elif isinstance(leaf, int | float) and leaf:
            found *= max(abs(leaf) + 1, 1 / abs(leaf))
    return found


def _sum(parts: Mapping[str, int]) -> int:
    return sum(parts.values())


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _sequence() -> int:
    """The number that the next forward operator's node in the graph will have."""
    number: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
    return number


_KINDS: dict[Any, Literal["matrix", "convolution"]] = {
    aten.convolution: "convolution",
    aten._convolution: "convolution",
    aten.convolution_backward: "convolution",
}


def _cost(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, inputs: list[Tensor], outputs: list[Tensor]
) -> Op:
    moved = sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in (*inputs, *outputs))
    formula = flop_registry.get(func._overloadpacket)
    if formula is None:
        return Op("other", 0, moved)
    return Op(_KINDS.get(func._overloadpacket, "matrix"), int(formula(*args, **kwargs, out_val=out)), moved)
