"""What a quantised base costs in quality: ``python -m benchmarks.quantised [--prompts 48]``.

Videos of held-out captions of the embedded model by its whole chain, with the base as it is and in each form that is
offered, from the same first noises; and, for comparison, with diffusers' own ``enable_layerwise_casting`` to
float8_e4m3fn, which has no scales. In each row: how far one pass's prediction is off at the times of the chain, how far
the videos are, and what both judges say of them. Writes ``results/quantised.json`` and the table in ``docs/memory.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import facts
from vpo_kit import models
from vpo_kit.evaluation.statistics import paired
from vpo_kit.folders import prompts_of
from vpo_kit.models.base import VideoModel
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards.vqa import VQA, GoldVQA
from vpo_kit.sampler import derive_seed, draw_noise, sample
from vpo_kit.training.recipe import spread

BATCH = 16
PAGE = Path(__file__).parents[1] / "docs" / "memory.md"
BEGIN, END = "<!-- table: python -m benchmarks.quantised -->", "<!-- end of table -->"
KINDS = ("none", "int8", "fp8", "nf4", "fp8 without scales (diffusers' layerwise casting)")


def load(kind: str) -> VideoModel:
    """The embedded model with its base in the form `kind`."""
    if not kind.startswith("fp8 without"):
        return models.load("sprites", quantise=kind)
    model = models.load("sprites")
    for network in model.networks.values():
        network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    return model


@torch.no_grad()
def videos(model: VideoModel, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """One pass's predictions at each time of the chain, for the first prompts, and the videos of all."""
    settings = model.settings
    shape = model.latent_shape(*settings.size)
    noise = draw_noise(shape, [derive_seed(0, "quantised", i) for i in range(len(prompts))])
    guidance = model.guidance(settings, model.encode_prompts([settings.negative_prompt]))
    conditions, times = model.encode_prompts(prompts[:4]), model.new_scheduler(settings.steps, shape).timesteps
    passes = torch.stack([model.predict(noise[:4], time.expand(4), conditions) for time in times])
    found = []
    for first in range(0, len(prompts), BATCH):
        part = slice(first, first + BATCH)
        own = model.encode_prompts(prompts[part])
        latents = sample(model, own, noise=noise[part], steps=settings.steps, guidance=guidance)
        found.append(model.decode(latents))
    return passes, torch.cat(found)


def table(rows: dict[str, Any]) -> str:
    """The rows in Markdown."""
    lines = ["| base | a pass is off by | a pixel is off by | vqa | gold |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        judged = [f"{row[j]['change']:+.4f} [{row[j]['low']:+.4f}, {row[j]['high']:+.4f}]" for j in ("vqa", "gold")]
        lines.append(f"| {name} | {row['pass']:.4f} | {row['pixel']:.4f} | {' | '.join(judged)} |")
    return "\n" + "\n".join(lines) + "\n"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=48)
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = prompts_of("sprites", "heldout")
    assert path is not None
    prompts = spread(read_prompts(path), given.prompts)
    judges = {"vqa": VQA(), "gold": GoldVQA()}
    rows: dict[str, Any] = {}
    exact: tuple[Tensor, Tensor, dict[str, Tensor]] | None = None
    for kind in KINDS:
        model = load(kind)
        passes, clips = videos(model, prompts)
        scores = {name: judge(clips, prompts, fps=model.settings.fps).score for name, judge in judges.items()}
        if exact is None:
            exact = passes, clips, scores
            continue
        rows[kind] = {
            "pass": round(float((passes - exact[0]).norm() / exact[0].norm()), 5),
            "pixel": round(float((clips - exact[1]).abs().mean()), 5),
            **{name: change(exact[2][name], value) for name, value in scores.items()},
        }
        print(kind, rows[kind], flush=True)
    means = {name: round(float(value.mean()), 4) for name, value in exact[2].items()} if exact else {}
    found = {"command": "python -m benchmarks.quantised", "prompts": given.prompts, "exact": means, "rows": rows}
    facts.write("quantised", found)
    facts.fill(PAGE, BEGIN, END, table(rows))


def change(before: Tensor, after: Tensor) -> dict[str, float]:
    """The mean change of a judge's score, with an interval of 95% over prompts."""
    found = paired(before.tolist(), after.tolist(), range(len(before)))
    return {name: round(value, 5) for name, value in found.interval().items()}


if __name__ == "__main__":
    main()
