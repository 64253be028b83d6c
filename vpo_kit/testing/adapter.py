"""What a right adapter does, check by check: the tests of the families here, and `vpo model check`."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from vpo_kit.models.base import VideoModel
from vpo_kit.testing import lora_checks, video_checks
from vpo_kit.testing.finding import AdapterFinding
from vpo_kit.testing.parity import Case

CHECKS: dict[str, Callable[[Case], Iterator[AdapterFinding]]] = {
    "latents": video_checks.latents_prepared,
    "video": video_checks.same_video,
    "batch": video_checks.batch,
    "entered chain": video_checks.entered_chain,
    "autoencoder": video_checks.autoencoder,
    "frames": video_checks.decoded_frames,
    "DPO step": lora_checks.dpo_step,
    "sampled gradient": lora_checks.sampled_gradient,
    "LoRA file": lora_checks.lora_file,
}
"""Each by a word, which names it where it ends with an error."""


def check(case: Case) -> Iterator[AdapterFinding]:
    """All checks in turn."""
    for name in CHECKS:
        yield from run(name, case)


def run(name: str, case: Case) -> Iterator[AdapterFinding]:
    """One of `CHECKS`; where it ends with an error it has failed."""
    try:
        yield from CHECKS[name](case)
    except Exception as error:  # an adapter that is not right yet may raise anything
        said = " ".join(str(error).split())[:300]
        note = f"{type(error).__name__}: {said}" if said else type(error).__name__
        yield AdapterFinding(what=name, figure=math.inf, bound=0, note=note + _place(case, error))


def _place(case: Case, error: BaseException) -> str:
    """The last line of the adapter's own file that the error came through."""
    kind = type(case.model)
    own = {sys.modules[one.__module__].__file__ for one in kind.__mro__[: kind.__mro__.index(VideoModel)]}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    return f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
