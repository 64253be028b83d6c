"""Checks that stop a run which looks busy and is not improving the model, or warn of it.

Pure functions over the logged reports. They look at evidence: at what is far from chance given how many labels were
seen, at the link's own start, and at nothing before the warm-up is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from vpo_kit import config
from vpo_kit.errors import ConfigError, HealthError
from vpo_kit.registry import nearest

Report = dict[str, float]


@dataclass(frozen=True)
class Facts:
    """What the checks know of a run beside its log: the steps of its warm-up, how many steps they look back over, loss
    and slope of a preference loss where policy and reference are the same (None for other losses), and whether the
    labels are fixed ones, of which a method should get more and more right.
    """

    warmup_steps: int = 0
    window: int = 10
    start: tuple[float, float] | None = None
    fixed_labels: bool = False


@dataclass(frozen=True)
class Finding:
    """What a check has found; a run is stopped by it, or goes on with a warning."""

    message: str
    stop: bool = True


Check = Callable[[Sequence[Report], Facts], Finding | None]
AT_START = 1e-3
"""A loss that is nearer to its start than this share of it has not moved."""
CHANCE = 0.53
"""An accuracy that is surely below this has not been learned."""
PATIENCE = 10
"""Windows that an order may stay at chance: small steps show late, and a run may then have moved by too little."""
WARN, STOP = 0.05, 0.10
"""Rises of the winner's error, relative to the reference's."""
SPENT = 0.02
"""Share of the first gradient under which nothing is left of a pair's."""
ALIKE = 0.1
"""A share of prompts with an advantage that is too small to learn from."""
CLIPPED = 0.9
"""Share of ratios beyond the clip at which a run has left its rollouts."""
APART, RUN_AWAY = 0.1, 0.5
"""Squared distances of trained and old policy, relative to the old one's outputs."""
COLLAPSED = 0.6
"""Share of the motion at the start under which videos have stopped moving."""
WORDS_WARN, WORDS_STOP = 0.02, 0.10
"""Falls of the share of right words beyond three of its errors: a check that looks at every step would else see one in
a long run that is well.
"""


def no_learning(history: Sequence[Report], facts: Facts) -> Finding | None:
    """The policy stays where the reference is, or the order of fixed pairs stays at chance."""
    rows = history[facts.warmup_steps :]
    recent = [row for row in rows[-2 * facts.window :] if "implicit_accuracy" in row and row.get("labels")]
    if len(rows) < 3 * facts.window or not recent or facts.start is None:
        return None
    accuracy, error = _accuracy(recent)
    off = max(abs(row["loss"] - facts.start[0]) for row in recent)
    if off < AT_START * facts.start[0] and accuracy < 0.5 + 2 * error:
        return Finding(
            f"the loss has stayed at {facts.start[0]:.3f}, where policy and reference are the same: "
            "raise optimiser.lr or method.beta"
        )
    everything = [row for row in rows if "implicit_accuracy" in row and row.get("labels")]
    accuracy, error = _accuracy(everything)
    if facts.fixed_labels and accuracy + 2 * error < CHANCE:
        return Finding(
            f"of {sum(row['labels'] for row in everything):.0f} labels {accuracy:.1%} are in the right order, as by "
            "chance: vpo pair signal says whether the pairs can teach anything, and at what rate",
            stop=len(rows) >= PATIENCE * facts.window,
        )
    return None


def winner_error(history: Sequence[Report], facts: Facts) -> Finding | None:
    """The winner's error rises: the model gets worse at what it should prefer, which a margin does not show."""
    rises = [row["winner_error_change"] for row in history[-facts.window :] if "winner_error_change" in row]
    loser = _mean(history[-facts.window :], "loser_error_change")
    if len(rises) < facts.window or loser is None:
        return None
    rise = fmean(rises)
    error = stdev(rises) / math.sqrt(len(rises)) if len(rises) > 1 else 0.0
    if rise - 2 * error < WARN:
        return None
    message = f"the errors of winners and losers have changed by {rise:+.0%} and {loser:+.0%}: "
    return Finding(message + "lower optimiser.lr, let it fall (optimiser.schedule), or raise method.beta", rise > STOP)


def margin_runaway(history: Sequence[Report], facts: Facts) -> Finding | None:
    """Nothing is left of the gradient of nearly every pair."""
    factor = _mean(history[-facts.window :], "gradient_factor")
    if len(history) < facts.window or factor is None or facts.start is None:
        return None
    share = factor / facts.start[1]
    if share > SPENT:
        return None
    return Finding(
        f"the margin has run away ({share:.1%} of the gradient is left): lower method.beta or set method.margin_cap"
    )


def motion_collapse(history: Sequence[Report], facts: Facts) -> Finding | None:
    """The policy's videos move much less than they did at the start of the run."""
    before, now = _mean(history[: facts.window], "motion"), _mean(history[-facts.window :], "motion")
    if len(history) < 2 * facts.window or before is None or now is None or now > COLLAPSED * before:
        return None
    return Finding(
        f"motion has fallen from {before:.4f} to {now:.4f}: the reward prefers still videos, mix in another one"
    )


def text_lost(history: Sequence[Report], facts: Facts) -> Finding | None:
    """The policy's videos show less of what their captions say than at the start of the run.

    The error is the binomial one over clips, `text_clips`. Words are more than clips, but those of one clip, and the
    candidates of one prompt, are right or wrong together.
    """
    rows = [row for row in history if row.get("text_clips")]
    if len(rows) < 2 * facts.window or rows[-1] is not history[-1]:
        return None
    (before, before_error), (now, now_error) = _words(rows[: facts.window]), _words(rows[-facts.window :])
    sure = before - now - 3 * math.hypot(before_error, now_error)
    if sure < WORDS_WARN:
        return None
    return Finding(_lost(before, now), sure > WORDS_STOP)


def lost_words(before: float, after: float, high: float) -> str | None:
    """The warning for a share of right words on held-out prompts that a whole run has changed; `high` is the upper end
    of the change's interval. None where it may have kept them.
    """
    return _lost(before, after) if high < -WORDS_WARN else None


def _lost(before: float, now: float) -> str:
    return (
        f"right words of the captions have fallen from {before:.1%} to {now:.1%}: the reward does not see them, mix in "
        "one that does, lower optimiser.lr or stop earlier"
    )


def no_advantage(history: Sequence[Report], facts: Facts) -> Finding | None:
    """Candidates of a prompt all have the same score: nothing can be learned from how they differ."""
    share = _mean(history[-facts.window :], "informative")
    if len(history) < facts.window or share is None or share > ALIKE:
        return None
    return Finding(
        f"in {1 - share:.0%} of the prompts all candidates have the same score: raise method.num_candidates, or take a "
        "reward that tells them apart",
        share == 0,
    )


def ratio_clipped(history: Sequence[Report], facts: Facts) -> Finding | None:
    """The policy leaves the range of ratios nearly everywhere: what is left of the gradient is chance."""
    share = _mean(history[-facts.window :], "ratio_clipped")
    if len(history) < facts.window or share is None or share < CLIPPED:
        return None
    return Finding(
        f"{share:.0%} of the ratios are beyond the clip: lower optimiser.lr or method.updates_per_rollout, or raise "
        "method.clip"
    )


def old_policy(history: Sequence[Report], facts: Facts) -> Finding | None:
    """The trained policy runs away from the old one that samples: what is learned from is no longer its own."""
    distances = [row["old_distance"] for row in history[-facts.window :] if "old_distance" in row]
    if len(distances) < facts.window:
        return None
    far = fmean(distances)
    if far < APART:
        return None
    return Finding(
        f"the trained policy's outputs are {far:.0%} (squared) apart from the old one's: lower optimiser.lr, "
        "method.old_decay or method.updates_per_rollout",
        far > RUN_AWAY,
    )


def one_sided(history: Sequence[Report], facts: Facts) -> Finding | None:
    """Verdicts that are all good or all bad: there is nothing to hold a video against."""
    share = _mean(history[-facts.window :], "good_share")
    if len(history) < facts.window or share is None or 0 < share < 1:
        return None
    return Finding(
        f"all videos are {'good' if share else 'bad'} ones: move method.good_above, or give verdicts of both kinds"
    )


CHECKS: dict[str, Check] = {
    "no_learning": no_learning,
    "winner_error": winner_error,
    "margin_runaway": margin_runaway,
    "motion_collapse": motion_collapse,
    "text_lost": text_lost,
    "no_advantage": no_advantage,
    "ratio_clipped": ratio_clipped,
    "old_policy": old_policy,
    "one_sided": one_sided,
}


def validate(settings: config.Health) -> None:
    """Raises `ConfigError` for a check that does not exist."""
    for name in settings.disable:
        if name not in (*CHECKS, "not_finite"):
            raise ConfigError(f"health.disable: unknown check {name!r}{nearest(name, [*CHECKS, 'not_finite'])}")


def look(history: Sequence[Report], facts: Facts, disabled: Sequence[str]) -> dict[str, Finding]:
    """What the checks that are not `disabled` find at the history's last row, by check. Nothing is stopped by it."""
    found = {name: test(history, facts) for name, test in CHECKS.items() if name not in disabled}
    return {name: one for name, one in found.items() if one is not None}


def check(history: Sequence[Report], facts: Facts, disabled: Sequence[str]) -> dict[str, str]:
    """Warnings by check. Raises `HealthError` with the name of the first check that stops the run at the history's last
    row.
    """
    step, row = len(history), history[-1]
    bad = [key for key, value in row.items() if not math.isfinite(value)]
    if bad and "not_finite" not in disabled:
        raise HealthError("not_finite", f"step {step}: {', '.join(bad)} is not finite; the last checkpoint is kept")
    warnings = {}
    for name, found in look(history, facts, disabled).items():
        if found.stop:
            hint = f"(--set health.disable=[{name}] turns this check off)"
            raise HealthError(name, f"step {step}: {found.message} {hint}")
        warnings[name] = f"step {step}: {found.message}"
    return warnings


def _mean(rows: Sequence[Report], key: str) -> float | None:
    values = [row[key] for row in rows if key in row]
    return fmean(values) if values else None


def _accuracy(rows: Sequence[Report]) -> tuple[float, float]:
    """Share of labels in the right order, and its standard error under chance."""
    count = sum(row["labels"] for row in rows)
    return sum(row["implicit_accuracy"] * row["labels"] for row in rows) / count, 0.5 / math.sqrt(count)


def _words(rows: Sequence[Report]) -> tuple[float, float]:
    """Share of right words, and its standard error; with none wrong an error remains, as of one in so many clips."""
    clips = sum(row["text_clips"] for row in rows)
    share = sum(row["text_accuracy"] * row["text_clips"] for row in rows) / clips
    smooth = (share * clips + 1) / (clips + 2)
    return share, math.sqrt(smooth * (1 - smooth) / clips)
