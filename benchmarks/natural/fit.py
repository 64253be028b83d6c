"""Train the heads of the judge for natural video: ``python -m benchmarks.natural.fit --packages DIR --debian DIR --work DIR``.

From what `collect` kept. By ranking: clean above each flawed copy, in a flawed window of time below the same frames of
the clean clip and outside it about equal; pictures by how much blur costs, and less of every other flaw. Then rounds
against itself: sign-gradient steps within 2/255 that raise the score are made on new clips, and must lower it. Every
round's attacks are kept on disk; a run that was stopped goes on after the last whole one.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.natural import calibrate, collect, sources
from benchmarks.natural.clips import draw
from vpo_kit.rewards.natural import PICTURE_SIDE, PICTURES, Judge, no_larger, over_pairs, pool, soft_minimum
from vpo_kit.rewards.parts import motionstats, naturalness

HEADS, TIME_WIDTH, FRAME_WIDTH = 4, 32, 24
STEPS, WARMUP, BATCH, RATE, DECAY, DROPOUT = 350, 60, 16, 3e-3, 0.05, 0.2
ROUNDS, ATTACKED, STEP = 0, 16, 2 / 255
"""The weights that ship are those of before any round: docs/judges.md."""
SOFT_COST = 2.0
"""Score that doubling the width of an edge costs the one picture term, in a head's own units."""


@dataclass(frozen=True)
class Motion:
    """Ratios ``[N, V, F, K]`` of clips and copies, of which the first is clean; which frames lie in a flaw's window
    ``[N, V, F]`` (1 inside, -1 outside, 0 no label); and which copies count ``[N, V]``.
    """

    found: Tensor
    window: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Pictures:
    """Details ``[N, V, K]``, and what copies cost ``[N, V]``: about (`costs`) or at least (`least`), NaN for no claim;
    or that they come after the clean picture, with a weight (`ranks`).
    """

    found: Tensor
    costs: Tensor
    least: Tensor
    ranks: Tensor


def read_motion(folder: Path) -> tuple[Motion, list[list[str]]]:
    contents = [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))]
    found = motionstats.ratios(torch.stack([content["changes"] for content in contents]))
    window = torch.zeros(found.shape[:3])
    for n, content in enumerate(contents):
        for v, part in enumerate(content["windows"]):
            if part is not None:
                window[n, v] = -1
                window[n, v, max(0, part[0] - 1) : part[1] + 1] = 0  # the frames beside it see it in their changes
                window[n, v, part[0] : part[1]] = 1
    names = [content["names"] for content in contents]
    return Motion(found, window, torch.ones(found.shape[:2])), names


def read_pictures(folder: Path) -> tuple[dict[str, Pictures], list[list[str]]]:
    """The same pictures with what each copy costs either term."""
    contents = [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))]
    found = torch.stack([naturalness.details(content["luma"].float()) for content in contents])
    none = torch.full(found.shape[:2], math.nan)
    costs, least, ranks = none.clone(), none.clone(), torch.zeros_like(none)
    for n, content in enumerate(contents):
        for v, (name, amount) in enumerate(zip(content["names"], content["amounts"], strict=True)):
            costs[n, v] = sharpness_cost(name, amount)
            if name == "unsharp":
                ranks[n, v] = not content["soft"]  # of a soft picture it may be for the better
            elif name not in ("clean", "contrast"):
                least[n, v] = 0.0
    terms = {
        "sharpness": Pictures(found[..., :4], costs, none, torch.zeros_like(none)),
        "likeness": Pictures(found, none, least, ranks),
    }
    return terms, [content["names"] for content in contents]


def sharpness_cost(name: str, amount: float) -> float:
    """About what a flaw costs the term of sharpness; NaN is no claim."""
    if name in ("soft", "soft alone"):
        return SOFT_COST * math.log2(math.hypot(0.5, amount) / 0.5)
    return {"small": SOFT_COST * math.log2(1 / amount) if amount else 0.0, "contrast": 0.0}.get(name, math.nan)


def time_loss(frames: Tensor, batch: Motion) -> Tensor:
    """`frames` ``[N, V, F]``."""
    scores, counts = _pooled(frames), batch.counts[:, 1:]
    loss = (functional.softplus(scores[:, 1:] - scores[:, :1]) * counts).sum() / counts.sum()
    fall, window = frames[:, :1] - frames[:, 1:], batch.window[:, 1:] * counts[..., None]
    inside, outside = window > 0, window < 0
    loss = loss + 0.5 * (functional.softplus(-fall) * inside).sum() / inside.sum().clamp(min=1)
    away = functional.smooth_l1_loss(fall, torch.zeros_like(fall), reduction="none")
    return loss + 0.25 * (away * outside).sum() / outside.sum().clamp(min=1) + _level(scores[:, 0])


def picture_loss(scores: Tensor, batch: Pictures) -> Tensor:
    """`scores` ``[N, V]``."""
    drop = scores[:, :1] - scores
    about, least = ~batch.costs.isnan(), ~batch.least.isnan()
    # By its own size: what costs little must cost that, and what costs much may cost about as much.
    wanted = batch.costs.nan_to_num()
    miss = functional.smooth_l1_loss(drop / (0.2 + wanted / 2), wanted / (0.2 + wanted / 2), reduction="none")
    short = functional.softplus(4 * (batch.least.nan_to_num() - drop)) / 4
    loss = (miss * about).sum() / about.sum().clamp(min=1) + (short * least).sum() / least.sum().clamp(min=1)
    loss = loss + (functional.softplus(-drop) * batch.ranks).sum() / batch.ranks.sum().clamp(min=1)
    return loss + _level(scores[:, 0])


def _level(clean: Tensor) -> Tensor:
    """Clean contents near one score."""
    return 0.03 * clean.var() + 0.01 * clean.mean().square()


def _pooled(frames: Tensor) -> Tensor:
    return -(torch.logsumexp(-frames, -1) - math.log(frames.shape[-1]))


def fit(judge: Judge, sets: dict[str, list[Any]], seed: int) -> None:
    """Train all heads of all terms anew; the first set of a term is the planted flaws, the others are attacks."""
    for term, parts in sets.items():
        ensemble = judge.get_submodule(term)
        if isinstance(ensemble, nn.Linear):
            _fit_one(ensemble, parts, picture_loss, seed, rate=1e-2)
            continue
        clean = parts[0].found[:, 0].flatten(0, -2)
        ensemble.centre.copy_(clean.mean(0))
        ensemble.spread.copy_(clean.std(0) + 0.05)
        for number, head in enumerate(ensemble.heads):
            scaled = [replace(part, found=(part.found - ensemble.centre) / ensemble.spread) for part in parts]
            _fit_one(head, scaled, time_loss if term == "temporal" else picture_loss, seed + number)
    judge.requires_grad_(False).eval()


def _fit_one(head: nn.Module, sets: list[Any], loss_of: Any, seed: int, rate: float = RATE) -> None:
    torch.manual_seed(seed)
    for layer in head.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    head.train().requires_grad_(True)
    draw_rows = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=DECAY, betas=(0.9, 0.98))
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARMUP, 3 * (STEPS - step) / STEPS)
        total = torch.zeros(())
        for part in sets:
            rows = torch.randperm(len(part.found), generator=draw_rows)[:BATCH]
            batch = type(part)(*(value[rows] for value in vars(part).values()))
            shape = batch.found.shape[:2]
            scores = head(batch.found.flatten(0, 1))
            total = total + loss_of(scores.view(*shape, -1) if batch.found.dim() == 4 else scores.view(shape), batch)
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
    head.eval()


def score(judge: Judge, video: Tensor) -> Tensor:
    """The judge's score of one clip ``[F, 3, H, W]``."""
    used = [(2 * i + 1) * len(video) // (2 * PICTURES) for i in range(PICTURES)]
    pictures = judge.static_frames(video, used).mean(0)
    changes = over_pairs(judge.pairs(video, range(len(video) - 1)))
    return soft_minimum(torch.cat([pictures, pool(judge.temporal_frames(video))[None], changes]))


def attacked(judge: Judge, video: Tensor, steps: int) -> Tensor:
    """`video` after sign-gradient steps that raise its score, within 2/255; one step is of the whole size."""
    change = torch.zeros_like(video)
    for _ in range(steps):
        change.requires_grad_(True)
        (slope,) = torch.autograd.grad(score(judge, video + change), change)
        size = STEP if steps == 1 else 2.5 * STEP / steps
        change = (change.detach() + size * slope.sign()).clamp(-STEP, STEP)
        change = (video + change).clamp(0, 1) - video
    return (video + change).detach()


def attack_round(judge: Judge, material: sources.Material, number: int, folder: Path) -> None:
    """New clips, each with its copies after one step and after four; what is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(ATTACKED):
        target = folder / f"{i:04d}.pt"
        if target.exists():
            continue
        rng = np.random.default_rng([9, number, i])
        side = int(rng.choice([128, 128, 192]))
        video = draw(material, rng, collect.FRAMES, (side, side)).video
        copies = [video, attacked(judge, video, 1), attacked(judge, video, 4)]
        with torch.no_grad():
            scores = [float(score(judge, copy)) for copy in copies]
            found = {
                "changes": torch.stack([collect.statistics(judge.trunk, copy) for copy in copies]),
                "details": torch.stack([_details(copy) for copy in copies]),
                "scores": torch.tensor(scores),
            }
        partial = target.with_suffix(".part")
        torch.save(found, partial)
        partial.replace(target)


def _details(video: Tensor) -> Tensor:
    """Of the middle frame ``[16]``."""
    middle = len(video) // 2
    luma = naturalness.luma(no_larger(video[middle - 1 : middle + 2], PICTURE_SIDE))
    return naturalness.details(luma[1:2], naturalness.grain(*luma[:, None]))[0]


def read_attacks(folder: Path) -> tuple[dict[str, Any], Tensor]:
    """Sets for all terms, and the scores of the clips and both copies, ``[N, 3]``."""
    contents = [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))]
    found = motionstats.ratios(torch.stack([content["changes"] for content in contents]))
    details = torch.stack([content["details"] for content in contents])
    least = torch.zeros(details.shape[:2])
    least[:, 0] = math.nan
    pictures = Pictures(details, torch.full_like(least, math.nan), least, torch.zeros_like(least))
    motion = Motion(found, torch.zeros(found.shape[:3]), torch.ones(found.shape[:2]))
    scores = torch.stack([content["scores"] for content in contents])
    return {"temporal": motion, "likeness": pictures}, scores


@torch.no_grad()
def set_units(judge: Judge, motion: Motion, pictures: dict[str, Pictures], pairs: Tensor) -> None:
    """Clean contents get mean 0 and deviation 1 in every term; what counts late, `VETO` more."""
    frames, unit = judge.temporal(motion.found[:, 0]), torch.ones(())
    for _ in range(30):  # the pool leans more to the worst frame the larger the scores
        unit = unit * _pooled(frames / unit).std().clamp(0.1, 10.0)
    judge.units[0] = torch.stack([_pooled(frames / unit).mean() * unit, unit])
    for place, (term, part) in enumerate(pictures.items(), start=1):
        found = judge.get_submodule(term)(part.found[:, 0]).flatten()
        judge.units[place] = torch.stack([found.mean(), found.std()])
    judge.units[2] = calibrate.with_veto(judge.units[2])
    judge.units[3:] = pairs


@torch.no_grad()
def shares(
    judge: Judge, motion: Motion, names: list[list[str]], pictures: dict[str, Pictures], kinds: list[list[str]]
) -> Any:
    """By term and flaw: how often the clean content has the higher term, and its mean drop in deviations."""
    frames = judge.temporal(motion.found.flatten(0, 1)).unflatten(0, motion.found.shape[:2])
    scores = {"temporal": (_pooled((frames - judge.units[0, 0]) / judge.units[0, 1]), names)}
    for place, (term, part) in enumerate(pictures.items(), start=1):
        found = judge.get_submodule(term)(part.found.flatten(0, 1)).view(part.found.shape[:2])
        scores[term] = (found - judge.units[place, 0]) / judge.units[place, 1], kinds
    table: dict[str, dict[str, list[float]]] = {}
    for term, (found, rows) in scores.items():
        drops: dict[str, list[float]] = {}
        for n, row in enumerate(rows):
            for v, name in enumerate(row[1:], 1):
                drops.setdefault(name, []).append(float(found[n, 0] - found[n, v]))
        table[term] = {
            name: [round(float(np.mean(np.array(d) > 0)), 2), round(float(np.mean(d)), 2)] for name, d in drops.items()
        }
    return table


def new_judge(packages: Path) -> Judge:
    inputs, details = 4 * 64, 16
    state = {f"temporal.heads.{k}.enter.weight": torch.zeros(TIME_WIDTH, inputs) for k in range(HEADS)}
    state |= {f"likeness.heads.{k}.enter.weight": torch.zeros(FRAME_WIDTH, details) for k in range(HEADS)}
    judge = Judge(state)
    judge.trunk = collect.trunk(packages)
    for module in judge.modules():
        if isinstance(module, nn.Dropout):
            module.p = DROPOUT
    return judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("packages", "debian", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    motions = [read_motion(given.work / f"{kind}-train")[0] for kind in ("motion", "footage", "grain")]
    pictures, _ = read_pictures(given.work / "picture-train")
    (one, names), (other, more) = (read_motion(given.work / f"{kind}-check") for kind in ("motion", "footage"))
    checked = Motion(*(torch.cat(both) for both in zip(vars(one).values(), vars(other).values(), strict=True)))
    still, kinds = read_pictures(given.work / "picture-check")
    judge, material, log = new_judge(given.packages), None, []
    pairs = calibrate.pair_units(sources.load("check", given.packages, given.debian))
    sets: dict[str, list[Any]] = {"temporal": motions, **{term: [part] for term, part in pictures.items()}}
    names += more
    for number in range(given.rounds + 1):
        fit(judge, sets, seed=100 * number)
        set_units(judge, checked, still, pairs)
        log.append({"round": number, **shares(judge, checked, names, still, kinds)})
        print(json.dumps(log[-1]), flush=True)
        if number == given.rounds:
            break
        folder = given.work / f"attack-{number}"
        if len(list(folder.glob("*.pt"))) < ATTACKED:
            material = material or sources.load("train", given.packages, given.debian, "opencv-doc")
            attack_round(judge, material, number, folder)
        attacks, scores = read_attacks(folder)
        for term, part in attacks.items():
            sets[term].append(part)
        rise = scores[:, 1:] - scores[:, :1]
        log[-1]["attack"] = {"raised": (rise > 0).float().mean(0).tolist(), "rise": rise.mean(0).tolist()}
        print(json.dumps(log[-1]["attack"]), flush=True)
    save_file(
        {key: value.half().contiguous() for key, value in judge.state_dict().items()}, given.work / "natural.part"
    )
    (given.work / "natural.part").replace(given.work / "natural.safetensors")
    (given.work / "natural.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
