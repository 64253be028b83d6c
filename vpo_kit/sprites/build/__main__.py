"""Build the embedded model: ``python -m vpo_kit.sprites.build --work build/sprites``.

Stages: autoencoder on crops, autoencoder on whole clips, latents, transformer with text encoder, export, measurement.
Each goes on from its last checkpoint when the command is given again. About two hours on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vpo_kit import __version__
from vpo_kit.folders import EMBEDDED
from vpo_kit.models.loading import load
from vpo_kit.sprites import world
from vpo_kit.sprites.build import components, measure, train

VPO_SETTINGS = {
    "frames": world.NUM_FRAMES,
    "height": world.SIZE,
    "width": world.SIZE,
    "fps": world.FPS,
    "steps": 8,
    "guidance": 3.0,
    "truth": "sprites",
}


def build_autoencoder(work: Path, crop_steps: int, steps: int) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = components.autoencoder()
    cropped = train.autoencoder_loss(vae, 8, 1_000_000, cropped=True)
    train.fit(vae, cropped, steps=crop_steps, lr=0.02, folder=work, name="autoencoder-crops")
    whole = train.autoencoder_loss(vae, 4, 2_000_000, cropped=False)
    train.fit(vae, whole, steps=steps, lr=0.01, folder=work, name="autoencoder")
    return vae.eval()


@torch.no_grad()
def encode_clips(vae: AutoencoderKLWan, work: Path, count: int) -> tuple[Tensor, list[str]]:
    """Latents ``[N, C, T, h, w]`` of `count` training clips, as the autoencoder gives them, and their captions."""
    path, captions_path = work / "latents.safetensors", work / "captions.json"
    if not path.exists():
        latents, captions = [], []
        for video, caption in train.clips(count, seed=7):
            latents.append(vae.encode(video[None]).latent_dist.mode())
            captions.append(caption)
        save_file({"latents": torch.cat(latents).half()}, path)
        captions_path.write_text(json.dumps(captions))
    return load_file(path)["latents"], json.loads(captions_path.read_text())


def build_transformer(
    latents: Tensor, captions: list[str], work: Path, steps: int, batch: int, bf16: bool
) -> nn.Module:
    """Transformer and text encoder, trained together on normalised latents; `nn.ModuleDict` with both."""
    torch.manual_seed(1)
    tokenizer = components.tokenizer()
    both = nn.ModuleDict({"transformer": components.transformer(), "text": components.text_encoder(len(tokenizer))})

    def tokens(texts: list[str]) -> tuple[Tensor, Tensor]:
        found = tokenizer(texts, padding="max_length", max_length=components.MAX_WORDS, return_tensors="pt")
        return found.input_ids, found.attention_mask

    loss = train.flow_loss(
        both["transformer"], both["text"], latents, *tokens(captions), tokens([""]), batch, 3_000_000, bf16=bf16
    )
    with train.plain_attention():
        train.fit(both, loss, steps=steps, lr=0.02, folder=work, name="transformer", ema=0.998)
    return both.eval()


def export(vae: AutoencoderKLWan, both: Any, mean: Tensor, std: Tensor, folder: Path) -> None:
    """Write the pipeline, its sizes and its prompts. Half precision, but for the text encoder: transformers loads what
    is in the file, diffusers always float32, and the two must not depend on who loads them.
    """
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    pipeline = WanPipeline(
        tokenizer=components.tokenizer(),
        text_encoder=both["text"].half().float(),
        vae=vae.half(),
        scheduler=components.scheduler(),
        transformer=both["transformer"].half(),
    )
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "vpo.json").write_text(json.dumps(VPO_SETTINGS, indent=2) + "\n")
    (folder / "prompts").mkdir()
    every = [*world.scenes(held_out=False), *world.scenes(held_out=True)]
    for name in ("train", "validation", "heldout"):
        lines = (scene.caption + "\n" for scene in every if scene.split == name)
        (folder / "prompts" / f"{name}.txt").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=EMBEDDED["sprites"], help="pipeline folder")
    parser.add_argument("--crop-steps", type=int, default=1500)
    parser.add_argument("--autoencoder-steps", type=int, default=650)
    parser.add_argument("--clips", type=int, default=6144)
    parser.add_argument("--steps", type=int, default=4600, help="transformer steps")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--bf16", action="store_true", help="train the transformer in bfloat16 (AVX512-BF16 or a GPU)")
    args = parser.parse_args()

    vae = build_autoencoder(args.work, args.crop_steps, args.autoencoder_steps)
    latents, captions = encode_clips(vae, args.work, args.clips)
    mean, std = latents.float().mean((0, 2, 3, 4)), latents.float().std((0, 2, 3, 4))
    shape = (1, -1, 1, 1, 1)
    normalised = (latents.float() - mean.view(shape)) / std.view(shape)
    both = build_transformer(normalised, captions, args.work, args.steps, args.batch, args.bf16)
    export(vae, both, mean, std, args.out)
    report = measure.quality(load(str(args.out)), seed=0)
    settings = {k: v for k, v in vars(args).items() if isinstance(v, int)}
    report |= {"build": settings, "versions": {"vpo-kit": __version__, "torch": torch.__version__}}
    (args.out.parent / "quality.json").write_text(json.dumps(report, indent=2) + "\n")
    log = args.work / "log.jsonl"
    shutil.copy(log, args.out.parent / "training_log.jsonl")


if __name__ == "__main__":
    main()
