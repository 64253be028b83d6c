"""A LoRA for sampling alone: there in every step of a chain without a graph, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.commands import main_ok
from vpo_kit import models
from vpo_kit.cli import main
from vpo_kit.config import Lora, Sampling, build
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.library.models import load_model, ready
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import draw_noise, sample
from vpo_kit.training import loras, recipe
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.sampling_lora import attach, attached

PROMPTS = ["a red circle moving right slowly"]


def moved(policy: LoraPolicy, seed: int) -> LoraPolicy:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture
def quick(tiny_wan: Path, tmp_path: Path) -> Path:
    """A LoRA of other layers and another rank than a run's, with an alpha."""
    targets = ["to_q", "to_out.0", "ffn.net.2"]
    moved(LoraPolicy(models.load(str(tiny_wan)), Lora(rank=3, alpha=6, targets=targets), seed=3), 3).export(
        tmp_path / "quick"
    )
    return tmp_path / "quick"


@torch.no_grad()
def chain(model: VideoModel) -> Tensor:
    return sample(model, model.encode_prompts(PROMPTS), noise=draw_noise((8, 3, 4, 4), [1]), steps=3)


def predicted(model: VideoModel) -> Tensor:
    return model.predict(draw_noise((8, 3, 4, 4), [2]), torch.tensor([500.0]), model.encode_prompts(PROMPTS))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_chain_has_it_as_the_pipeline_would(strength: float, tiny_wan: Path, quick: Path) -> None:
    """As with the LoRA loaded by diffusers at that strength; a pass is that of the bare model, with a graph or not."""
    model, plain = (models.load(str(tiny_wan)) for _ in range(2))
    bare = chain(plain)
    remove = attach(model, Sampling(lora=quick, lora_strength=strength))
    with torch.no_grad():
        assert torch.equal(predicted(model), predicted(plain))
    loras.load(plain, quick)
    plain.pipeline.set_adapters("default_0", strength)
    found = chain(model)
    torch.testing.assert_close(found, chain(plain), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, bare, atol=1e-2)
    remove()
    assert torch.equal(chain(model), bare)


def test_it_is_beside_whatever_lora_is_active(tiny_wan: Path, quick: Path) -> None:
    """Beside the policy's and beside the reference, both of which train and leave as they would without it."""
    model, plain = (models.load(str(tiny_wan)) for _ in range(2))
    attach(model, Sampling(lora=quick))
    policy, other = (moved(LoraPolicy(m, Lora(rank=2, alpha=2), seed=0), 0) for m in (model, plain))
    own = chain(model)
    with policy.reference():
        reference = chain(model)
    gradients = [torch.autograd.grad(predicted(m).square().mean(), p.parameters) for m, p in
                 ((model, policy), (plain, other))]  # fmt: skip
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))
    states = policy.state(), other.state()
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())
    assert states[0].keys() == states[1].keys()
    assert not torch.equal(own, chain(plain))
    bare = models.load(str(tiny_wan))
    loras.load(bare, quick)
    torch.testing.assert_close(reference, chain(bare), atol=1e-5, rtol=1e-5)


def test_steps_with_a_graph_do_without(tiny_wan: Path, quick: Path) -> None:
    """Were a gradient to pass, the last step would be the policy's alone."""
    model = models.load(str(tiny_wan))
    noise, conditions = draw_noise((8, 3, 4, 4), [1]), model.encode_prompts(PROMPTS)
    plain = sample(model, conditions, noise=noise, steps=1, grad_steps=1)
    with attached(model, Sampling(lora=quick)):
        assert torch.equal(sample(model, conditions, noise=noise, steps=1, grad_steps=1), plain)


def test_strength_0_is_none(tiny_wan: Path, quick: Path) -> None:
    model = models.load(str(tiny_wan))
    bare = chain(model)
    with attached(model, Sampling(lora=quick, lora_strength=0)):
        assert torch.equal(chain(model), bare)


def test_a_run_with_it(tiny_wan: Path, quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its rollouts are others, resumed it goes on exactly, the export has the names that it had, and the file is known
    by what is in it.
    """
    sets = ["batch_size=1", "method.num_candidates=2", "evaluation.num_prompts=0", "lora.rank=2"]
    flags = [part for text in sets for part in ("--set", text)]
    for name, more in (
        ("without", []),
        ("with", [f"sampling.lora={quick}"]),
        ("parts", [f"sampling.lora={quick}"]),
    ):
        own = [part for text in more for part in ("--set", text)]
        steps = (1, 2) if name == "parts" else (2,)
        for count in steps:
            again = ["--resume"] if count == 2 and name == "parts" else []
            output = tmp_path / name
            main_ok(["train", "--model", tiny_wan, "--output", output, "--steps", count, *again, *flags, *own])
    logs = {name: (tmp_path / name / "metrics.jsonl").read_bytes() for name in ("without", "with", "parts")}
    assert logs["with"] == logs["parts"]
    assert logs["with"] != logs["without"]
    files = [load_file(tmp_path / name / "lora" / "pytorch_lora_weights.safetensors") for name in ("without", "with")]
    assert files[0].keys() == files[1].keys()
    assert "LoRA of sampling.lora" in json.loads((tmp_path / "with" / "contents.json").read_text())
    with (quick / "pytorch_lora_weights.safetensors").open("ab") as file:
        file.write(b" ")
    resumed = ["train", "--output", str(tmp_path / "with"), "--resume", "--steps", "3"]
    with pytest.raises(SystemExit):
        main(resumed)
    assert "the LoRA of sampling.lora changed since the run" in capsys.readouterr().err


def test_a_run_is_sampled_as_it_was_rolled_out(tiny_wan: Path, quick: Path) -> None:
    """The sampling section of a command has it too; a model that was loaded before is left without."""
    model = load_model(str(tiny_wan), sampling={"lora": quick})
    plain = models.load(str(tiny_wan))
    assert not torch.equal(chain(model), chain(plain))
    with ready(plain, None, None, {"sampling": {"lora": str(quick)}}) as (made, _):
        assert torch.equal(chain(made), chain(model))
    assert not torch.equal(chain(plain), chain(model))


def test_what_cannot_be_is_one_line(tiny_wan: Path, quick: Path, tmp_path: Path) -> None:
    for values, words in (
        ({"method": "draft"}, "sampling.lora: method 'draft' learns through steps of the chain"),
        ({"method": "grpo"}, "sampling.lora: method 'grpo' learns through steps of the chain"),
        ({"compile": True}, "compile: sampling.lora comes and goes"),
    ):
        with pytest.raises(ConfigError) as caught:
            recipe.check(build({"model": str(tiny_wan), "sampling": {"lora": str(quick)}, **values}))
        assert str(caught.value).startswith(words)
    with pytest.raises(ModelError, match="holds no LoRA"):
        recipe.check(build({"model": str(tiny_wan), "sampling": {"lora": str(tmp_path / "none")}}))
