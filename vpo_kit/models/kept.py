"""Tensors in memory, up to a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

from torch import Tensor

Named = Mapping[str, Tensor]
MOST_BYTES = 2**32
"""How much is kept of what a run encodes, of prompts with their pictures and of clips each: 4 GB, which are some 1,000
prompts or 500 clips of Wan.
"""


class Kept:
    """Tensors under keys, made when they are first asked for; when there are more than `most_bytes` bytes of them,
    those leave that were not asked for the longest. The newest stays, however large it is.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._found: OrderedDict[Hashable, Named] = OrderedDict()
        self.num_bytes = 0
        """How much there is now."""
        self.has_lost = False
        """Whether something has left."""

    def __contains__(self, key: Hashable) -> bool:
        return key in self._found

    def get(self, key: Hashable, make: Callable[[], Named]) -> Named:
        """What is kept under `key`, or else what `make` gives."""
        if key not in self._found:
            made = make()
            self._found[key] = made
            self.num_bytes += _size(made)
            while self.num_bytes > self.most_bytes and len(self._found) > 1:
                _, left = self._found.popitem(last=False)
                self.num_bytes -= _size(left)
                self.has_lost = True
        self._found.move_to_end(key)
        return self._found[key]


def _size(tensors: Named) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())
