"""Training steps of the real architectures that are measured, the most valuable first, and what each of them is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks import plans
from vpo_kit.planning.estimate import Subject
from vpo_kit.rewards import loading as rewards

WAN, WAN_14B = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers"
LTX, COGVIDEOX = "Lightricks/LTX-Video", "THUDM/CogVideoX-5b"
NAMES = {WAN: "Wan 2.1 1.3B", WAN_14B: "Wan 2.1 14B", LTX: "LTX-Video 2B", COGVIDEOX: "CogVideoX 5B"}
TEXT: dict[str, dict[str, tuple[int, ...]]] = {
    WAN: {"embeds": (512, 4096)},
    WAN_14B: {"embeds": (512, 4096)},
    LTX: {"embeds": (128, 4096), "mask": (128,)},
    COGVIDEOX: {"embeds": (226, 4096)},
}
"""Shapes of one encoded prompt: random numbers stand for it, as the text encoder takes no part in a step."""

REHEARSED = {"frames": 9, "height": 64, "width": 64}
ONE_LAYER: dict[str, dict[str, dict[str, Any]]] = {
    WAN: {"transformer": {"num_layers": 1, "num_attention_heads": 2, "ffn_dim": 64}, "vae": {"base_dim": 8}},
    LTX: {
        "transformer": {"num_layers": 1, "num_attention_heads": 2, "cross_attention_dim": 128},
        "vae": {"block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4},
    },
    COGVIDEOX: {
        "transformer": {"num_layers": 1, "num_attention_heads": 2},
        "vae": {"block_out_channels": (32,) * 4, "layers_per_block": 1},
    },
}  # fmt: skip
ONE_LAYER[WAN_14B] = ONE_LAYER[WAN]
"""What of each component's configuration is smaller in a rehearsal."""

CHECKPOINTS: dict[str, Any] = {"gradient_checkpointing": True}
ONE_BY_ONE: dict[str, Any] = {"micro_batch_size": 1}
SHORT: dict[str, Any] = {"sampling": {"frames": 17, "batch_size": 1}}
ONLINE: dict[str, Any] = {
    **CHECKPOINTS,
    "micro_batch_size": 1,
    "method": {"num_draws": 1, "num_candidates": 2, "rollout_steps": 2, "updates_per_rollout": 1},
}
INSTRUCT: dict[str, Any] = {**CHECKPOINTS, **ONE_BY_ONE, "vae": ["tiling"], "method": {"chain_steps": 5}}


@dataclass(frozen=True)
class Case:
    """One configuration; `seconds` at most in all, `rounds` timed steps after one that warms up (none without it).

    `extra` needs packages that the others must not see.
    """

    model: str
    method: str
    what: str
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 60
    rounds: int = 2
    warm: bool = True
    extra: bool = False

    @property
    def name(self) -> str:
        return f"{NAMES[self.model]} / {self.method} / {self.what}"

    def subject(self) -> Subject:
        """What `vpo plan` plans, and what is measured."""
        return plans.subject(self.model, self.method, self.settings)

    def rehearsal(self) -> Subject:
        """The same for a processor: float32 (many are slow in bfloat16), the smallest video, the embedded judge."""
        found = self.subject()
        sampling = found.run.sampling.model_copy(update=REHEARSED)
        run = found.run.model_copy(update={"sampling": sampling, "dtype": "float32"})
        return replace(found, run=run, reward=rewards.plan("vqa", {}) if found.reward else [])


def _pairs(count: int) -> dict[str, Any]:
    return {"batch_size": count}


CASES = [
    Case(WAN, "dense", "checkpointing", CHECKPOINTS),
    Case(WAN, "dense", "checkpointing, micro-batch 1", {**CHECKPOINTS, **ONE_BY_ONE}, rounds=1, warm=False),
    Case(WAN, "dense", "17 frames", SHORT),
    Case(WAN, "dense", "17 frames, checkpointing", {**SHORT, **CHECKPOINTS}, rounds=3),
    Case(WAN, "dense", "17 frames, micro-batch 1", {**SHORT, **ONE_BY_ONE}, rounds=3),
    Case(WAN, "online", "checkpointing, micro-batch 1, 2 candidates of 2 steps", ONLINE, rounds=1, warm=False),
    Case(WAN, "instruct", "checkpointing, micro-batch 1, tiling, chain of 5", INSTRUCT, rounds=1, warm=False),
    Case(LTX, "dense", "checkpointing", CHECKPOINTS),
    Case(COGVIDEOX, "dense", "checkpointing", CHECKPOINTS, rounds=1),
    Case(WAN, "dense", "17 frames, checkpointing, 4 pairs", {**SHORT, **CHECKPOINTS, **_pairs(4)}),
    Case(WAN, "dense", "17 frames, checkpointing, compile", {**SHORT, **CHECKPOINTS, "compile": True}, 120, 3),
    Case(
        WAN, "dense", "17 frames, checkpointing, xformers", {**SHORT, **CHECKPOINTS, "attention": "xformers"},
        extra=True,
    ),
    Case(WAN_14B, "dense", "17 frames, checkpointing, micro-batch 1", {**SHORT, **CHECKPOINTS, **ONE_BY_ONE}, 90, 1),
    Case(LTX, "dense", "nothing"),
    Case(WAN_14B, "dense", "checkpointing, micro-batch 1", {**CHECKPOINTS, **ONE_BY_ONE}, 120, 1, False),
]  # fmt: skip
BY_NAME = {case.name: case for case in CASES}
