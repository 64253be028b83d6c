"""Sample held-out prompts with fixed seeds, keep the videos, and measure them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from vpo_kit import content, files
from vpo_kit.errors import DataError
from vpo_kit.evaluation import pictured
from vpo_kit.evaluation.measuring import ALWAYS, check_names, measure
from vpo_kit.evaluation.metrics import ordered
from vpo_kit.evaluation.statistics import Paired, corrected, paired
from vpo_kit.evaluation.unfinished import PARTS, Parts
from vpo_kit.inputs import Inputs, inputs_of
from vpo_kit.measures import Measure
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.settings import Settings
from vpo_kit.processes import Processes
from vpo_kit.rewards.base import Reward
from vpo_kit.sampler import derive_seed, draw_noise, sample
from vpo_kit.truth import truth_of
from vpo_kit.video import check_finite, write_video

METRICS = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class SamplePlan:
    """What is sampled: every prompt, with its pictures where it has any, with `videos_per_prompt` seeds. The seeds do
    not depend on the model.
    """

    inputs: Sequence[str | Inputs]
    videos_per_prompt: int
    settings: Settings
    batch_size: int
    seed: int

    @cached_property
    def prompts(self) -> list[str]:
        """The prompts without their pictures."""
        return [inputs_of(item).prompt for item in self.inputs]

    @cached_property
    def pictures(self) -> list[list[str]]:
        """What the prompts' pictures are known by; empty where no prompt has any."""
        found = [inputs_of(item).keys for item in self.inputs]
        return found if any(found) else []

    @property
    def items(self) -> list[tuple[int, int]]:
        """``(prompt's index, video's number)`` of every video, in order."""
        return [(i, k) for i in range(len(self.prompts)) for k in range(self.videos_per_prompt)]

    @property
    def keys(self) -> list[str]:
        """What the videos are known by, in order: a prompt with its pictures and a number, wherever it stands."""
        return [content.key(self.prompts[i], *inputs_of(self.inputs[i]).keys, k) for i, k in self.items]

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of the videos' noises, in order."""
        return [
            derive_seed(self.seed, "evaluation", self.prompts[i], *inputs_of(self.inputs[i]).keys, k)
            for i, k in self.items
        ]

    @property
    def made_with(self) -> dict[str, Any]:
        """What all videos have in common, as plain values."""
        own = {"settings": asdict(self.settings), "batch_size": self.batch_size, "seed": self.seed}
        found: dict[str, Any] = json.loads(json.dumps(own))
        return found

    @property
    def files(self) -> list[str]:
        """The videos' names, in order."""
        return [f"{i:03d}-{k}.mp4" for i, k in self.items]

    @property
    def batches(self) -> list[slice]:
        """Which items are sampled together, the same every time: the last bits of a video depend on its batch."""
        starts = range(0, len(self.items), self.batch_size)
        return [slice(start, min(start + self.batch_size, len(self.items))) for start in starts]


@dataclass(frozen=True, kw_only=True)
class Results:
    """One model's results: for each video its prompt's index, file (relative to the folder) and metrics."""

    name: str
    prompts: list[str]
    groups: list[int]
    files: list[str]
    metrics: dict[str, list[float]]
    made_with: dict[str, Any] = field(default_factory=dict)
    """`SamplePlan.made_with`; vpo 0.2.0 did not write it."""
    pictures: list[list[str]] = field(default_factory=list)
    """`SamplePlan.pictures`: nothing, or one list for each prompt."""

    @property
    def of(self) -> tuple[list[str], list[list[str]], list[str]]:
        """What the videos are of, by which two evaluations can be compared."""
        return self.prompts, self.pictures, self.files

    def table(self) -> dict[str, float]:
        """Each metric's mean."""
        return {key: sum(values) / len(values) for key, values in self.metrics.items()}

    def save(self, folder: Path) -> None:
        """Raises `OutputError`."""
        files.write(folder / METRICS, json.dumps(asdict(self)))

    @staticmethod
    def load(folder: Path) -> Results:
        """Raises `DataError`."""
        try:
            found = TypeAdapter(Results).validate_json((folder / METRICS).read_bytes())
            counts = {len(found.groups), len(found.files), *(len(values) for values in found.metrics.values())}
            if len(counts) > 1 or not all(0 <= group < len(found.prompts) for group in found.groups):
                raise ValueError("its lists do not fit together")
            if len(found.pictures) not in (0, len(found.prompts)):
                raise ValueError("its pictures are not those of its prompts")
            if any(Path(file).name != file or file in ("", "..") for file in found.files):
                raise ValueError("its videos do not lie beside it")
            return found
        except (OSError, ValueError) as error:
            what = " ".join(str(error).split())[:300]
            raise DataError(f"{folder / METRICS} cannot be read: {what}") from error


def videos(
    model: VideoModel, plan: SamplePlan, batches: Sequence[slice] | None = None, encode: PromptCache | None = None
) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Items with their videos ``[B, F, 3, H, W]``, for all batches of the plan or some; a video's noise depends on its
    own seed alone. Raises `DataError` for one that is not finite.
    """
    settings = plan.settings
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    encode = encode or PromptCache(model)
    batches = plan.batches if batches is None else batches
    asked = dict.fromkeys(i for batch in batches for i, _ in plan.items[batch])
    made_from = [settings.negative_prompt, *(plan.inputs[i] for i in asked)]
    encode.ahead([(item, settings) for item in made_from])
    guidance = model.guidance(settings, encode([settings.negative_prompt]))
    for batch in batches:
        items, seeds = plan.items[batch], plan.seeds[batch]
        part = encode([plan.inputs[i] for i, _ in items])
        with torch.no_grad():
            noise = draw_noise(shape, seeds, model.device)
            latents = sample(model, part, noise=noise, steps=settings.steps, guidance=guidance)
            video = model.decode(latents)
        check_finite(video, [plan.prompts[i] for i, _ in items])
        yield items, video  # outside: a caller that stops here must not be left without gradients


def evaluate(
    model: VideoModel,
    plan: SamplePlan,
    judges: Sequence[Reward],
    folder: Path,
    name: str,
    tick: Callable[[int], None],
    measures: Sequence[Measure] = ALWAYS,
    processes: Processes | None = None,
    encode: PromptCache | None = None,
) -> Results:
    """Sample, write the videos and ``metrics.json`` into `folder`, and measure; `tick` gets the number just done.

    A finished video leaves a small file with its metrics, under what it is known by. When the same is asked for again
    it is not made again, and the result is that of an undisturbed run, file by file; where prompts were added, taken
    away or put in another order meanwhile, what is there of those that are asked for stays. Of several processes,
    which must see the same disk, each makes its share of the batches; the files are those that one process makes.

    Where the model declares the truth of a made world and all prompts speak of it, its metrics are there too.

    Raises `ConfigError` for a judge with a metric's name, `DataError` for a score that is not finite.
    """
    check_names(judges)
    truth = truth_of(model, plan.settings, plan.prompts)
    parts, processes = Parts(folder, plan.made_with), processes or Processes()
    if processes.is_main:
        _take_up(folder, plan, parts)
    known = processes.agree({key for key in plan.keys if parts.done(key)})
    missing = [batch for batch in plan.batches if not known.issuperset(plan.keys[batch])]
    tick(sum(batch.stop - batch.start for batch in plan.batches if batch not in missing))
    own = processes.share(missing)
    batches = own + missing[:1] * (processes.lockstep(len(own)) - len(own))  # whose results are not kept
    made = videos(model, plan, batches, encode) if batches else ()
    for i, (items, video) in enumerate(made):
        if i < len(own):
            texts = [plan.prompts[prompt] for prompt, _ in items]
            found = measure(video, texts, judges, plan.settings.fps, measures, truth)
            found |= pictured.agreement(video, [inputs_of(plan.inputs[prompt]) for prompt, _ in items])
            for row, key in enumerate(plan.keys[own[i]]):
                if key not in known:
                    write_video(parts.video(key), video[row], plan.settings.fps)
                    parts.put(key, {name: values[row] for name, values in found.items()})
        tick(sum(batch.stop - batch.start for batch in missing[i * processes.count : (i + 1) * processes.count]))
    processes.wait()
    metrics = parts.joined(plan.keys)
    result = Results(
        name=name,
        prompts=list(plan.prompts),
        groups=[i for i, _ in plan.items],
        files=plan.files,
        metrics=metrics,
        made_with=plan.made_with,
        pictures=plan.pictures,
    )
    processes.wait()  # all have read the parts
    if processes.is_main:
        _number(folder, plan, parts)
        result.save(folder)
        parts.drop()
    return result


def finished(folder: Path, plan: SamplePlan | None = None) -> Results | None:
    """What `evaluate` has left in `folder`, where it came to its end there, and with these prompts where a plan is
    given. Raises `DataError`.
    """
    if not (folder / METRICS).is_file():
        return None
    found = Results.load(folder)
    if plan is not None and found.of != (plan.prompts, plan.pictures, plan.files):
        return None
    shutil.rmtree(folder / PARTS, ignore_errors=True)  # of one that was killed just before it did so
    return found


def _take_up(folder: Path, plan: SamplePlan, parts: Parts) -> None:
    """Make parts again of what a whole evaluation of other prompts in the folder has of this plan's."""
    if not (folder / METRICS).is_file():
        return
    old, wanted = Results.load(folder), set(plan.keys)
    seen: Counter[int] = Counter()
    for row, (group, file) in enumerate(zip(old.groups, old.files, strict=True)):
        shown = old.pictures[group] if old.pictures else []
        key = content.key(old.prompts[group], *shown, seen[group])
        seen[group] += 1
        if key in wanted and old.made_with == plan.made_with and (folder / file).is_file():
            files.link(folder / file, parts.video(key))
            parts.put(key, {name: values[row] for name, values in old.metrics.items()})
    files.remove(folder / METRICS)


def _number(folder: Path, plan: SamplePlan, parts: Parts) -> None:
    """Give all videos the names of their places; the metrics that are saved next bring the folder to the disk."""
    for path in folder.glob("*.mp4"):  # of other places
        files.remove(path)
    for file, key in zip(plan.files, plan.keys, strict=True):
        files.link(parts.video(key), folder / file)


def compare(before: Results, after: Results) -> dict[str, Paired]:
    """Paired change of every metric, corrected for their number, in the order of a table.

    Raises `DataError` when the two did not see the same prompts, pictures and seeds.
    """
    if before.of != after.of:
        raise DataError(f"{before.name} and {after.name} were not evaluated on the same prompts, pictures and seeds")
    shared = ordered(key for key in before.metrics if key in after.metrics)
    return corrected({key: paired(before.metrics[key], after.metrics[key], before.groups) for key in shared})
