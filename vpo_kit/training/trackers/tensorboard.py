"""TensorBoard: ``tensorboard --logdir RUN/tracking``. Videos are animated pictures, which its page plays."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from vpo_kit.training.trackers.base import Tracker
from vpo_kit.video import read_video


class TensorBoard(Tracker):
    """Events in TensorBoard's own format, written by its own library through torch."""

    package = "tensorboard"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))
        self._begun = False
        shown = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
        self._writer.add_text("settings", "".join(f"    {line}\n" for line in shown.splitlines()), 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not self._begun:
            self._drop_from(step)
        self._begun = True
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def table(self, step: int, name: str, rows: Sequence[Sequence[str]]) -> None:
        cells = [" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows]
        self._writer.add_text(name, "\n".join([cells[0], "|".join("-" for _ in rows[0]), *cells[1:]]), step)

    def video(self, step: int, name: str, path: Path, caption: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        found = read_video(path)
        pictures = [Image.fromarray(one) for one in (found.frames.permute(0, 2, 3, 1) * 255).byte().numpy()]
        held = io.BytesIO()
        pictures[0].save(
            held, format="GIF", save_all=True, append_images=pictures[1:], duration=1000 / found.fps, loop=0
        )
        width, height = pictures[0].size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=held.getvalue())
        self._writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
        self._writer.add_text(f"{name} prompt", caption, step)

    def close(self) -> None:
        self._writer.close()

    def _drop_from(self, step: int) -> None:
        """What an earlier process wrote of this step and later ones does not count: readers forget it."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._writer._get_file_writer().add_event(
            Event(step=step, session_log=SessionLog(status=SessionLog.START)), step
        )
