"""A fault that is planted in an adapter is found, by the check whose matter it is and by its figure."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vpo_kit import sampler
from vpo_kit.errors import ConfigError
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.ltx import LTXModel
from vpo_kit.models.wan import WanModel
from vpo_kit.testing import adapter
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.finding import AdapterFinding, apart
from vpo_kit.testing.parity import Case, make, open_case


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {name: make(FAMILIES[name], tmp_path_factory.mktemp(name)) for name in ("wan2.1", "ltx")}


def reversed_guidance(predict: Any, x_t: Tensor, time: Tensor, conditions: Any, guidance: Any) -> Tensor:
    if guidance is None or guidance.at(time) == 1:
        return GUIDED(predict, x_t, time, conditions, guidance)
    turned = sampler.Guidance(guidance.scale, conditions)
    return GUIDED(predict, x_t, time, guidance.negative.expand(len(x_t)), turned)


def encoded_together(model: Any, prompts: Sequence[str]) -> Conditions:
    """What a prompt becomes depends on its neighbours."""
    found = ENCODE(model, prompts)
    return Conditions({name: value + value.mean(0) for name, value in found.tensors.items()})


def without_graph(model: Any, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
    """The last block's LoRA alone is reached."""
    first, *_ = model.network.blocks
    hook = first.register_forward_hook(lambda module, given, output: output.detach())
    try:
        return PREDICT(model, latents, time, conditions)
    finally:
        hook.remove()


def unfrozen(model: Any, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
    model.network.proj_out.weight.requires_grad_(True)
    return PREDICT(model, latents, time, conditions)


def one_late(model: Any, latents: Tensor, frames: Sequence[int] | None = None) -> Tensor:
    return DECODE(model, latents, frames and [max(0, frame - 1) for frame in frames])


def shifted(model: Any, steps: int, shape: Sequence[int]) -> Any:
    scheduler = type(model.pipeline.scheduler).from_config(model.pipeline.scheduler.config, flow_shift=1.0)
    scheduler.set_timesteps(steps)
    return scheduler


GUIDED, ENCODE, PREDICT, DECODE = sampler.guided, WanModel.encode_prompts, WanModel.predict, WanModel.decode
SAMPLED = "video as the pipeline's own"


@dataclass(frozen=True)
class Fault:
    """What is wrong, in which attribute of what, and the check and the line that must find it."""

    where: Any
    name: str
    wrong: Any
    found: tuple[str, str]


FAULTS = {
    "guidance reversed": Fault(sampler, "guided", reversed_guidance, ("video", f"{SAMPLED}, at guidance 4")),
    "scaled wrongly for decoding": Fault(
        WanModel, "denormalise", lambda self, z: 1.01 * z, ("video", f"{SAMPLED}, without guidance")
    ),
    "scaled wrongly from encoding": Fault(
        WanModel, "normalise", lambda self, z: z, ("autoencoder", "encode and decode as the autoencoder alone")
    ),
    "another chain": Fault(WanModel, "new_scheduler", shifted, ("video", f"{SAMPLED}, without guidance")),
    "not packed": Fault(LTXModel, "pack", lambda self, x: x, ("latents", "latents as the pipeline prepares them")),
    "frames are one late": Fault(WanModel, "decode", one_late, ("frames", "a few frames as those of the whole clip")),
    "a prompt's neighbours": Fault(
        WanModel, "encode_prompts", encoded_together, ("batch", "two videos in a batch as each alone")
    ),
    "a graph that ends": Fault(
        WanModel, "predict", without_graph, ("DPO step", "LoRA weights that a DPO step does not reach")
    ),
    "trained weights of the base": Fault(
        WanModel, "predict", unfrozen, ("DPO step", "frozen weights that got a gradient")
    ),
    "layers that are not there": Fault(WanModel, "lora_targets", ["nothing"], ("LoRA file", "LoRA file")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fault, case = FAULTS[name], cases["ltx" if FAULTS[name].where is LTXModel else "wan2.1"]
    check, what = fault.found
    monkeypatch.setattr(fault.where, fault.name, fault.wrong)
    found = {one.what: one for one in adapter.run(check, case)}
    case.model.network.proj_out.weight.requires_grad_(False).grad = None
    assert found[what].passed is False, found[what].line()


def test_an_error_is_a_finding_that_names_its_line(
    cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vpo_broken.py").write_text(
        "from vpo_kit.models.wan import WanModel\n\nclass Broken(WanModel):\n    def predict(self, *given):\n"
        "        return given[0] @ given[0].new_ones(3, 3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    case = cases["wan2.1"]
    model = importlib.import_module("vpo_broken").Broken(case.model.pipeline, None, "broken")
    (found,) = adapter.run("batch", replace(case, model=model))
    assert found.passed is False
    assert found.line().startswith("FAILS batch: inf (at most 0); RuntimeError: ")
    assert found.line().endswith(" (vpo_broken.py, line 5)")
    assert "\n" not in found.line()


def test_sizes_and_arguments_are_checked_first(cases: dict[str, Case]) -> None:
    folder = str(cases["wan2.1"].folder)
    small = open_case(folder, more={"max_sequence_length": 8})
    assert (small.call.frames, small.call.height, small.call.width) == (9, 32, 48)
    with pytest.raises(ConfigError, match=r"WanPipeline has no argument 'guidance' \(did you mean 'guidance_scale'"):
        open_case(folder, more={"guidance": 2})
    with pytest.raises(ConfigError, match="the nearest that do are 9 frames of 48 x 32"):
        open_case(folder, frames=10)


def test_a_finding_keeps_its_bound_or_not() -> None:
    one = torch.zeros(2)
    assert apart("x", one, one + 0.1, 0.2).passed
    assert apart("x", one, one[:1], 0.2).passed is False, "other shapes are infinitely far apart"
    assert apart("x", one, one * float("nan"), 0.2).passed is False
    assert AdapterFinding(what="x", figure=None, bound=1).passed is None
    assert AdapterFinding(what="x", figure=0.5, bound=1, least=True).passed is False
    assert AdapterFinding(what="x", figure=0.5, bound=1, note="why").line() == "ok    x: 0.5 (at most 1); why"


def test_a_pipeline_that_cannot_be_given_its_noise(cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases["wan2.1"]
    call = type(case.plain).__call__
    monkeypatch.setattr(type(case.plain), "__call__", lambda self, prompt, **named: None)
    (found,) = adapter.run("latents", case)
    assert "the call of WanPipeline does not use its prepare_latents" in found.line()
    monkeypatch.setattr(type(case.plain), "__call__", call)
    monkeypatch.delattr(type(case.plain), "prepare_latents")
    (found,) = adapter.run("video", case)
    assert "WanPipeline has no prepare_latents, by which it could be given its noise" in found.line()
