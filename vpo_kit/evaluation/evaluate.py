"""Sample held-out prompts with fixed seeds, keep the videos, and measure them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from vpo_kit import files
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.evaluation.metrics import CATALOGUE, ordered
from vpo_kit.evaluation.statistics import Paired, corrected, paired
from vpo_kit.evaluation.truth import Truth, truth_of
from vpo_kit.models.base import Settings, VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.processes import Processes
from vpo_kit.rewards.base import Reward
from vpo_kit.sampler import derive_seed, draw_noise, sample
from vpo_kit.video import motion, write_video

Measure = Callable[[Tensor, float], Mapping[str, list[float]]]
"""Video ``[B, F, 3, H, W]`` in [0, 1] and its fps to metrics, one number for each video."""


PARTS = ".parts"


@dataclass(frozen=True)
class Plan:
    """What is sampled: every prompt with `videos_per_prompt` seeds. The seeds do not depend on the model."""

    prompts: Sequence[str]
    videos_per_prompt: int
    settings: Settings
    batch_size: int
    seed: int

    @property
    def items(self) -> list[tuple[int, int]]:
        """``(prompt's index, video's number)`` of every video, in order."""
        return [(i, k) for i in range(len(self.prompts)) for k in range(self.videos_per_prompt)]

    @property
    def files(self) -> list[str]:
        """The videos' names, in order."""
        return [f"{i:03d}-{k}.mp4" for i, k in self.items]

    @property
    def batches(self) -> list[slice]:
        """Which items are sampled together, the same every time: the last bits of a video depend on its batch."""
        starts = range(0, len(self.items), self.batch_size)
        return [slice(start, min(start + self.batch_size, len(self.items))) for start in starts]


@dataclass(frozen=True)
class Evaluation:
    """One model's results: for each video its prompt's index, file (relative to the folder) and metrics."""

    name: str
    prompts: list[str]
    groups: list[int]
    files: list[str]
    metrics: dict[str, list[float]]

    def table(self) -> dict[str, float]:
        """Each metric's mean."""
        return {key: sum(values) / len(values) for key, values in self.metrics.items()}

    def save(self, folder: Path) -> None:
        """Raises `OutputError`."""
        files.write(folder / "metrics.json", json.dumps(asdict(self)))

    @staticmethod
    def load(folder: Path) -> Evaluation:
        """Raises `DataError`."""
        try:
            found = TypeAdapter(Evaluation).validate_json((folder / "metrics.json").read_bytes())
            counts = {len(found.groups), len(found.files), *(len(values) for values in found.metrics.values())}
            if len(counts) > 1 or not all(0 <= group < len(found.prompts) for group in found.groups):
                raise ValueError("its lists do not fit together")
            if any(Path(file).name != file or file in ("", "..") for file in found.files):
                raise ValueError("its videos do not lie beside it")
            return found
        except (OSError, ValueError) as error:
            what = " ".join(str(error).split())[:300]
            raise DataError(f"{folder / 'metrics.json'} cannot be read: {what}") from error


def videos(
    model: VideoModel, plan: Plan, batches: Sequence[slice] | None = None, encode: PromptCache | None = None
) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Items with their videos ``[B, F, 3, H, W]``, for all batches of the plan or some; a video's noise depends on its
    own seed alone.
    """
    settings = plan.settings
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    encode = encode or PromptCache(model)
    conditions = encode(plan.prompts)
    guidance = model.guidance(settings, encode([settings.negative_prompt]))
    for batch in plan.batches if batches is None else batches:
        items = plan.items[batch]
        seeds = [derive_seed(plan.seed, "evaluation", plan.prompts[i], k) for i, k in items]
        part = conditions[[i for i, _ in items]]
        with torch.no_grad():
            noise = draw_noise(shape, seeds, model.device)
            latents = sample(model, part, noise=noise, steps=settings.steps, guidance=guidance)
            video = model.decode(latents)
        yield items, video  # outside: a caller that stops here must not be left without gradients


def evaluate(
    model: VideoModel,
    plan: Plan,
    judges: Sequence[Reward],
    folder: Path,
    name: str,
    tick: Callable[[int], None],
    extra: Sequence[Measure] = (),
    processes: Processes | None = None,
    encode: PromptCache | None = None,
) -> Evaluation:
    """Sample, write the videos and ``metrics.json`` into `folder`, and measure; `tick` gets the number just done.

    A finished batch leaves its videos and then a small file with its metrics. When the same is asked for again, it is
    not made again, and the result is that of an undisturbed run, file by file. Of several processes, which must see the
    same disk, each makes its share of the batches; the files are those that one process makes.

    Where the model declares the truth of a made world and all prompts speak of it, its metrics are there too.

    Raises `ConfigError` for a judge with a metric's name, `DataError` for a score that is not finite.
    """
    check_names(judges)
    truth = truth_of(model, plan.prompts)
    parts = _Parts(folder, plan)
    processes = processes or Processes()
    missing = processes.agree([batch for batch in plan.batches if not parts.done(batch)])
    tick(sum(batch.stop - batch.start for batch in plan.batches if batch not in missing))
    own = processes.share(missing)
    batches = own + missing[:1] * (processes.lockstep(len(own)) - len(own))  # whose results are not kept
    made = videos(model, plan, batches, encode) if batches else ()
    for i, (items, video) in enumerate(made):
        if i < len(own):
            texts = [plan.prompts[prompt] for prompt, _ in items]
            found = measure(video, texts, judges, plan.settings.fps, extra, truth)
            for file, clip in zip(plan.files[own[i]], video, strict=True):
                write_video(folder / file, clip, plan.settings.fps)
            parts.put(own[i], found)
        tick(sum(batch.stop - batch.start for batch in missing[i * processes.count : (i + 1) * processes.count]))
    processes.wait()
    result = Evaluation(name, list(plan.prompts), [i for i, _ in plan.items], plan.files, parts.joined())
    processes.wait()  # all have read the parts
    if processes.is_main:
        result.save(folder)
        parts.drop()
    return result


def finished(folder: Path) -> Evaluation | None:
    """What `evaluate` has left in `folder`, where it came to its end there. Raises `DataError`."""
    if not (folder / "metrics.json").is_file():
        return None
    shutil.rmtree(folder / PARTS, ignore_errors=True)  # of one that was killed just before it did so
    return Evaluation.load(folder)


class _Parts:
    """The metrics of finished batches, in `PARTS` of a folder of videos, until all are there."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder, plan

    def done(self, batch: slice) -> bool:
        """Whether a batch of this plan has been measured and its videos are those that were."""
        try:
            found = json.loads(self._path(batch).read_text(encoding="utf-8"))
            return bool(found["plan"] == self._about() and found["sha256"] == self._hashes(batch))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def put(self, batch: slice, metrics: Mapping[str, list[float]]) -> None:
        about = {"plan": self._about(), "sha256": self._hashes(batch), "metrics": metrics}
        files.write(self._path(batch), json.dumps(about))

    def joined(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for batch in self._plan.batches:
            for key, values in json.loads(self._path(batch).read_text(encoding="utf-8"))["metrics"].items():
                found.setdefault(key, []).extend(values)
        short = [key for key, values in found.items() if len(values) < len(self._plan.items)]
        return {key: values for key, values in found.items() if key not in short}

    def drop(self) -> None:
        shutil.rmtree(self._folder / PARTS, ignore_errors=True)

    def _path(self, batch: slice) -> Path:
        return self._folder / PARTS / f"{batch.start:06d}.json"

    def _hashes(self, batch: slice) -> list[str]:
        return [files.sha256(self._folder / name) for name in self._plan.files[batch]]

    def _about(self) -> dict[str, Any]:
        plan: dict[str, Any] = json.loads(json.dumps(asdict(self._plan)))
        return plan


def check_names(judges: Sequence[Reward]) -> None:
    """Raises `ConfigError` where a judge has the name of another metric, which it would hide."""
    clash = [judge.spec.name for judge in judges if judge.spec.name in CATALOGUE]
    if clash:
        raise ConfigError(f"a reward called {clash[0]!r} cannot be a judge: a metric has that name")


@torch.no_grad()
def measure(
    video: Tensor,
    prompts: Sequence[str],
    judges: Sequence[Reward],
    fps: float,
    extra: Sequence[Measure] = (),
    truth: Truth | None = None,
) -> dict[str, list[float]]:
    """Metrics of `video` ``[B, F, 3, H, W]``: every judge, motion, what `extra` measures, and the truth of a made
    world. Raises `DataError` for a score that is not finite.
    """
    found = {judge.spec.name: judge(video, prompts, fps=fps).score.float().tolist() for judge in judges}
    for name, scores in found.items():
        bad = [prompt for prompt, score in zip(prompts, scores, strict=True) if not math.isfinite(score)]
        if bad:
            raise DataError(f"reward {name!r} is not finite for the prompt {bad[0]!r}: it cannot be used")
    found["motion"] = motion(video).tolist()
    for more in extra:
        found |= more(video, fps)
    return found | truth(video, prompts) if truth else found


def compare(before: Evaluation, after: Evaluation) -> dict[str, Paired]:
    """Paired change of every metric, corrected for their number, in the order of a table.

    Raises `DataError` when the two did not see the same prompts and seeds.
    """
    if before.prompts != after.prompts or before.files != after.files:
        raise DataError(f"{before.name} and {after.name} were not evaluated on the same prompts and seeds")
    shared = ordered(key for key in before.metrics if key in after.metrics)
    return corrected({key: paired(before.metrics[key], after.metrics[key], before.groups) for key in shared})
