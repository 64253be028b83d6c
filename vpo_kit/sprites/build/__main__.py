"""Build the embedded model: ``python -m vpo_kit.sprites.build --work build/sprites``.

Stages: autoencoder on crops, autoencoder on whole clips, latents, transformer with text encoder, export, measurement.
Each goes on from its last checkpoint when the command is given again. About two hours on two CPU cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import nn

from vpo_kit.folders import EMBEDDED
from vpo_kit.models.loading import load
from vpo_kit.sprites.build import components, measure, train
from vpo_kit.sprites.build.assemble import SPRITES, encode_clips, export, train_transformer, write_report


def build_autoencoder(work: Path, crop_steps: int, steps: int) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = components.autoencoder()
    cropped = train.autoencoder_loss(vae, 8, 1_000_000, cropped=True)
    train.fit(vae, cropped, steps=crop_steps, lr=0.02, folder=work, name="autoencoder-crops")
    whole = train.autoencoder_loss(vae, 4, 2_000_000, cropped=False)
    train.fit(vae, whole, steps=steps, lr=0.01, folder=work, name="autoencoder")
    return vae.eval()


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
    latents, captions = encode_clips(vae, SPRITES, args.work, args.clips)
    mean, std = latents.float().mean((0, 2, 3, 4)), latents.float().std((0, 2, 3, 4))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    torch.manual_seed(1)
    text = components.text_encoder(len(SPRITES.tokenizer))
    both = nn.ModuleDict({"transformer": components.transformer(), "text": text})
    clips = train.normalised(latents, vae), captions
    train_transformer(both, SPRITES, clips, args.work, steps=args.steps, batch=args.batch, lr=0.02, bf16=args.bf16)
    export(vae, both, SPRITES, args.out)
    write_report(measure.quality(load(str(args.out)), SPRITES, seed=0), vars(args), args.work, args.out)


if __name__ == "__main__":
    main()
