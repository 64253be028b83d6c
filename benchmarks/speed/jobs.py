"""Real runs of the production loop on the embedded model, for the rows of the table to time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.timing import memory
from vpo_kit import config, files, models
from vpo_kit.config import Lora
from vpo_kit.folders import prompts_of
from vpo_kit.methods.base import Batch, Method
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.settings import Settings
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.pairing.segments import cut
from vpo_kit.processes import Processes
from vpo_kit.registry import METHODS
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import Mixture
from vpo_kit.sprites import world
from vpo_kit.testing.steps import context_of
from vpo_kit.training.data import Prompts, Source
from vpo_kit.training.loop import OnStep, RunParts, backward
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.paired import Pairs
from vpo_kit.training.run import Assembly
from vpo_kit.training.run_folder import RunFolder
from vpo_kit.training.stream import Stream


@dataclass(frozen=True)
class Bench:
    """The embedded model with a LoRA, and what every run on it shares."""

    model: VideoModel
    policy: LoraPolicy
    encode: PromptCache

    @staticmethod
    def make() -> Bench:
        model = models.load("sprites")
        return Bench(model, LoraPolicy(model, Lora(rank=16), seed=0), PromptCache(model))

    def method(
        self, name: str, size: int, settings: dict[str, Any], reward: Mixture | None = None,
        processes: Processes | None = None, items: int = 1, **sampling: Any,
    ) -> Method:  # fmt: skip
        """The method `name` with its own defaults and `settings` for batches of `items`, at most `size` videos sampled
        at once.
        """
        kind = METHODS.load(name)
        context = context_of(
            self.policy, reward, batch_size=items, sampling=self.model.settings.changed(**sampling),
            sampling_batch_size=size, processes=processes or Processes(),
        )  # fmt: skip
        found: Method = kind(kind.Config(**settings), context)
        return found

    def job(self, method: Method, source: Source, size: int, steps: int, folder: Path, on_step: OnStep) -> RunParts:
        """A run of `steps` steps of `size` items, without evaluation and without validation; one checkpoint, at the
        end.
        """
        name = next(n for n in METHODS.targets() if METHODS.load(n) is type(method))
        values = {"steps": steps, "batch_size": size, "checkpoints": {"every": steps}, "validation": {"share": 0.0}}
        context = method.context
        parts = Assembly(
            run=config.build({"method": name, **values}),
            policy=self.policy,
            settings=context.sampling,
            encode=self.encode,
            processes=context.processes,
        )
        return parts.job(method, source, RunFolder(folder), on_step=on_step)

    def batch(self, source: Source, size: int, settings: Settings | None = None) -> Batch:
        """The first batch of `size` items, in videos of the model's own settings or these."""
        own, items = settings or self.model.settings, range(len(source.prompts))
        return Stream(source, items, size, 0, self.encode, Processes(), own).batch(0, 0)

    def peak(self, method: Method, batch: Batch) -> float:
        """The most memory of two steps above that of the loaded model, in MB."""
        base = memory(reset=True)
        for _ in range(2):
            backward(method.step(batch))
            self.forget()
        return round(memory() - base, 1)

    def forget(self) -> None:
        """Drop the LoRA's gradients."""
        for parameter in self.policy.parameters:
            parameter.grad = None


def judge(name: str = "vqa") -> Mixture:
    return rewards.load(rewards.plan(name, {}), torch.device("cpu"))


def prompts(count: int) -> Prompts:
    path = prompts_of("sprites", "train")
    assert path is not None
    return Prompts(path.read_text().splitlines()[:count])


def clips(count: int) -> tuple[list[str], Tensor]:
    """Captions, and videos ``[count, F, 3, H, W]``, of the embedded model's world."""
    found = list(world.training_clips(count, seed=1))
    return [clip.caption for clip in found], torch.stack([torch.from_numpy(clip.video) for clip in found])


def pair_set(folder: Path, model: VideoModel, count: int) -> Pairs:
    """A set of `count` labelled pairs as `vpo pair` makes it, but for the videos, which training never reads."""
    captions, videos = clips(2 * count)
    latents = torch.cat([model.encode(part) for part in videos.split(8)])
    frames, fps = world.NUM_FRAMES, world.FPS
    segments = cut(frames, fps, 0.5)
    pairs = []
    for i in range(count):
        name = f"latents/{i}.safetensors"
        store.write_latents(folder / name, {"first": latents[2 * i], "second": latents[2 * i + 1]})
        labels = [(1, -1, 1, 0)[(i + k) % 4] for k in range(len(segments))]
        hashes = {"first": "", "second": "", "latents": files.sha256(folder / name)}
        pairs.append(Pair.model_validate({
            "id": str(i), "prompt": captions[2 * i], "first_file_name": "a", "second_file_name": "b", "latents": name,
            "strategy": "guided", "seeds": (0, 1), "fps": fps, "frames": frames, "segments": segments,
            "labels": labels, "label": (1, -1)[i % 2], "sha256": hashes,
        }))  # fmt: skip
    store.write(folder, {"model": "sprites"}, pairs)
    return Pairs(folder, pairs, model.frame_map(frames))


def show(found: Any) -> None:
    """For a row that runs in a process of its own: the last line of its output."""
    print(json.dumps(found), flush=True)
