"""The small decoder of the embedded model: ``python -m vpo_kit.sprites.build.preview --work build/preview``.

Distilled from the autoencoder on what it is for: samples of the model itself, of the chains that rollouts use. Measured
on samples apart, eight of a prompt, by judges that it has not seen. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from vpo_kit import __version__, files
from vpo_kit.folders import EMBEDDED, prompts_of
from vpo_kit.models import loading
from vpo_kit.models.base import VideoModel
from vpo_kit.models.preview import PreviewDecoder, PreviewShape, save_preview
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.sampler import derive_seed, draw_noise, sample
from vpo_kit.sprites.build import train

BATCH, GROUP = 24, 8
CHAINS = ((5, 2.0), (6, 1.0), (8, 3.0), (5, 3.0))
"""Steps and guidance of the samples it learns from, in turn; it is measured on the first."""
JUDGES = ("vqa", "gold", "technical")


def samples(model: VideoModel, work: Path, count: int, apart: int) -> Iterator[Path]:
    """Files of `BATCH` latents and videos each: `count` to learn from, and `apart` whose prompts have `GROUP` each."""
    prompts = read_prompts(prompts_of("sprites", "train") or Path())
    random.Random(1).shuffle(prompts)
    work.mkdir(parents=True, exist_ok=True)
    for first in range(0, count + apart, BATCH):
        path = work / f"d{first // BATCH:03d}.safetensors"
        if not path.is_file():
            held, numbers = first >= count, range(first, first + BATCH)
            steps, scale = CHAINS[0 if held else first // BATCH % len(CHAINS)]
            texts = [prompts[(i // GROUP if held else i) % len(prompts)] for i in numbers]
            files.write_tensors(path, _sampled(model, texts, numbers, steps, scale))
        yield path


@torch.no_grad()
def _sampled(model: VideoModel, texts: list[str], numbers: range, steps: int, scale: float) -> dict[str, Tensor]:
    settings = replace(model.settings, guidance=scale)
    guidance = model.guidance(settings, model.encode_prompts([""]))
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    noise = draw_noise(shape, [derive_seed(5, "prev", i) for i in numbers], model.device)
    latents = sample(model, model.encode_prompts(texts), noise=noise, steps=steps, guidance=guidance)
    return {"latents": latents, "video": model.decode_clip(latents).half()}


def loss_of(decoder: PreviewDecoder, latents: Tensor, video: Tensor, batch: int) -> train.Loss:
    """Absolute error, more where a shape is; also of the differences in time and in space, which judges look at."""

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        index = torch.randint(len(latents), (batch,), generator=generator)
        target = video[index].float()
        error = decoder(latents[index]) - target
        centre = target.flatten(3).median(-1).values[..., None, None]
        focus = 1 + 4 * ((target - centre).abs().amax(2, keepdim=True) > 0.05).float()
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        total: Tensor = (focus * error.abs()).mean() + error.diff(dim=1).abs().mean() + 0.5 * edges
        return total

    return loss


@torch.no_grad()
def agreement(decoder: PreviewDecoder, latents: Tensor, video: Tensor) -> dict[str, dict[str, float]]:
    """What judges say of its videos against what they say of the autoencoder's, over groups of `GROUP`."""
    found: dict[str, dict[str, float]] = {}
    for name in JUDGES:
        (judge,) = rewards.load(rewards.plan(name, {}), latents.device).parts

        def score(videos: Tensor, judge: torch.nn.Module = judge) -> Tensor:
            parts = (
                judge(part.float().clamp(0, 1), [""] * len(part), fps=8).score for part in torch.split(videos, BATCH)
            )
            return torch.cat(list(parts)).view(-1, GROUP)

        made = torch.cat([decoder(part) for part in torch.split(latents, BATCH)])
        seen, true = score(made), score(video)
        centred = [side - side.mean(1, keepdim=True) for side in (seen, true)]
        pair = true.gather(1, seen.argmax(1, keepdim=True)) - true.gather(1, seen.argmin(1, keepdim=True))
        found[name] = {
            "correlation within a prompt": float(torch.corrcoef(torch.stack(centred).flatten(1))[0, 1]),
            "same winner": float((seen.argmax(1) == true.argmax(1)).float().mean()),
            "margin kept": float(pair.mean() / (true.amax(1) - true.amin(1)).mean()),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="samples, checkpoints and log")
    parser.add_argument("--out", type=Path, default=EMBEDDED["sprites"], help="model folder")
    parser.add_argument("--samples", type=int, default=1440)
    parser.add_argument("--apart", type=int, default=240)
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    paths = list(samples(loading.load("sprites"), given.work, given.samples, given.apart))
    rows = [load_file(path) for path in paths]
    latents, video = (torch.cat([row[key] for row in rows]) for key in ("latents", "video"))
    torch.manual_seed(0)
    decoder = PreviewDecoder(PreviewShape(channels=latents.shape[1]))
    loss = loss_of(decoder, latents[: given.samples], video[: given.samples], batch=8)
    train.fit(decoder, loss, steps=given.steps, lr=0.02, folder=given.work, name="preview", ema=0.99)
    decoder.eval()
    report = agreement(decoder, latents[given.samples :], video[given.samples :])
    error = (
        torch.cat([decoder(part).detach() for part in torch.split(latents[given.samples :], BATCH)])
        - video[given.samples :]
    )
    save_preview(decoder, given.out)
    facts = {
        "l1": float(error.abs().mean()),
        **report,
        "steps": given.steps,
        "samples": given.samples,
        "versions": {"vpo-kit": __version__, "torch": torch.__version__},
    }
    files.write(EMBEDDED["sprites"].parent / "preview.json", json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
