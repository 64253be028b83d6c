"""The claims that are comparisons, each as the arguments of `vpo compare`. All share the sets of `sets.make`."""

from __future__ import annotations

from benchmarks.claims.compared import Claim

SEEDS = ("--seeds", "3")
IMAGE = "benchmarks.claims.image:Frames"
SETS = ("--pairs", "guided", "--independent-pairs", "independent", "--videos", "clips", "--prompts", "prompts.txt")
PAIRS = ("dpo", "structural", "dense")
PASSES = ("--budget", "network_passes=12000", "--set", "validation.share=0")
BUDGET = ("--budget", "optimiser_steps=40", "--set", "validation.share=0")


def offline(*methods: str) -> tuple[str, ...]:
    """Rates and draws of the methods that learn from finished pairs, found on seed 0 of `dense`, the same for all.

    Their gradient is small beside the noise of single draws: at the default rate the training loss rises above ln 2.
    """
    values = ("optimiser.lr=1e-3", "method.num_draws=4")
    return tuple(word for method in methods for value in values for word in ("--set", f"{method}:{value}"))


EIGHT = tuple(
    word for value in ("num_candidates=8", "num_pairs=3", "rollout_steps=8") for word in ("--set", f"method.{value}")
)
CONSISTENCY = ("gold", "vqa", "flawed", "motion", "warp_error", "flicker")
INSTRUCT = (
    "--methods", "instruct", "--videos", "clips", "--reward", "vqa", *SEEDS, "--budget", "optimiser_steps=24",
    "--set", "validation.share=0",
)  # fmt: skip
LABELS = ("flip20", "flip40", "half", "third", "voted", "short", "long")

CLAIMS: dict[str, Claim] = {
    # All methods at equal optimiser steps: DenseDPO, table 1; OnlineVPO, online against offline; InstructVideo, table 1
    "methods": Claim(
        (
            "--methods", "sft,dpo,structural,dense,online,instruct,draft", *SETS, *SEEDS, *BUDGET, *offline(*PAIRS),
            "--set", "online:method.reference_every=10", "--vary", "online:method.reference_update=never,hard",
        ),
        [
            ("structural", "dpo"), ("dense", "dpo"), ("dense", "structural"), ("dense", "sft"),
            ("online method.reference_update=never", "dpo"), ("online method.reference_update=hard", "dpo"),
            ("online method.reference_update=hard", "online method.reference_update=never"),
            ("instruct", "draft"), ("instruct", "online method.reference_update=hard"),
        ],
    ),
    # The same in minutes: what a first look costs
    "quick": Claim((
        "--methods", "online,dense,structural,dpo,sft,instruct,draft", *SETS, *SEEDS, "--budget", "optimiser_steps=10",
        "--set", "validation.share=0", *offline(*PAIRS),
    )),
    # DenseDPO: what the labels must be
    "labels": Claim(
        ("--methods", "dense", *SETS, *SEEDS, *BUDGET, *offline("dense"), "--vary", f"pairs={','.join(LABELS)}"),
        [*((f"dense pairs={name}", "methods/dense") for name in LABELS),
         ("dense pairs=voted", "methods/structural"), ("dense pairs=third", "methods/dpo"),
         ("dense pairs=flip40", "dense pairs=half"), ("dense pairs=flip20", "dense pairs=half")],
    ),
    # OnlineVPO: online against offline at equal network passes
    "passes": Claim(("--methods", "dpo,online", *SETS, *SEEDS, *PASSES, *offline("dpo")), [("online", "dpo")]),
    # The same with a reference that moves: that of `passes` would after 200 steps
    "moving": Claim(
        ("--methods", "online", *SETS, *SEEDS, *PASSES, "--set", "method.reference_every=5"),
        [("online", "passes/online"), ("online", "passes/dpo")],
    ),
    # OnlineVPO: a video reward against an image reward, three pairs from eight shorter rollouts
    "image": Claim(
        ("--methods", "online", *SETS, *SEEDS, *BUDGET, *EIGHT, "--vary", f"reward=vqa,{IMAGE}"),
        [("online reward=vqa", f"online reward={IMAGE}"), ("online reward=vqa", "methods/dpo"),
         ("online reward=vqa", "methods/online method.reference_update=hard")],
    ),
    # VideoAlign, table 3
    "beta": Claim(
        (
            "--methods", "structural", *SETS, *SEEDS, *BUDGET, *offline("structural"),
            "--set", "method.beta_schedule=squared",
        ),
        [("structural", "methods/structural")],
    ),
    # InstructVideo: what the same seconds are worth
    "time": Claim(
        (
            "--methods", "instruct,draft,dpo", *SETS, *SEEDS, "--budget", "seconds=90",
            "--set", "validation.share=0", *offline("dpo"),
        ),
        [("instruct", "draft"), ("instruct", "dpo")],
    ),
    # InstructVideo, 2 and 3: frames drawn from segments or every frame; weights of frames attenuated or equal
    "segments": Claim(
        (
            *INSTRUCT, "--set", "evaluation.temporal=true",
            "--vary", "method.segments=4,0", "--vary", "method.attenuation=normalised,none",
        ),
        [
            ("instruct method.segments=4 method.attenuation=normalised",
             "instruct method.segments=0 method.attenuation=normalised"),
            ("instruct method.segments=4 method.attenuation=normalised",
             "instruct method.segments=4 method.attenuation=none"),
        ],
        CONSISTENCY,
    ),
    # InstructVideo, 1: how much of the chain is run
    "tau": Claim(
        (*INSTRUCT, "--vary", "method.tau=0.1,0.3,0.9"),
        [(f"instruct method.tau={tau}", "segments/instruct method.segments=4 method.attenuation=normalised")
         for tau in (0.1, 0.3, 0.9)],
    ),
}  # fmt: skip
