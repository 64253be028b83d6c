"""A deep network is planned by three of its blocks, and the plan is that of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vpo_kit.library import plan as command
from vpo_kit.planning import rehearsal
from vpo_kit.planning.estimate import Subject
from vpo_kit.planning.rehearsal import rehearse
from vpo_kit.planning.stacks import fold
from vpo_kit.testing.families import FAMILIES

DEEP: dict[str, dict[str, Any]] = {
    "wan2.2-a14b": {"num_layers": 7},
    "hunyuan": {"num_layers": 5, "num_single_layers": 6},
    "cogvideox-5b": {"num_layers": 6, "text": 5},
}
FAST = ("cogvideox-5b",)


def subject(model: Path, method: str, *sets: str) -> Subject:
    recipe = command._recipe({"model": str(model), "method": method}, None, ["evaluation.num_prompts=2", *sets])
    return command.subject_of(recipe, 1)


def deep(name: str, folder: Path) -> Path:
    pipeline, sizes = FAMILIES[name].build(), dict(DEEP[name])
    if (layers := sizes.pop("text", None)) is not None:
        text = pipeline.text_encoder
        text.config.num_layers = layers
        pipeline.register_modules(text_encoder=type(text)(text.config))
    for part in ("transformer", "transformer_2"):
        if (network := getattr(pipeline, part, None)) is not None:
            pipeline.register_modules(**{part: type(network).from_config({**network.config, **sizes})})
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.mark.parametrize("sets", [["gradient_checkpointing=true"], ["lora.rank=32"]])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in DEEP])
def test_the_plan_is_that_of_all_blocks(
    name: str, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, LoRA and arithmetic exactly, the peak of each phase but for what a block gives and nothing keeps."""
    sizes = ["batch_size=2", "sampling.frames=9", "sampling.height=32", "sampling.width=32", "sampling.steps=2"]
    planned = subject(deep(name, tmp_path), "dpo", *sizes, *sets)
    found = rehearse(planned)
    monkeypatch.setattr(rehearsal, "_folded", lambda *_: {})
    whole = rehearse(planned)
    assert found.parameters == whole.parameters
    assert found.passes == whole.passes
    for phase, parts in whole.phases.items():
        assert {part: found.phases[phase][part] for part in ("weights", "text")} == {
            part: parts[part] for part in ("weights", "text")
        }
        assert sum(found.phases[phase].values()) == pytest.approx(sum(parts.values()), rel=0.02)
        flops = [sum(op.flops * n for op, n in one.ops[phase].items()) for one in (found, whole)]
        assert flops[0] == flops[1]


class Net(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for width in widths)


def test_only_like_neighbours_are_folded() -> None:
    network = Net(2, 2, 2, 2, 3, 2, 2)
    middle = network.blocks[1]
    assert fold(network) == {middle: 2}
    assert [block.weight.shape[0] for block in network.blocks] == [2, 2, 2, 3, 2, 2]
    assert fold(Net(2, 2, 2)) == {}


def test_a_lora_in_some_blocks_is_planned_with_all(tmp_path: Path) -> None:
    """Where the blocks are not alike, none stands for another."""
    folder = deep("cogvideox-5b", tmp_path)
    one, all_ = ("[transformer_blocks.4.attn1.to_q]", "[attn1.to_q]")
    planned = [subject(folder, "dpo", f"lora.targets={t}", "evaluation.num_prompts=0") for t in (one, all_)]
    counts = [rehearse(made).parameters["lora"] for made in planned]
    assert 6 * counts[0] == counts[1]
    assert torch.tensor(counts).all()


def test_what_waits_elsewhere(tmp_path: Path) -> None:
    """With group offload the plan of a step holds the weights of two blocks of six at most, and does as much
    arithmetic; with activation offload it does not hold what the blocks begin with.
    """
    folder, found = deep("cogvideox-5b", tmp_path), []
    for own in ("seed=0", "group_offload=true", "activation_offload=true"):
        sets = ["gradient_checkpointing=true", own, "evaluation.num_prompts=0"]
        found.append(rehearse(subject(folder, "dpo", *sets)))
    assert found[2].phases["step"]["activations"] < 0.9 * found[0].phases["step"]["activations"]
    assert found[2].phases["step"]["weights"] == found[0].phases["step"]["weights"]
    network = FAMILIES["cogvideox-5b"].build().transformer
    block = sum(tensor.nbytes for tensor in network.transformer_blocks[0].parameters())
    saved = found[0].phases["step"]["weights"] - found[1].phases["step"]["weights"]
    assert 4 * block <= saved < 5 * block  # a backward pass lets go of its block piece by piece
    assert found[0].flops == found[1].flops
    assert found[0].parameters == found[1].parameters
