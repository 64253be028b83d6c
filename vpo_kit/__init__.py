"""vpo-kit: align text-to-video and image-to-video diffusion models to preferences.

The functions here are what the commands of `vpo` do; each is imported, with torch, when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpo_kit.library.compare import compare
    from vpo_kit.library.evaluate import evaluate
    from vpo_kit.library.models import load_model
    from vpo_kit.library.pair import label, make_pairs
    from vpo_kit.library.sample import sample
    from vpo_kit.library.score import load_reward, score
    from vpo_kit.library.train import train

__version__ = "0.2.0"
__all__ = ["compare", "evaluate", "label", "load_model", "load_reward", "make_pairs", "sample", "score", "train"]
_HOMES = {
    "compare": "compare",
    "evaluate": "evaluate",
    "label": "pair",
    "load_model": "models",
    "load_reward": "score",
    "make_pairs": "pair",
    "sample": "sample",
    "score": "score",
    "train": "train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vpo_kit.library.{_HOMES[name]}"), name)
