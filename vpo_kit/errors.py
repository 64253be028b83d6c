"""Every error that a user can meet, on one screen.

The text of each is one line: what is wrong, where, and what to do. The command line prints it without a traceback
and ends with `exit_code`.
"""

from __future__ import annotations


class VpoError(Exception):
    """Base of all errors that are not our own mistakes."""

    exit_code = 1


class ConfigError(VpoError):
    """A recipe, an option or a name is wrong."""

    exit_code = 2


class DataError(VpoError):
    """A prompt file, a clip or a data set cannot be used."""


class ModelError(VpoError):
    """A model, LoRA or reward cannot be loaded or does not fit."""


class OutputError(VpoError):
    """The output folder cannot be written, or is in use."""


class CheckpointError(VpoError):
    """No checkpoint of a run can be used."""


class LostProcessError(VpoError):
    """Another process of the run has ended or does not answer."""


class InterruptedRunError(VpoError):
    """A run was asked to end by a signal, and has saved all that it did; `exit_code` is what a shell expects then."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class HealthError(VpoError):
    """A run was stopped by a health check; `check` is the name by which it can be turned off."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


def is_memory_full(error: BaseException) -> bool:
    """Whether an error is torch's that a GPU's memory is full; torch is not imported for it."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)


def memory_full(error: BaseException) -> str:
    """What to do about it, behind what torch says."""
    said = first_line(error).split(". ")[0]
    return f"{said}: vpo plan --memory SIZE, with the run's own options, says what would make it fit (docs/memory.md)"


def first_line(error: BaseException) -> str:
    """What another library's error says in its first line that is not empty; some print pages, some nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
