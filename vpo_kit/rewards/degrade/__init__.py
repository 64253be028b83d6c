"""What diffusion videos do wrong, imitated: each degradation is a function of (clip, window, severity, rng).

Shapes: a clip's video is ``[F, 3, H, W]`` in [0, 1]; ``window = (start, end)`` is half open; severity is 1 to
5. The result is the degraded video; frames outside the window are untouched, except for the kinds in `WHOLE`,
whose trace is not confined to a window. For one clip, window and state of `rng`, severities are ordered: the
draws are the same and only the amount changes, so they form a chain to rank.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

import vpo_kit.rewards.degrade.motion as motion
import vpo_kit.rewards.degrade.picture as picture
import vpo_kit.rewards.degrade.untaught as untaught
from vpo_kit.rewards.degrade.drawn import Drawn, Rng
from vpo_kit.rewards.degrade.tools import Window as Window

Degradation = Callable[[Drawn, Window, int, Rng], Tensor]
SEVERITIES = (1, 2, 3, 4, 5)
DEGRADATIONS: dict[str, Degradation] = {
    "blur": picture.soft,
    "downup": picture.downup,
    "noise": picture.noise,
    "grain": picture.grain,
    "residual": picture.residual,
    "blocks": picture.blocks,
    "flicker": picture.flicker,
    "drift": picture.drift,
    "saturate": picture.saturate,
    "dull": picture.dull,
    "jitter": motion.jitter,
    "boil": motion.boil,
    "morph": motion.morph,
    "ghost": motion.ghost,
    "fade": motion.fade,
    "vanish": motion.vanish,
    "pop": motion.pop,
    "freeze": motion.freeze,
    "stutter": motion.stutter,
    "shuffle": motion.shuffle,
    "drop": motion.drop,
    "slow": motion.slow,
    "collapse": motion.collapse,
    "static": motion.static,
}
UNTAUGHT: dict[str, Degradation] = {
    "fringe": untaught.fringe,
    "echo": untaught.echo,
    "tear": untaught.tear,
    "comb": untaught.comb,
    "posterise": untaught.posterise,
    "ringing": untaught.ringing,
    "pulse": untaught.pulse,
    "hue": untaught.hue,
    "stuck": untaught.stuck,
    "speckle": untaught.speckle,
    "ripple": untaught.ripple,
    "teleport": untaught.teleport,
    "halve": untaught.halve,
}
"""Flaws on which neither `vqa` nor `gold` was trained."""
WHOLE = frozenset({"drop", "slow", "collapse", "static"})  # no frame labels: the trace is not confined to the window
MILD = frozenset({"slow"})  # clean all the same: less motion costs a little, never as much as a flaw
