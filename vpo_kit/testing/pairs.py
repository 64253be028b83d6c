"""Rows of pair sets."""

from __future__ import annotations

from typing import Any

from vpo_kit.pairing.records import Pair


def pair_row(name: str = "000000", **changes: Any) -> Pair:
    """A pair called `name` of one second in four segments, unlabelled and without files; `changes` are further fields.

    Files are named as `vpo pair` names them, and have no hash yet.
    """
    row = {
        "id": name,
        "prompt": "a red circle",
        "first_file_name": f"videos/{name}-first.mp4",
        "second_file_name": f"videos/{name}-second.mp4",
        "latents": f"latents/{name}.safetensors",
        "strategy": "guided",
        "seeds": (0, 1),
        "fps": 8,
        "frames": 8,
        "segments": [(0, 2), (2, 4), (4, 6), (6, 8)],
        "sha256": {"first": "", "second": "", "latents": ""},
    }
    return Pair.model_validate({**row, **changes})
