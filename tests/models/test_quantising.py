"""The extra `quantised`: an optimiser whose state takes eight bits, and a frozen network whose weights do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.support.commands import main_ok
from vpo_kit import models
from vpo_kit.config import Lora, Optimiser, build
from vpo_kit.errors import ConfigError
from vpo_kit.library.export import notes
from vpo_kit.models.quantising import check_quantise
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.families import FAMILIES
from vpo_kit.training import checkpoints, loras, optimisers
from vpo_kit.training.checkpoints import Checkpoint
from vpo_kit.training.lora import LoraPolicy

PROMPTS = ["a red circle moving right slowly", "a blue square circling quickly"]


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"{name} is not installed: pip install 'vpo-kit[quantised]'"
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=reason)


def problem(values: dict[str, object]) -> str:
    from vpo_kit.training import recipe

    with pytest.raises(ConfigError) as caught:
        recipe.check(build(values))
    return str(caught.value)


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for values, start in (
        ({"quantise": "int8"}, "quantise: int8 needs torchao: "),
        ({"quantise": "nf4"}, "quantise: nf4 needs bitsandbytes: "),
        ({"optimiser": {"name": "adamw_8bit"}}, "optimiser.name: adamw_8bit needs bitsandbytes: "),
    ):
        found = problem(values)
        assert found.startswith(start + "pip install 'vpo-kit[quantised]'")
        assert "\n" not in found


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in ((64, 128), (16, 3))]


def steps(optimiser: torch.optim.Optimizer, values: list[nn.Parameter], first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step + 1)
        for value in values:
            value.grad = torch.randn(value.shape, generator=generator)
        optimiser.step()
        optimiser.zero_grad()


@needs("bitsandbytes")
@pytest.mark.filterwarnings("ignore")  # of the package, as it loads
def test_the_state_takes_eight_bits_and_the_steps_are_near() -> None:
    values, exact = parameters(), parameters()
    small = optimisers.build(Optimiser(name="adamw_8bit", lr=1e-2, weight_decay=0.01), values)
    plain = optimisers.build(Optimiser(lr=1e-2, weight_decay=0.01), exact)
    start = [value.detach().clone() for value in values]
    steps(small, values, 0, 10)
    steps(plain, exact, 0, 10)
    assert {small.state[values[0]][name].dtype for name in ("state1", "state2")} == {torch.uint8}
    for found, expected, began in zip(values, exact, start, strict=True):
        assert (found - expected).norm() < 0.05 * (expected - began).norm()


@needs("bitsandbytes")
@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_eight_bits_goes_on_exactly(tmp_path: Path) -> None:
    """Through the run's own checkpoints, which are read without pickle."""
    settings = Optimiser(name="adamw_8bit", lr=1e-2)
    values = parameters()
    optimiser = optimisers.build(settings, values)
    steps(optimiser, values, 0, 4)
    checkpoints.save(
        tmp_path,
        Checkpoint(step=4, policy={}, reference=None, method={}, optimiser=optimiser.state_dict(), best={}),
        keep=1,
    )
    found = checkpoints.latest(tmp_path)
    assert found is not None
    others = [nn.Parameter(value.detach().clone()) for value in values]
    other = optimisers.build(settings, others)
    other.load_state_dict(found[0].optimiser)
    steps(optimiser, values, 4, 9)
    steps(other, others, 4, 9)
    assert all(torch.equal(one, two) for one, two in zip(values, others, strict=True))


@needs("bitsandbytes")
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_is_resumed_is_the_undisturbed_one(tiny_wan: Path, tmp_path: Path) -> None:
    sets = ["batch_size=1", "evaluation.num_prompts=0", "method.num_candidates=2", "sampling.steps=2"]
    sets += ["optimiser.name=adamw_8bit", "lora.rank=192", "lora.alpha=192", "checkpoints.every=1"]
    flags = [part for text in sets for part in ("--set", text)]
    for name, runs in (("whole", [[3]]), ("parts", [[2], [3, "--resume"]])):
        for number, *more in runs:
            main_ok(["train", "--model", tiny_wan, "--output", tmp_path / name, "--steps", number, *more, *flags])
    one, two = (tmp_path / name for name in ("whole", "parts"))
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    whole, parts = (load_file(path / "lora" / "pytorch_lora_weights.safetensors") for path in (one, two))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    state = checkpoints.latest(tmp_path / "parts" / "checkpoints")
    assert state is not None
    assert torch.uint8 in dtypes(state[0].optimiser["state"])


def dtypes(state: dict[Any, Any]) -> set[torch.dtype]:
    inner = [dtypes(value) for value in state.values() if isinstance(value, dict)]
    return {value.dtype for value in state.values() if isinstance(value, torch.Tensor)}.union(*inner)


NEAR = {"int8": 0.03, "fp8": 0.06, "nf4": 0.2}
"""How far the output may be off, relative to its length."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["wan2.1", "ltx", "animatediff"])
@pytest.mark.parametrize(
    "how", [pytest.param("int8", marks=needs("torchao")), "fp8", pytest.param("nf4", marks=needs("bitsandbytes"))]
)
def test_a_quantised_base(how: str, name: str, tmp_path: Path) -> None:
    """Small numbers in nearly every linear layer, near the exact output; the LoRA gets its gradient and leaves no base
    behind.
    """
    torch.manual_seed(0)
    FAMILIES[name].build().save_pretrained(tmp_path, safe_serialization=True)
    if (how, name) == ("nf4", "animatediff"):
        with pytest.raises(ConfigError, match=r"^quantise: nf4 is not for UNetMotionModel: use int8 or fp8$"):
            models.load(str(tmp_path), quantise=how)
        return
    exact, model = (models.load(str(tmp_path), quantise=kind) for kind in ("none", how))
    linear = [m for m in model.network.modules() if isinstance(m, nn.Linear)]
    kept = [m for m in linear if type(m.weight.data) is torch.Tensor and m.weight.dtype != torch.uint8]
    assert len(kept) < (0.2 if how == "int8" else 0.4) * len(linear)
    family = FAMILIES[name]
    x = draw_noise(model.latent_shape(family.frames, family.size, family.size), [1, 2])
    t = model.schedule.network_time(model.time_sampler(None, model.settings, model.networks).draw([1, 2]))
    conditions = model.encode_prompts(PROMPTS)
    assert torch.equal(conditions.tensors["embeds"], exact.encode_prompts(PROMPTS).tensors["embeds"])
    with torch.no_grad():
        expected, found = exact.predict(x, t, conditions), model.predict(x, t, conditions)
    assert 0 < (found - expected).norm() < NEAR[how] * expected.norm()
    policy = LoraPolicy(model, Lora(rank=2, alpha=4), seed=0)
    assert {p.dtype for p in policy.parameters} == {torch.float32}
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.05)
    model.predict(x, t, conditions).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in policy.parameters)
    with torch.no_grad(), policy.reference():
        assert torch.equal(model.predict(x, t, conditions), found)
    policy.export(tmp_path / "lora")
    with loras.loaded(models.load(str(tmp_path), quantise=how), tmp_path / "lora"):
        pass  # it is known for a LoRA of this model
    exact.pipeline.load_lora_weights(str(tmp_path / "lora"), weight_name="pytorch_lora_weights.safetensors")
    with torch.no_grad():
        own, other = model.predict(x, t, conditions), exact.predict(x, t, conditions)
    assert (own - other).norm() < NEAR[how] * other.norm()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "how", [pytest.param("int8", marks=needs("torchao")), "fp8", pytest.param("nf4", marks=needs("bitsandbytes"))]
)
def test_a_run_on_a_quantised_base(how: str, tiny_wan: Path, tmp_path: Path) -> None:
    sets = ["batch_size=1", "evaluation.num_prompts=0", "method.num_candidates=2", "sampling.steps=2"]
    sets += [f"quantise={how}", "dtype=bfloat16", "gradient_checkpointing=true", "offload=true"]
    flags = [part for text in sets for part in ("--set", text)]
    main_ok(["train", "--model", tiny_wan, "--output", tmp_path / "run", "--steps", 2, *flags])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # policy and reference are one
    assert all(row["grad_norm"] > 0 for row in rows)
    assert notes(tmp_path / "run") == [f"trained on a base in {how}: it is put on the exact one, and compared there"]


def test_none_needs_nothing() -> None:
    check_quantise("none")
    optimisers.check("adamw")
