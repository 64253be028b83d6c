"""What to switch on, one option after the other, until a run fits; each is tried in a rehearsal of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from vpo_kit.config import Run
from vpo_kit.errors import ConfigError
from vpo_kit.planning.estimate import Estimate, Subject
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.planning.repeats import Known

HEADROOM = 0.9
"""The share of a device's memory that a plan may fill: the rest is the driver's, kernels' workspace and gaps."""
WORTH = 0.98
"""A step of advice leaves at most this share of the peak."""
SMALL_TILE = 128
"""Pixels of a side that every family's tiles can have."""


@dataclass(frozen=True)
class Advice:
    """One setting to change, as ``--set`` takes it, and the peak in bytes with it and all before it."""

    setting: str
    peak: int


def fits(estimate: Estimate, memory: int) -> bool:
    return estimate.peak <= HEADROOM * memory


def advise(
    subject: Subject, estimate: Estimate, memory: int, most: int = 20, known: Known | None = None
) -> list[Advice]:
    """Settings that together make `subject` fit `memory` bytes, or as far as they get; those that cost nothing come
    first. At most `most` rehearsals are made, which share what is `known`.

    What does not help is tried again once something else has: where one part is by far the largest, no other matters.
    """
    known = {} if known is None else known
    found: list[Advice] = []
    impossible: set[str] = set()
    useless: set[str] = set()
    for _ in range(most):
        if fits(estimate, memory):
            break
        change = next((c for c in _changes(subject, estimate) if c.setting not in impossible | useless), None)
        if change is None:
            break
        try:
            new = rehearse(change.subject, known)
        except ConfigError:  # the family cannot do it
            impossible.add(change.setting)
            continue
        if new.peak <= WORTH * estimate.peak:
            subject, estimate, useless = change.subject, new, set()
            found.append(Advice(change.setting, new.peak))
        else:
            useless.add(change.setting)
    return found


@dataclass(frozen=True)
class _Change:
    setting: str
    subject: Subject


def _changes(subject: Subject, estimate: Estimate) -> Iterator[_Change]:
    """Settings that are not on yet and that touch what is large at the peak, the cheapest in time first."""
    run, parts = subject.run, estimate.phases[estimate.worst]
    large = {part for part, size in parts.items() if size > 0.05 * estimate.peak}
    sampling = run.sampling.batch_size
    if run.dtype == "float32":
        yield _with(subject, "dtype=bfloat16", dtype="bfloat16")
    if estimate.worst == "measure" and sampling > 1:
        yield _sampled(subject, max(1, sampling // 4))
    if not run.offload and large & {"autoencoder", "reward"}:
        yield _with(subject, "offload=true", offload=True)
    if not run.gradient_checkpointing and "activations" in large:
        yield _with(subject, "gradient_checkpointing=true", gradient_checkpointing=True)
    if sampling > 1 and large & {"autoencoder", "reward"}:
        yield _sampled(subject, max(1, sampling // 4))
    if run.micro_batch_size != 1 and "activations" in large:
        yield _with(subject, "micro_batch_size=1", micro_batch_size=1)
    # of a decoder with a graph it holds what each call remembers for the next
    kept = {"activations", *(("autoencoder",) if subject.method.needs.reward == "differentiable" else ())}
    if run.gradient_checkpointing and not run.activation_offload and large & kept:
        yield _with(subject, "activation_offload=true", activation_offload=True)
    for kind in ("slicing", "tiling"):
        if kind not in run.vae and "autoencoder" in large:
            yield _with(subject, f"vae=[{', '.join([*run.vae, kind])}]", vae=[*run.vae, kind])
    if "tiling" in run.vae and run.vae_tile_size is None and "autoencoder" in large:
        yield _with(subject, f"vae_tile_size={SMALL_TILE}", vae_tile_size=SMALL_TILE)
    swaps = run.gradient_checkpointing and not run.compile and run.quantise in ("none", "fp8")
    if not run.group_offload and swaps and "weights" in large:
        yield _with(subject, "group_offload=true", group_offload=True)
    if run.quantise == "none" and not run.group_offload and "weights" in large:
        yield _with(subject, "quantise=int8", quantise="int8")
    if run.quantise == "int8" and "weights" in large:
        yield _with(subject, "quantise=nf4", quantise="nf4")
    if run.optimiser.name == "adamw" and "lora" in large:
        changed = run.optimiser.model_copy(update={"name": "adamw_8bit"})
        yield _with(subject, "optimiser.name=adamw_8bit", optimiser=changed)
    if run.batch_size > subject.processes:
        half = max(subject.processes, run.batch_size // 2)
        yield _with(subject, f"batch_size={half}", batch_size=half)


def _with(subject: Subject, setting: str, **values: Any) -> _Change:
    changed: Run = subject.run.model_copy(update=values)
    return _Change(setting, replace(subject, run=changed))


def _sampled(subject: Subject, count: int) -> _Change:
    sampling = subject.run.sampling.model_copy(update={"batch_size": count})
    return _with(subject, f"sampling.batch_size={count}", sampling=sampling)
