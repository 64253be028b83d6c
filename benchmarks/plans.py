"""``python -m benchmarks.plans``: memory and arithmetic of real architectures, estimated; the tables of docs/gpu.md.

Nothing is downloaded, no GPU is needed, and the weights are never made. What is in the results already is kept: delete
the file to make all of it anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import open_clip

from benchmarks import facts
from vpo_kit import config
from vpo_kit.planning.estimate import Subject
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.registry import METHODS
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.clip import HPSv2
from vpo_kit.rewards.images import CLIP_MEAN, CLIP_STD, Prepare, TextImageReward
from vpo_kit.rewards.parts.openclip import OpenClip

RESULTS = facts.RESULTS / "plans.json"
PAGE = Path(__file__).parent.parent / "docs" / "gpu.md"
BEGIN, END = "<!-- tables: python -m benchmarks.plans -->", "<!-- end of tables -->"

MODELS = {
    "Wan 2.1 1.3B": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "Wan 2.1 14B": "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "LTX-Video 2B": "Lightricks/LTX-Video",
    "CogVideoX 5B": "THUDM/CogVideoX-5b",
}
CHECKPOINTS = {"gradient_checkpointing": True}
LEAST = {**CHECKPOINTS, "offload": True, "micro_batch_size": 1}
SAVINGS: dict[str, dict[str, dict[str, Any]]] = {
    "dense": {
        "nothing": {},
        "checkpointing": CHECKPOINTS,
        "checkpointing, micro-batch 1, offload": LEAST,
        "the same, activation offload": {**LEAST, "activation_offload": True},
        "the same, activation and group offload": {**LEAST, "activation_offload": True, "group_offload": True},
        "the same, activation offload, nf4": {**LEAST, "activation_offload": True, "quantise": "nf4"},
    },
    "online": {
        "checkpointing": CHECKPOINTS,
        "checkpointing, micro-batch 1, offload": {
            **CHECKPOINTS, "offload": True, "micro_batch_size": 1, "method": {"num_draws": 1}
        },
    },
    "instruct": {
        "nothing": {},
        "checkpointing, micro-batch 1, offload, tiling": {**LEAST, "vae": ["tiling"]},
    },
}  # fmt: skip
DATA = {"dense": "pairs", "online": "prompts", "instruct": "videos"}
COLUMNS = ["weights", "lora", "activations", "autoencoder", "reward", "text"]
"""Parts of the memory as the tables show them; the reference counts as part of the LoRA."""


class FrameReward(HPSv2):
    """HPSv2, the reward of InstructVideo's paper, as large as the real one and without weights."""

    def __init__(self, config: Any = None) -> None:
        TextImageReward.__init__(self, config)
        network = OpenClip.__new__(OpenClip)
        super(OpenClip, network).__init__()
        network.network = open_clip.create_model("ViT-H-14", device="meta").eval()
        network.prepare = Prepare((224, 224), "pad", CLIP_MEAN, CLIP_STD)
        network.tokenize = open_clip.get_tokenizer("ViT-H-14")
        self.network = network


def subject(model: str, method: str, saving: dict[str, Any]) -> Subject:
    """One process's smallest step: a pair, a prompt's four candidates, a clip."""
    kind = METHODS.load(method)
    own = {"num_draws": 1} if method == "online" else {}
    changes = {**saving, "method": {"name": method, **own, **saving.get("method", {})}}
    smallest = {"batch_size": 1, "sampling": {"batch_size": 1}, "lora": {"rank": 16}}
    run = config.build({"model": model, "dtype": "bfloat16", **smallest, **changes})
    settings = config.validate(kind.Config, {k: v for k, v in run.method.items() if k != "name"}, "method.")
    reward = rewards.plan("benchmarks.plans:FrameReward" if method == "instruct" else "vqa", {})
    return Subject(
        run=run,
        method=kind,
        method_config=settings,
        reward=reward if kind.needs.reward != "none" else [],
        judges=[],
        data=DATA[method],
    )


def row(model: str, method: str, saving: dict[str, Any]) -> dict[str, Any]:
    found = rehearse(subject(model, method, saving))
    s = found.settings
    return {
        "frames": s.frames, "height": s.height, "width": s.width, "steps": s.steps,
        "parameters": found.parameters, "bytes": found.phases, "peak": found.peak, "phase": found.worst,
        "passes": found.passes, "flops": found.flops,
    }  # fmt: skip


def shown(value: dict[str, Any]) -> dict[str, float]:
    """The figures of a row of the tables: GB of each part at the moment of the peak, the peak, PFLOP of a step."""
    parts = value["bytes"][value["phase"]]
    held = {c: parts[c] + (parts["reference"] if c == "lora" else 0) for c in COLUMNS}
    gigabytes = {key: round(count / 1e9, 1) for key, count in {**held, "peak": value["peak"]}.items()}
    return {**gigabytes, "passes": value["passes"], "PFLOP": round(value["flops"] / 1e15, 2)}


def keep(rows: dict[str, Any]) -> None:
    """The file as it is so far; a row that is there already keeps its own commit."""
    facts.write("plans", {"command": "python -m benchmarks.plans", "rows": rows})


def tables(results: dict[str, Any]) -> str:
    """The tables of docs/gpu.md, one for each model."""
    lines: list[str] = []
    for name in MODELS:
        found = {key: value for key, value in results.items() if key.startswith(f"{name} / ")}
        first = next(iter(found.values()))
        lines += [
            f"### {name}", "",
            f"{first['frames']} frames of {first['width']} x {first['height']}, {first['steps']} sampling steps; "
            f"{first['parameters']['weights'] / 1e9:.2f}B parameters, {first['parameters']['lora'] / 1e6:.1f}M in the "
            "LoRA.", "",
            "| method, savings | weights | LoRA | activations | autoencoder | reward | text | **peak GB** | passes "
            "| PFLOP |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]  # fmt: skip
        for key, value in found.items():
            _, method, saving = key.split(" / ")
            figures = value["shown"]
            cells = " | ".join(f"{figures[c]:.1f}" for c in COLUMNS)
            lines.append(
                f"| {method}, {saving} | {cells} | **{figures['peak']:.1f}** | {figures['passes']:g} "
                f"| {figures['PFLOP']:.2f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    results: dict[str, Any] = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else {}
    wanted = [(name, method, saving) for name in MODELS for method in SAVINGS for saving in SAVINGS[method]]
    for name, method, saving in sorted(wanted, key=lambda one: one[1] == "instruct"):  # which takes longest
        key = f"{name} / {method} / {saving}"
        if key not in results:
            made = row(MODELS[name], method, SAVINGS[method][saving])
            results[key] = {"commit": facts.facts()["commit"], "shown": shown(made), **made}
            keep(results)
            print(key, results[key]["shown"]["peak"], "GB", file=sys.stderr)
    if list(results) != (order := [f"{name} / {method} / {saving}" for name, method, saving in wanted]):
        results = {key: results[key] for key in order}
        keep(results)
    facts.fill(PAGE, BEGIN, END, f"\n\n{tables(results)}\n")


if __name__ == "__main__":
    main()
