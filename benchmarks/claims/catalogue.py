"""The claims that are comparisons, each as the arguments of `vpo compare`. All share the sets of `sets.make`."""

from __future__ import annotations

from benchmarks.claims.compared import Claim

CONSISTENCY = ("gold", "vqa", "flawed", "motion", "warp_error", "flicker")
INSTRUCT = (
    "--videos", "clips", "--reward", "vqa", "--seeds", "3", "--budget", "optimiser_steps=24",
    "--set", "validation.share=0",
)  # fmt: skip

CLAIMS: dict[str, Claim] = {
    # InstructVideo, 2 and 3: frames drawn from segments or every frame; weights of frames attenuated or equal
    "segments": Claim(
        (
            "--methods", "instruct", *INSTRUCT, "--set", "evaluation.temporal=true",
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
        ("--methods", "instruct", *INSTRUCT, "--vary", "method.tau=0.1,0.3,0.6,0.9"),
        [("instruct method.tau=0.6", f"instruct method.tau={other}") for other in (0.1, 0.3, 0.9)],
    ),
}  # fmt: skip
