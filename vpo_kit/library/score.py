"""Clips judged by rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpo_kit import config, files, formats
from vpo_kit.clips.captions import captions, is_pair_set
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.library.sample import Video
from vpo_kit.pairing.segments import cut
from vpo_kit.rewards import loading
from vpo_kit.rewards.base import Mixture, Reward, RewardSpec, score_segments
from vpo_kit.video import SUFFIXES, motion, read_video

Clip = Path | str | Video


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One clip: each reward's score by its name, higher is better; mean change between frames; what the reader says;
    the same scores of its segments, with ``start`` and ``end`` in seconds, where they are asked for.
    """

    name: str
    prompt: str
    scores: Mapping[str, float]
    motion: float
    notice: str = ""
    segments: Sequence[Mapping[str, float]] | None = None


def load_reward(
    reward: str | None = None,
    *,
    device: str | None = None,
    config: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Mixture:
    """A reward or a mixture (``vqa:0.7+hpsv2:0.3``), on the GPU where there is one unless `device` says otherwise.

    `settings` are those of a recipe's reward section, of several rewards by name; `config` is a recipe whose section is
    the default. Its `fixed` scores videos ``[B, F, 3, H, W]`` in [0, 1]. Raises `ConfigError` or `ModelError`.
    """
    return loading.load(plans(reward, config, settings), device_of(device))


def plans(
    reward: str | None, file: Path | str | None = None, settings: Mapping[str, Any] | None = None
) -> list[loading.RewardPlan]:
    """The checked rewards of `reward` and `settings` over the reward section of `file`. Raises `ConfigError`."""
    below = formats.recipe(config.read_file(Path(file)), Path(file)).get("reward", {}) if file else {}
    above = {**(settings or {}), **({} if reward is None else {"name": reward})}
    found = config.merge({"reward": {"name": "vqa"}}, config.merge({"reward": below}, {"reward": above}))["reward"]
    return loading.plan(str(found["name"]), {key: value for key, value in found.items() if key != "name"})


def device_of(name: str | None) -> torch.device:
    """The device called `name`, by default the GPU where there is one. Raises `ConfigError` where there is none."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: there is no such device here") from error


def score(
    clips: Clip | Sequence[Clip],
    reward: str | Mixture | None = None,
    *,
    prompt: str | None = None,
    segment_seconds: float | None = None,
    device: str | None = None,
    config: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Scored]:
    """Every clip's scores, of files, folders of clips and videos that were sampled; `reward` as in `load_reward`, or
    one that it has loaded. With `segment_seconds` also those of its segments.

    A clip is judged by `prompt`, or by its caption in its folder, a sampled video by its own prompt. Raises `DataError`
    for a clip that cannot be read or judged, `ConfigError` where a reward needs prompts and there are none.
    """

    def stop(_: Path | Video, __: str, error: DataError) -> None:
        raise error

    if isinstance(reward, Mixture):
        judges = reward
    else:
        judges = load_reward(reward, device=device, config=config, settings=settings)
    given = [clips] if isinstance(clips, Clip) else list(clips)
    found: dict[Path | Video, str | None] = {}
    for clip in given:
        if isinstance(clip, Video):
            found[clip] = clip.prompt
        else:
            found.update(clips_of([Path(clip)], prompt).items())
    check_prompts([part.spec for part in judges.parts], found.values())
    return list(each(found, judges, stop, segment_seconds))


def check_prompts(specs: Iterable[RewardSpec], prompts: Iterable[str | None]) -> None:
    """Raises `ConfigError` where one of the rewards judges by the prompt and no clip has one."""
    needy = [spec.name for spec in specs if spec.needs_prompt]
    if needy and all(text is None for text in prompts):
        raise ConfigError(f"reward {needy[0]!r} judges a video by its prompt: give --prompt, or captions in the folder")


def each(
    clips: Mapping[Path | Video, str | None] | Mapping[Path, str | None],
    judges: Mixture,
    on_error: Callable[[Path | Video, str, DataError], None],
    segment_seconds: float | None = None,
) -> Iterator[Scored]:
    """Clip after clip by its prompt, one in memory at a time; one that cannot be read or judged goes to `on_error`."""
    needy = [part.spec.name for part in judges.parts if part.spec.needs_prompt]
    for clip, text in clips.items():
        try:
            if needy and text is None:
                raise DataError(f"{clip} has no caption, and reward {needy[0]!r} judges by it")
            yield _scored(clip, judges.parts, text or "", segment_seconds)
        except DataError as error:
            on_error(clip, text or "", error)


def _scored(clip: Path | Video, judges: Sequence[Reward], prompt: str, segment_seconds: float | None) -> Scored:
    if isinstance(clip, Video):
        return _judged(clip.prompt, clip.frames, clip.fps, judges, prompt, segment_seconds)
    footage = read_video(clip)
    notice = footage.notice or ""
    return replace(_judged(str(clip), footage.frames, footage.fps, judges, prompt, segment_seconds), notice=notice)


def _judged(
    name: str, frames: Tensor, fps: float, judges: Sequence[Reward], prompt: str, segment_seconds: float | None
) -> Scored:
    held = (tensor for judge in judges for tensor in (*judge.parameters(), *judge.buffers()))
    video = frames[None].to(next((tensor.device for tensor in held), torch.device("cpu")))
    parts = None if segment_seconds is None else cut(video.shape[1], fps, segment_seconds)
    with torch.no_grad():
        found = {judge.spec.name: score_segments(judge, video, [prompt], fps=fps, segments=parts) for judge in judges}
    made = Scored(
        name=name,
        prompt=prompt,
        scores={key: float(one.score) for key, one in found.items()},
        motion=float(motion(video)),
    )
    if parts is None:
        return made
    scores = {key: one.segments[0].tolist() for key, one in found.items() if one.segments is not None}
    return replace(
        made,
        segments=[
            {"start": start / fps, "end": end / fps, **{key: of[i] for key, of in scores.items()}}
            for i, (start, end) in enumerate(parts)
        ],
    )


def clips_of(paths: Sequence[Path], prompt: str | None) -> dict[Path, str | None]:
    """Every clip with its prompt, or None where it has none. Raises `DataError` where there is no clip, and for a
    listing that is damaged.
    """
    found: dict[Path, str | None] = {}
    for path in paths:
        if path.is_dir():
            own = _captions(path)
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            named = [p for p in own if p.is_file() and p.suffix.lower() in SUFFIXES and p not in inside]
            found |= {clip: prompt if prompt is not None else own.get(clip) for clip in [*inside, *named]}
        elif path.is_file():
            found[path] = prompt
        else:
            raise DataError(f"there is no {path}")
    if not found:
        raise DataError(f"no clips in {', '.join(map(str, paths))}: {', '.join(sorted(SUFFIXES))} are read")
    return found


def _captions(folder: Path) -> dict[Path, str]:
    """Captions by file; a pair set's listing has none. Raises `DataError` for a listing that is damaged."""
    if is_pair_set(folder):
        return {}
    return {
        folder / name: text.strip()
        for name, text in captions(folder)
        if isinstance(text, str) and text.strip() and _inside(folder, folder / name)
    }


def _inside(folder: Path, clip: Path) -> bool:
    try:
        return files.inside(folder, clip)
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False
