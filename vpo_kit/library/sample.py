"""Videos from prompts."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from vpo_kit import files
from vpo_kit.errors import ConfigError, OutputError
from vpo_kit.evaluation.samples import SamplePlan, videos
from vpo_kit.inputs import Inputs, inputs_of
from vpo_kit.library.models import ready
from vpo_kit.models.base import VideoModel
from vpo_kit.models.tokens import cut_short
from vpo_kit.video import write_video


@dataclass(frozen=True, eq=False)
class Video:
    """One video, `frames` ``[F, 3, H, W]`` in [0, 1] on the CPU; a notebook shows it as a player."""

    prompt: str
    frames: Tensor
    fps: float
    path: Path | None = None
    """The file in which it lies, if it was written."""

    def save(self, path: Path | str) -> None:
        """Write it as an mp4 file. Raises `OutputError`."""
        write_video(Path(path), self.frames, self.fps)

    def _repr_html_(self) -> str:
        with TemporaryDirectory() as folder:
            self.save(Path(folder) / "video.mp4")
            data = base64.b64encode((Path(folder) / "video.mp4").read_bytes()).decode()
        return f'<video autoplay loop muted controls src="data:video/mp4;base64,{data}"></video>'


def sample(
    prompts: str | Sequence[str | Inputs],
    *,
    model: VideoModel | str | None = None,
    lora: Path | str | None = None,
    output: Path | str | None = None,
    seed: int = 0,
    config: Path | str | None = None,
    **settings: Any,
) -> list[Video]:
    """One video for each prompt, or prompt with pictures (`vpo_kit.inputs.Inputs`), of a model by name or one that is
    loaded, with the LoRA of a run or without.

    With `output` they are written to that folder as ``000-0.mp4``, ``001-0.mp4`` and so on. The noise of a prompt
    follows from the prompt and `seed`. `settings` are those of `load_model`; of a loaded model, only `sampling` can be
    changed, and is then as before. Raises `ConfigError`, `ModelError` or `OutputError`.
    """
    return list(each(prompts, model=model, lora=lora, output=output, seed=seed, config=config, **settings))


def each(
    prompts: str | Sequence[str | Inputs],
    *,
    model: VideoModel | str | None = None,
    lora: Path | str | None = None,
    output: Path | str | None = None,
    seed: int = 0,
    config: Path | str | None = None,
    on_notice: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Iterator[Video]:
    """The videos of `sample`, one after the other as they are made; `on_notice` is told of prompts that are cut."""
    wanted = [inputs_of(item) for item in ([prompts] if isinstance(prompts, str) else prompts)]
    if not wanted or not all(item.prompt.strip() for item in wanted):
        raise ConfigError("there is no prompt, or an empty one")
    folder = Path(output) if output is not None else None
    if folder is not None and not files.bare(folder):
        raise OutputError(f"{folder} is not empty: give another --output")
    file, weights = Path(config) if config else None, Path(lora) if lora is not None else None
    with ready(model, weights, file, settings) as (made, sampling):
        made.check_inputs(wanted)
        if line := cut_short(made, wanted):
            on_notice(line)
        plan = SamplePlan(
            inputs=wanted, videos_per_prompt=1, settings=made.settings, batch_size=sampling.batch_size, seed=seed
        )
        for items, batch in videos(made, plan):
            for (i, k), video in zip(items, batch.cpu(), strict=True):
                path = folder / f"{i:03d}-{k}.mp4" if folder is not None else None
                if path is not None:
                    write_video(path, video, made.settings.fps)
                yield Video(wanted[i].prompt, video, made.settings.fps, path)
