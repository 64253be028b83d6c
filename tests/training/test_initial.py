"""A run that starts from a finished LoRA: policy and reference begin there, and nothing else does."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.brief_runs import BRIEF, PROMPTS
from tests.support.commands import fails, main_ok
from vpo_kit import config, losses, models
from vpo_kit.config import Lora
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.library import export
from vpo_kit.models.base import VideoModel
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.runs import train_briefly
from vpo_kit.training import initial
from vpo_kit.training.export import probe
from vpo_kit.training.lora import WEIGHTS_NAME, LoraPolicy
from vpo_kit.training.loras import loaded

RANK, ALPHA = 3, 4.0


def remove(policy: LoraPolicy) -> None:
    policy.model.network.delete_adapters([*(["reference"] if policy.reference_state() else []), "default"])


def write(model: VideoModel, folder: Path, **settings: object) -> dict[str, Tensor]:
    """A LoRA that does something, as a run leaves it."""
    policy = LoraPolicy(model, Lora(rank=RANK, alpha=ALPHA, **settings), seed=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    policy.export(folder)
    state = policy.state()
    remove(policy)
    return state


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture(scope="module")
def lora(model: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras") / "first"
    write(model, folder)
    return folder


def begin(model: VideoModel, path: Path) -> LoraPolicy:
    settings = Lora(rank=RANK, alpha=ALPHA, init=path)
    return LoraPolicy(model, settings, seed=0, start=initial.start(model, settings))


@pytest.fixture
def policy(model: VideoModel, lora: Path) -> Iterator[LoraPolicy]:
    found = begin(model, lora)
    yield found
    remove(found)


def test_policy_and_reference_start_as_the_lora(model: VideoModel, lora: Path) -> None:
    bare = probe(model)
    with loaded(model, lora):
        expected = probe(model)
    assert float((expected - bare).abs().max()) > 1e-2
    policy = begin(model, lora)
    try:
        torch.testing.assert_close(probe(model), expected, atol=1e-6, rtol=0)
        with policy.reference():
            torch.testing.assert_close(probe(model), expected, atol=1e-6, rtol=0)
        with torch.no_grad():
            for parameter in policy.parameters:
                parameter.add_(0.05)
        assert float((probe(model) - expected).abs().max()) > 1e-2
        with policy.reference():  # stays where it was
            torch.testing.assert_close(probe(model), expected, atol=1e-6, rtol=0)
        assert all(parameter.requires_grad for parameter in policy.parameters)
        trained = {name for name, p in model.network.named_parameters() if p.requires_grad}
        assert trained == {name for name, _ in model.network.named_parameters() if ".default." in name}
    finally:
        remove(policy)
    torch.testing.assert_close(probe(model), bare)


def test_loss_is_ln_2_at_the_start(policy: LoraPolicy) -> None:
    model = policy.model
    x, t = torch.randn(2, *model.latent_shape(9, 32, 32)), torch.tensor([300.0, 300.0])
    conditions = model.encode_prompts(PROMPTS)
    with torch.no_grad():
        own = losses.frame_errors(model.predict(x, t, conditions), x)
    with torch.no_grad(), policy.reference():
        reference = losses.frame_errors(model.predict(x, t, conditions), x)
    errors = losses.PairErrors(own[:1], own[1:], reference[:1], reference[1:])
    loss = losses.preference_loss(errors, torch.ones(1), losses.PreferenceConfig(beta=100)).value
    assert float(loss) == pytest.approx(math.log(2), abs=1e-6)


def run_once(model: VideoModel, folder: Path, steps: int, lora: Path, update: str) -> list[dict[str, float]]:
    """`steps` online steps from `lora`, or from where `folder` stands."""
    settings = {"num_candidates": 2, "updates_per_rollout": 2, "num_draws": 1, "reference_every": 2}
    return train_briefly(
        model,
        PROMPTS,
        folder,
        Brightness(),
        start=initial.read(model, lora),
        steps=steps,
        method={"name": "online", "reference_update": update, **settings},
        optimiser={"lr": 1e-3},
        checkpoints={"every": 2, "keep": 3},
        **{**BRIEF, "lora": {"rank": RANK, "alpha": ALPHA, "init": str(lora)}},
    )


@pytest.mark.parametrize("update", ["never", "ema"])
def test_resume_is_exact(model: VideoModel, lora: Path, tmp_path: Path, update: str) -> None:
    whole = run_once(model, tmp_path / "whole", 5, lora, update)
    run_once(model, tmp_path / "parts", 3, lora, update)
    parts = run_once(model, tmp_path / "parts", 5, lora, update)
    assert parts == whole
    for name in ("lora", "reference"):
        one, other = (
            load_file(tmp_path / n / f"checkpoints/step-000005/{name}.safetensors") for n in ("whole", "parts")
        )
        assert all(torch.equal(one[key], other[key]) for key in one)
    start = load_file(lora / WEIGHTS_NAME)
    moved = any(not torch.equal(one[key], start[f"transformer.{key}"]) for key in one)
    assert moved == (update == "ema")


def test_weights_keep_their_precision(tiny_wan: Path, lora: Path) -> None:
    """Loading by the pipeline would round them to the model's bfloat16."""
    model = models.load(str(tiny_wan), dtype="bfloat16")
    policy, stored = begin(model, lora), load_file(lora / WEIGHTS_NAME)
    for state in (policy.state(), policy.reference_state()):
        assert state is not None
        assert all(torch.equal(value, stored[f"transformer.{key}"]) for key, value in state.items())


def test_a_file_of_another_program(
    model: VideoModel, tiny_wan: Path, lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ComfyUI file: no metadata, names of its own, alpha in the weights."""
    export.export(lora, "comfyui", tmp_path / "own.safetensors", str(tiny_wan), None)
    main_ok(small(tiny_wan, tmp_path / "run", "--init-lora", tmp_path / "own.safetensors", "--dry-run"))
    assert "rank: 3\n  alpha: 3.0" in capsys.readouterr().out
    with loaded(model, lora):
        expected = probe(model)
    settings = Lora(rank=RANK, alpha=RANK, init=tmp_path / "own.safetensors")
    policy = LoraPolicy(model, settings, 0, initial.start(model, settings))
    try:
        torch.testing.assert_close(probe(model), expected, atol=1e-5, rtol=1e-5)
    finally:
        remove(policy)


def test_layers_are_those_of_the_file(model: VideoModel, tmp_path: Path) -> None:
    state = write(model, tmp_path, targets=["to_q", "ffn.net.2"])
    policy = begin(model, tmp_path)
    assert policy.state().keys() == state.keys()
    remove(policy)
    settings = Lora(rank=RANK, alpha=ALPHA, init=tmp_path, targets=["to_k"])
    with pytest.raises(ConfigError, match=r"targets ffn\.net\.2, to_q"):
        LoraPolicy(model, settings, 0, initial.start(model, settings))
    model.network.delete_adapters(["default"])


def small(tiny_wan: Path, output: Path, *more: object) -> list[object]:
    sets = [
        "batch_size=1", "evaluation.num_prompts=1", "method.num_candidates=2", "optimiser.lr=0.02",
        "optimiser.warmup_steps=0", "evaluation.judges=[]",
    ]  # fmt: skip
    flags = [part for text in sets for part in ("--set", text)]
    return ["train", "--model", tiny_wan, "--output", output, *flags, *more]


def test_before_is_the_model_with_that_lora(tiny_wan: Path, tmp_path: Path) -> None:
    """The second run starts where the first one ended, in its measurement too; rank and alpha come along."""
    main_ok(small(tiny_wan, tmp_path / "one", "--steps", 3, "--set", "lora.rank=3", "--set", "lora.alpha=5"))
    main_ok(small(tiny_wan, tmp_path / "two", "--steps", 1, "--init-lora", tmp_path / "one"))
    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two"))
    assert two["before"] == pytest.approx(one["after"], abs=1e-4)
    assert abs(one["after"]["vqa"] - one["before"]["vqa"]) > 1e-4
    settings = config.build(config.read_file(tmp_path / "two" / "config.yaml")).lora
    assert (settings.rank, settings.alpha, settings.init) == (3, 5.0, tmp_path / "one")
    saved = load_file(next(iter(sorted((tmp_path / "two" / "checkpoints").iterdir()))) / "reference.safetensors")
    ended = load_file(tmp_path / "one" / "lora" / WEIGHTS_NAME)
    assert all(torch.equal(value, ended[f"transformer.{key}"]) for key, value in saved.items())
    card = (tmp_path / "two" / "lora" / "README.md").read_text()
    assert "Before is the LoRA that the run started from" in card
    main_ok(["train", "--resume", "--output", tmp_path / "two"])


def test_mistakes_are_one_line(
    model: VideoModel, tiny_wan: Path, lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_file(lora / WEIGHTS_NAME)
    save_file(
        {**state, "transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(9, 24)}, tmp_path / "ranks.safetensors"
    )
    save_file({"transformer.weight": torch.ones(2)}, tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 50)
    save_file({**state, "text_encoder.layer.lora_A.weight": torch.ones(3, 8)}, tmp_path / "text.safetensors")
    torch.manual_seed(0)
    FAMILIES["ltx"].build().save_pretrained(tmp_path / "ltx", safe_serialization=True)
    write(models.load(str(tmp_path / "ltx")), tmp_path / "other")
    for path, more, code, message in (
        (lora, ["--set", "lora.rank=8"], 2, f"lora.rank is 8, and {lora / WEIGHTS_NAME} has 3: leave it out"),
        (lora, ["--set", "lora.alpha=8"], 2, "lora.alpha is 8, and"),
        (lora, ["--set", "lora.targets=[to_q]"], 2, "leave them out, and they are taken from it"),
        (tmp_path, [], 1, "holds 4 files, broken.safetensors and none.safetensors among them: name one"),
        (tmp_path / "ranks.safetensors", [], 1, "has layers of ranks 3, 9"),
        (tmp_path / "none.safetensors", [], 1, "has no LoRA factors"),
        (tmp_path / "broken.safetensors", [], 1, "cannot be read"),
        (tmp_path / "text.safetensors", [], 1, "also changes the text encoder (1 of its 17 layers)"),
        (tmp_path / "other", [], 1, "is the LoRA of another model"),
    ):
        found, shown = fails(capsys, *small(tiny_wan, tmp_path / "run", "--init-lora", path, *more))
        assert (found, message in shown, shown.count("\n")) == (code, True, 1), shown
        assert not (tmp_path / "run").exists()
    main_ok(small(tiny_wan, tmp_path / "run", "--init-lora", lora, "--dry-run"))
    shown = capsys.readouterr().out
    assert "rank: 3" in shown
    assert "alpha: 4.0" in shown


def test_only_plain_loras(model: VideoModel, lora: Path, tmp_path: Path) -> None:
    """Rank-stabilised scaling is read from the metadata, and then refused: the policy would scale otherwise."""
    made = {"r": RANK, "lora_alpha": ALPHA, "use_rslora": True, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    metadata = {f"transformer.{key}": value for key, value in made.items()}
    file = tmp_path / "rs.safetensors"
    save_file(load_file(lora / WEIGHTS_NAME), file, metadata={"lora_adapter_metadata": json.dumps(metadata)})
    with pytest.raises(ModelError, match="not a plain LoRA"):
        initial.read(model, file)
