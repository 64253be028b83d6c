"""Published weights, a folder at a time: what a person with a hub runs first.

Our sampler against the pipeline's own call, two steps of every method through the command line, and the LoRA in each
form, written and loaded back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch

from benchmarks.gpu_day import card, parity
from benchmarks.gpu_day.protocol import Options
from vpo_kit import models
from vpo_kit.cli import main
from vpo_kit.models.base import VideoModel
from vpo_kit.registry import METHODS
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.calling import Call
from vpo_kit.testing.parity import PROMPTS, Case

SIDE, REHEARSED_SIDE = 256, 32
TOLERANCE = parity.LIMITS["bfloat16, pipeline"]
QUICK = {
    "batch_size": 1, "dtype": "bfloat16", "offload": "true", "evaluation.num_prompts": 1, "validation.share": 0.0,
    "sampling.batch_size": 1, "sampling.steps": 4,
    # at a real rate two steps are lost in the rounding of bfloat16 when they are merged into the weights
    "optimiser.lr": 1e-2, "optimiser.warmup_steps": 0,
}  # fmt: skip


def cases(options: Options) -> dict[str, float]:
    kinds = ["pipeline", "data", *(f"train {name}" for name in METHODS.targets()), "export"]
    return {f"{folder}: {kind}": 900.0 for folder in options.models for kind in kinds}


def run(case: str, options: Options) -> dict[str, Any]:
    source, _, kind = case.rpartition(": ")
    work = options.scratch / "published" / Path(source).name
    work.mkdir(parents=True, exist_ok=True)
    side = REHEARSED_SIDE if options.rehearse else SIDE
    kind, _, method = kind.partition(" ")
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "pipeline": lambda: pipeline(source, side),
        "data": lambda: data(source, work, side),
        "train": lambda: train(source, work, side, method),
        "export": lambda: export(source, work, side),
    }
    return steps[kind]()


def size_of(model: VideoModel, side: int) -> tuple[int, int]:
    """Frames, three latent ones, and the side of a square, as near to `side` as the model goes."""
    time, tall, wide = model.multiples
    step = max(tall, wide)
    return 2 * time + int(model.causal), max(1, round(side / step)) * step


def pipeline(source: str, side: int) -> dict[str, Any]:
    """How far the videos of both are apart, relative, and seconds of each. In bfloat16; in float32 where the scheduler
    draws noise, which would be another one.
    """
    scheduler = diffusers.DiffusionPipeline.load_config(source)["scheduler"][1]
    model = models.load(source, dtype="float32" if scheduler == "CogVideoXDPMScheduler" else "bfloat16")
    frames, side = size_of(model, side)
    shape = model.latent_shape(frames, side, side)
    noise = draw_noise(shape, [1, 2], model.device).bfloat16().float()  # the same noise for both
    case = Case(Path(source), model, model.pipeline, Call(frames=frames, height=side, width=side))
    videos: list[torch.Tensor] = []
    seconds = [
        card.seconds(lambda: videos.append(case.ours(noise, 4.0))),
        card.seconds(lambda: videos.append(case.theirs(noise, 4.0))),
    ]
    difference = parity.apart(*videos)
    found = {"difference": difference, "ours": round(seconds[0], 2), "theirs": round(seconds[1], 2), **card.peaks()}
    return found if difference <= TOLERANCE else {**found, "error": f"{difference:.2g} apart, at most {TOLERANCE}"}


def data(source: str, work: Path, side: int) -> dict[str, Any]:
    """Clips, prompts and a pair set of each strategy, all of the model's own."""
    vpo("clips", "--output", work / "clips", "--count", 2)
    prompts = work / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    for strategy, where in (("guided", ("--videos", work / "clips")), ("independent", ("--prompts", prompts))):
        sizes = {**sampling(source, side), "sampling.steps": 4, "labelling.tie_share": 0.0}
        vpo("pair", "--strategy", strategy, *where, "--model", source, "--output", work / strategy, *sets(sizes))
    return {"made": "clips, guided and independent pairs"}


def train(source: str, work: Path, side: int, name: str) -> dict[str, Any]:
    """Two steps, measured before and after."""
    method = METHODS.load(name)
    kind = next(iter(method.needs.data))
    where = {"pairs": work / (method.needs.strategy or "guided"), "videos": work / "clips"}
    given = [f"--{kind}", where.get(kind, work / "prompts.txt")]
    own = {"method.num_candidates": 2, "method.num_draws": 1} if name == "online" else {}
    settings = {**QUICK, **sampling(source, side), **own, "evaluation.prompts": work / "prompts.txt"}
    vpo("train", "--model", source, "--method", name, "--steps", 2, "--output", work / name, *given, *sets(settings))
    return {**card.peaks()}


def export(source: str, work: Path, side: int) -> dict[str, Any]:
    """Each form is loaded again by the command itself; one video at the end with what came out."""
    done = {}
    for form in ("diffusers", "merged"):
        vpo("export", work / "sft", "--format", form, "--output", work / form)
        done[form] = "written, loaded and the same"
    prompt = ("--prompt", PROMPTS[0])
    sizes = sets({**sampling(source, side), "sampling.steps": 2})
    vpo("sample", *prompt, "--model", source, "--lora", work / "diffusers", "--output", work / "videos", *sizes)
    return done


@cache
def sampling(source: str, side: int) -> Mapping[str, Any]:
    """The size as settings."""
    frames, side = size_of(models.load(source, dtype="bfloat16", offload=True), side)
    return {"sampling.frames": frames, "sampling.height": side, "sampling.width": side}


def sets(values: Mapping[str, Any]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def vpo(*arguments: object) -> None:
    """A command of the toolkit, in this process. Raises `RuntimeError` where it fails."""
    print("$ vpo", *arguments, flush=True)
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"vpo {arguments[0]} ended with code {end.code}: the log says why") from None
