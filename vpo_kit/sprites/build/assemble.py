"""What the models of all made worlds are built by: latents of their clips, a transformer trained on them, a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from vpo_kit import __version__, files
from vpo_kit.sprites import world
from vpo_kit.sprites.build import components, train

SHARD = 512
"""Clips whose latents are written at once: what is there is not encoded again."""


@dataclass(frozen=True)
class ShownClip:
    """A training clip ``[F, 3, H, W]`` in [0, 1], its caption, and whether it has a flaw."""

    video: world.Array
    caption: str
    flawed: bool


@dataclass(frozen=True, kw_only=True)
class MadeWorld:
    """A made world as far as a model of it is built: the name of its truth, its training clips by count, seed and
    number of the first, its captions by split, and how they are read.
    """

    truth: str
    clips: Callable[[int, int, int], Iterator[ShownClip]]
    captions: Mapping[str, Sequence[str]]
    tokenizer: PreTrainedTokenizerFast

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens and mask ``[B, L]`` of captions."""
        length = self.tokenizer.model_max_length
        found = self.tokenizer(list(texts), padding="max_length", max_length=length, return_tensors="pt")
        return found.input_ids, found.attention_mask


@torch.no_grad()
def encode_clips(vae: AutoencoderKLWan, made: MadeWorld, work: Path, count: int) -> tuple[Tensor, list[str]]:
    """Latents ``[N, C, T, h, w]`` of `count` training clips, as the autoencoder gives them, and their captions."""
    latents, captions = [], []
    for first in range(0, count, SHARD):
        path = work / "latents" / f"{first:06d}.safetensors"
        words = path.with_suffix(".json")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            clips = list(made.clips(min(SHARD, count - first), 7, first))
            found = [vae.encode(train.pixels(clip.video)[None]).latent_dist.mode() for clip in clips]
            files.write(words, json.dumps([clip.caption for clip in clips]))
            files.write_tensors(path, {"latents": torch.cat(found).half()})
        latents.append(load_file(path)["latents"])
        captions += json.loads(words.read_text())
    return torch.cat(latents), captions


def train_transformer(
    both: nn.ModuleDict,
    made: MadeWorld,
    clips: tuple[Tensor, list[str]],
    work: Path,
    *,
    steps: int,
    batch: int,
    lr: float,
    bf16: bool,
) -> nn.Module:
    """Train ``transformer`` and ``text`` of `both` together, on normalised latents and their captions."""
    latents, captions = clips
    loss = train.flow_loss(
        both["transformer"],
        both["text"],
        latents,
        *made.tokens(captions),
        made.tokens([""]),
        batch,
        3_000_000,
        bf16=bf16,
    )
    with train.plain_attention():
        train.fit(both, loss, steps=steps, lr=lr, folder=work, name="transformer", ema=0.998)
    return both.eval()


def export(vae: AutoencoderKLWan, both: Any, made: MadeWorld, folder: Path) -> None:
    """Write the pipeline, its sizes and its prompts. Half precision, but for the text encoder: transformers loads what
    is in the file, diffusers always float32, and the two must not depend on who loads them.
    """
    pipeline = WanPipeline(
        tokenizer=made.tokenizer,
        text_encoder=both["text"].half().float(),
        vae=vae.half(),
        scheduler=components.scheduler(),
        transformer=both["transformer"].half(),
    )
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):  # diffusers notes where on this machine a part was loaded from
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    settings: dict[str, Any] = {"frames": world.NUM_FRAMES, "height": world.SIZE, "width": world.SIZE, "fps": world.FPS}
    settings |= {"steps": 8, "guidance": 3.0, "truth": made.truth}
    (folder / "vpo.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "prompts").mkdir()
    for name, captions in made.captions.items():
        (folder / "prompts" / f"{name}.txt").write_text("".join(f"{caption}\n" for caption in captions))


def write_report(quality: Mapping[str, Any], settings: Mapping[str, Any], work: Path, folder: Path) -> None:
    """Put what was measured and how it was built, and the log, beside the pipeline's folder."""
    build = {key: value for key, value in settings.items() if isinstance(value, int | float)}
    facts = {**quality, "build": build, "versions": {"vpo-kit": __version__, "torch": torch.__version__}}
    files.write(folder.parent / "quality.json", json.dumps(facts, indent=2) + "\n")
    shutil.copy(work / "log.jsonl", folder.parent / "training_log.jsonl")


def _sprites() -> MadeWorld:
    every = [*world.scenes(held_out=False), *world.scenes(held_out=True)]
    splits = ("train", "validation", "heldout")
    return MadeWorld(
        truth="sprites",
        clips=lambda count, seed, first: (
            ShownClip(clip.video, clip.caption, bool(clip.flaws)) for clip in world.training_clips(count, seed, first)
        ),
        captions={name: [scene.caption for scene in every if scene.split == name] for name in splits},
        tokenizer=components.tokenizer(),
    )


SPRITES = _sprites()
