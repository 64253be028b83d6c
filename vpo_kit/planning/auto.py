"""``micro_batch_size: auto``: how many videos go through the network with a graph at once, by what fits the device."""

from __future__ import annotations

from dataclasses import replace

from vpo_kit.errors import ConfigError
from vpo_kit.planning.advice import fits
from vpo_kit.planning.estimate import Subject
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.planning.repeats import Known

MOST = 1024


def micro_batch_size(subject: Subject, memory: int) -> int | None:
    """The largest power of two of videos that fits `memory` bytes at once, or None where all videos of a step do.

    The gradient is the same whichever it is. Raises `ConfigError` where not even one video fits.
    """

    known = Known()

    def does(size: int | None) -> bool:
        run = subject.run.model_copy(update={"micro_batch_size": size})
        return fits(rehearse(replace(subject, run=run), known), memory)

    if does(None):
        return None
    if not does(1):
        raise ConfigError(
            "micro_batch_size: not even one video at a time fits this device: vpo plan --memory SIZE says what helps"
        )
    found = 1
    while found < MOST and does(2 * found):
        found *= 2
    return found
