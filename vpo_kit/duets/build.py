"""Build the model of the world of two sprites: ``python -m vpo_kit.duets.build --work build/duets``.

The embedded model's autoencoder serves this world as it is; its transformer and text encoder are where training starts,
with a row more in the embedding for the word "and". Stages: latents, training, export, measurement; each goes on where
it was stopped when the command is given again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn
from transformers import UMT5EncoderModel

from vpo_kit.duets import world
from vpo_kit.folders import EMBEDDED, recipe_of
from vpo_kit.models.loading import load
from vpo_kit.sprites.build import components, measure, train
from vpo_kit.sprites.build.assemble import MadeWorld, ShownClip, encode_clips, export, train_transformer, write_report

FOLDER = Path(__file__).parent / "pipeline"
MAX_WORDS = 18  # the longest caption is 17 words, and the end mark
START = EMBEDDED["sprites"]


def made() -> MadeWorld:
    """What a model of this world is built from."""
    splits = ("train", "validation", "heldout")
    return MadeWorld(
        truth="duets",
        clips=lambda count, seed, first: (
            ShownClip(clip.video, clip.caption, bool(clip.flaws)) for clip in world.training_clips(count, seed, first)
        ),
        captions={split: [duet.caption for duet in world.captions(split)] for split in splits},
        tokenizer=components.tokenizer(["and"], MAX_WORDS),
    )


def start(vocab_size: int) -> nn.ModuleDict:
    """Transformer and text encoder with the embedded model's weights; new words begin as the mean of the known ones."""
    transformer = WanTransformer3DModel.from_pretrained(START / "transformer", torch_dtype=torch.float32)
    known: UMT5EncoderModel = UMT5EncoderModel.from_pretrained(START / "text_encoder")
    text = components.text_encoder(vocab_size)
    state: dict[str, Any] = {}
    for key, value in known.state_dict().items():
        missing = text.state_dict()[key].shape[0] - len(value) if value.ndim else 0
        state[key] = torch.cat([value, value.mean(0, keepdim=True).expand(missing, -1)]) if missing else value
    text.load_state_dict(state)
    return nn.ModuleDict({"transformer": transformer.train(), "text": text.train()})


def write_recipe(folder: Path) -> None:
    """The embedded model's settings, which were not found for this one; it has no small decoder."""
    shipped = recipe_of("sprites")
    assert shipped is not None
    text = shipped.read_text(encoding="utf-8").replace(" rollout_decoder: preview,", "")
    head = "# The embedded model's settings (sprites), not tuned on this one.\n"
    body = text.partition("\n")[2].replace("found on the embedded model", "found on sprites")
    (folder / "recipe.yaml").write_text(head + body, encoding="utf-8")


def build(work: Path, out: Path, *, clips: int, steps: int, batch: int, lr: float, bf16: bool) -> None:
    """Train and write the pipeline into `out`."""
    vae = AutoencoderKLWan.from_pretrained(START / "vae", torch_dtype=torch.float32).eval()
    own = made()
    latents, captions = encode_clips(vae, own, work, clips)
    both = start(len(own.tokenizer))
    known = train.normalised(latents, vae), captions
    train_transformer(both, own, known, work, steps=steps, batch=batch, lr=lr, bf16=bf16)
    export(vae, both, own, out)
    write_recipe(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=FOLDER, help="pipeline folder")
    parser.add_argument("--clips", type=int, default=6144)
    parser.add_argument("--steps", type=int, default=3000, help="transformer steps")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 (AVX512-BF16 or a GPU)")
    args = parser.parse_args()
    settings = {key: value for key, value in vars(args).items() if key not in ("work", "out")}
    build(args.work, args.out, **settings)
    write_report(measure.quality(load(str(args.out)), made(), seed=0), settings, args.work, args.out)


if __name__ == "__main__":
    main()
