"""A pair set of random latents, and a run of an offline method on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.support.kept_videos import write_once
from vpo_kit.models.base import VideoModel
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import cut
from vpo_kit.pairing.usable import usable
from vpo_kit.registry import METHODS
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.runs import train_briefly
from vpo_kit.training.paired import Pairs

LABELS = [[1, 1, 0], [-1, 0, 0], [1, -1, -1], [0, 0, 1], [-1, -1, 1], [1, 1, 1], [0, -1, 0], [0, 1, 1]]


def make_set(path: Path, shape: tuple[int, ...] = (8, 3, 4, 4), count: int = 8, model: str = "tiny") -> Path:
    """`count` pairs of 9 frames in three segments, labelled unevenly; one prompt for each two pairs."""
    pairs = []
    for i in range(count):
        first, second, source = draw_noise(shape, [10 * i, 10 * i + 1, 10 * i + 2])
        files = (f"videos/{i}-first.mp4", f"videos/{i}-second.mp4", f"latents/{i}.safetensors")
        for k, name in enumerate(files[:2]):
            write_once(path / name, torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(2 * i + k)), 8)
        store.write_latents(path / files[2], {"first": first, "second": second, "source": source})
        labels = LABELS[i % len(LABELS)]
        score = [float(label) for label in labels]
        pairs.append(Pair.model_validate({
            "id": f"p{i}", "prompt": f"prompt {i // 2}", "first_file_name": files[0], "second_file_name": files[1],
            "latents": files[2], "strategy": "guided", "eta": 0.7, "seeds": (2 * i, 2 * i + 1), "source": f"{i}.mp4@0",
            "fps": 8, "frames": 9, "segments": cut(9, 8, 0.375), "labels": labels, "label": (sum(labels) > 0) * 2 - 1,
            "scores": {"first": score, "second": [0.0] * 3, "first_clip": sum(score), "second_clip": 0.0},
            "motion": {"first": [0.1] * 3, "second": [0.1] * 3}, "labeller": "test",
            "sha256": store.hashes(path, files),
        }))  # fmt: skip
    store.write(path, {"model": model}, pairs)
    return path


def run(
    model: VideoModel,
    pair_set: Path,
    folder: Path,
    steps: int,
    method: str = "dense",
    settings: dict[str, Any] | None = None,
    experts: Any = None,
    **values: Any,
) -> list[dict[str, float]]:
    """Train from wherever `folder` stands; the model is left as it was found."""
    kind = METHODS.load(method)
    own = {**({} if method == "sft" else {"beta": 20.0}), **(settings or {})}
    chosen, shape = kind.Config(**own), model.latent_shape(9, 32, 32)
    pairs = usable(store.read(pair_set), shape, lambda pair: kind.keeps(chosen, pair), lambda _: None)
    defaults = {
        "batch_size": 4, "checkpoints": {"every": 2, "keep": 3}, "optimiser": {"lr": 1e-2},
        "validation": {"every": 2, "share": 0.25}, "lora": {"rank": 4, "alpha": 8, "experts": experts},
    }  # fmt: skip
    return train_briefly(
        model,
        Pairs(pair_set, pairs, model.frame_map(9)),
        folder,
        steps=steps,
        method={"name": method, **own},
        **{**defaults, **values},
    )
