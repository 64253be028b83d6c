"""The claims that are comparisons, each as the arguments of `vpo compare`. All share the sets of `sets.make`."""

from __future__ import annotations

from benchmarks.claims.compared import Claim

SEEDS = ("--seeds", "3")
SETS = ("--pairs", "guided", "--independent-pairs", "independent", "--videos", "clips", "--prompts", "prompts.txt")
OFFLINE = ("--set", "validation.share=0", "--set", "batch_size=16", "--set", "method.num_draws=4")
"""Of the methods that learn from finished pairs: as many draws as it takes to get above the noise in a short run."""
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
            "--methods", "sft,dpo,structural,dense,online,instruct,draft", *SETS, *SEEDS,
            "--budget", "optimiser_steps=40", "--set", "validation.share=0",
            "--set", "online:method.reference_every=10", "--vary", "online:method.reference_update=never,hard",
        ),
        [
            ("structural", "dpo"), ("dense", "dpo"), ("dense", "structural"), ("dense", "sft"),
            ("online method.reference_update=never", "dpo"), ("online method.reference_update=hard", "dpo"),
            ("online method.reference_update=hard", "online method.reference_update=never"),
            ("instruct", "draft"), ("instruct", "online method.reference_update=hard"),
        ],
    ),
    # DenseDPO: what the labels must be
    "labels": Claim(
        (
            "--methods", "dense", *SETS, *SEEDS, "--budget", "optimiser_steps=40", "--set", "validation.share=0",
            "--vary", f"pairs=guided,{','.join(LABELS)}",
        ),
        [*((f"dense pairs={name}", "dense pairs=guided") for name in LABELS),
         ("dense pairs=flip40", "dense pairs=half"), ("dense pairs=flip20", "dense pairs=half")],
    ),
    # OnlineVPO: online against offline at equal network passes
    "passes": Claim(
        (
            "--methods", "dpo,online", *SETS, *SEEDS, "--budget", "network_passes=12000",
            "--set", "validation.share=0", "--set", "online:method.reference_every=10",
            "--vary", "online:method.reference_update=never,hard",
        ),
        [(f"online method.reference_update={update}", "dpo") for update in ("never", "hard")],
    ),
    # OnlineVPO: a video reward against an image reward
    "image": Claim(
        (
            "--methods", "online", *SETS, *SEEDS, "--budget", "optimiser_steps=40",
            "--vary", "reward.name=vqa,benchmarks.claims.image:Frames",
        ),
        [("online reward.name=vqa", "online reward.name=benchmarks.claims.image:Frames")],
    ),
    # VideoAlign, table 3
    "beta": Claim(
        (
            "--methods", "structural", *SETS, *SEEDS, "--budget", "optimiser_steps=40", "--set", "validation.share=0",
            "--vary", "method.beta_schedule=constant,squared",
        ),
        [("structural method.beta_schedule=squared", "structural method.beta_schedule=constant")],
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
        (*INSTRUCT, "--vary", "method.tau=0.1,0.3,0.6,0.9"),
        [("instruct method.tau=0.6", f"instruct method.tau={other}") for other in (0.1, 0.3, 0.9)],
    ),
}  # fmt: skip
