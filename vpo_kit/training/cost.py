"""What a run costs, in videos that go through the network: the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


class Passes:
    """A counter of the rows of every forward pass of `networks` while it is open; a recomputed pass counts again."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self._networks = list(networks)
        self._rows = 0

    def __enter__(self) -> Passes:
        self._hooks = [n.register_forward_pre_hook(self._count, with_kwargs=True) for n in self._networks]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        self._rows += len(first)

    def take(self) -> int:
        """The rows since the last call."""
        rows, self._rows = self._rows, 0
        return rows
