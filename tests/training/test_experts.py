"""Models with two networks: which of them is trained, when, and how its LoRA leaves and comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import PROMPTS
from tests.support.commands import fails, main_ok
from tests.support.offline_run import make_set, run
from tests.support.places import ROOT
from vpo_kit import config, models
from vpo_kit.config import Lora
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.library import card
from vpo_kit.library import export as exporting
from vpo_kit.methods.instruct import Instruct
from vpo_kit.methods.noised import noised
from vpo_kit.models import memory
from vpo_kit.models.base import VideoModel
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.steps import context_of
from vpo_kit.times import Times
from vpo_kit.training import experts as trained_experts
from vpo_kit.training import initial, loras
from vpo_kit.training.cost import Passes
from vpo_kit.training.export import probe
from vpo_kit.training.lora import LoraPolicy

HIGH, LOW = "transformer", "transformer_2"
BOUNDARY = 875.0
SHAPE = (8, 3, 4, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "a14b"
    FAMILIES["wan2.2-a14b"].build().save_pretrained(path, safe_serialization=True)
    sizes = {"frames": 9, "height": 32, "width": 32, "fps": 8, "steps": 4, "guidance": 3.0}
    (path / "vpo.json").write_text(json.dumps(sizes))
    (path / "prompts").mkdir()
    for split in ("train", "heldout"):
        (path / "prompts" / f"{split}.txt").write_text("\n".join(PROMPTS) + "\n")
    return path


@pytest.fixture(scope="module")
def shared(folder: Path) -> VideoModel:
    return models.load(str(folder))


@pytest.fixture
def model(shared: VideoModel) -> Iterator[VideoModel]:
    """Without adapters, before and after."""
    yield shared
    clear(shared)


def clear(model: VideoModel) -> None:
    for network in model.networks.values():
        if getattr(network, "peft_config", {}):
            network.delete_adapters(sorted(network.peft_config, reverse=True))  # the active one last


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("pairs") / "set")


def begin(model: VideoModel, experts: Any = None, by: float = 0.05, **settings: Any) -> LoraPolicy:
    """A LoRA that does something."""
    policy = LoraPolicy(model, Lora(rank=2, alpha=3, experts=experts, **settings), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return policy


def outputs(model: VideoModel) -> Tensor:
    """Of the high-noise expert, then of the low-noise one."""
    time, x = torch.tensor([950.0, 300.0]), draw_noise(SHAPE, [1, 2])
    with torch.no_grad():
        return model.predict(x, time, model.encode_prompts(PROMPTS[:2]))


@pytest.mark.parametrize(
    ("experts", "names"), [(None, [HIGH, LOW]), ("both", [HIGH, LOW]), ("high_noise", [HIGH]), ("low_noise", [LOW])]
)
def test_the_lora_is_on_the_experts_that_are_asked_for(model: VideoModel, experts: Any, names: list[str]) -> None:
    bare = outputs(model)
    policy = begin(model, experts)
    assert list(policy.networks) == names
    assert {key.partition(".")[0] for key in policy.state()} == set(names)
    trained = {n for n, network in model.networks.items() if any(p.requires_grad for p in network.parameters())}
    assert trained == set(names)
    assert len(policy.parameters) == len(policy.state())
    moved = (outputs(model) - bare).flatten(1).abs().amax(1) > 1e-3
    assert moved.tolist() == [HIGH in names, LOW in names]
    with policy.reference():
        torch.testing.assert_close(outputs(model), bare)
    ours = outputs(model)
    policy.refresh_reference(0.0)  # the second LoRA now is the first
    with policy.reference():
        torch.testing.assert_close(outputs(model), ours)
    begun, state = policy.reference_state(), policy.state()
    assert begun is not None
    assert all(torch.equal(begun[key], value) for key, value in state.items())
    policy.load_state({key: value * 0 for key, value in state.items()}, state)
    torch.testing.assert_close(outputs(model), bare)
    with policy.reference():
        torch.testing.assert_close(outputs(model), ours)
    torch.testing.assert_close(outputs(model), bare)


@pytest.mark.parametrize("time", [BOUNDARY, BOUNDARY - 1])
def test_gradients_reach_the_expert_that_was_used(model: VideoModel, time: float) -> None:
    policy = begin(model)
    x, conditions = draw_noise(SHAPE, [1]), model.encode_prompts(PROMPTS[:1])
    model.predict(x, torch.tensor([time]), conditions).square().mean().backward()
    used, other = (HIGH, LOW) if time >= BOUNDARY else (LOW, HIGH)
    for name, reached in ((used, True), (other, False)):
        grads = [p.grad for p in policy.networks[name].parameters() if p.requires_grad]
        assert all((grad is not None and bool(grad.any())) == reached for grad in grads)


def test_a_mixed_batch_is_its_rows(model: VideoModel) -> None:
    """Gradients of a batch on both sides of the boundary are those of the rows one by one."""
    policy = begin(model)
    x, time = draw_noise(SHAPE, [1, 2, 3, 4]), torch.tensor([950.0, 300.0, 100.0, BOUNDARY])
    conditions = model.encode_prompts(PROMPTS[:1]).expand(4)

    def grads(rows: list[slice]) -> list[Tensor]:
        loss = sum(model.predict(x[r], time[r], conditions[r]).square().sum() for r in rows)
        assert isinstance(loss, Tensor)
        return list(torch.autograd.grad(loss, policy.parameters))

    with Passes(model.networks.values()) as passes:
        together = grads([slice(None)])
        assert passes.take() == 4
    for one, other in zip(together, grads([slice(i, i + 1) for i in range(4)]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not model.networks[HIGH]._forward_pre_hooks


def test_times_are_drawn_where_the_policy_is_trained(model: VideoModel) -> None:
    """All on the right side of the boundary, distributed as the unrestricted ones on that side are."""
    schedule, seeds = model.schedule, range(300)
    every = model.time_sampler(None, model.settings, model.networks).draw(range(4000))
    for name, side in ((HIGH, every >= 0.875), (LOW, every < 0.875)):
        times = model.time_sampler(None, model.settings, [name])
        t = times.draw(seeds)
        assert model.belongs(schedule.network_time(t), name).all()
        expected = every[side]
        error = float(expected.std()) / len(t) ** 0.5 + float(expected.std()) / len(expected) ** 0.5
        assert abs(float(t.mean() - expected.mean())) < 4 * error
        assert torch.equal(torch.cat([times.draw([seed]) for seed in seeds]), t)
        policy = LoraPolicy(model, Lora(rank=1, experts=model.experts[name]), seed=0)
        both = draw_noise(SHAPE, [1, 2])
        members = tuple(row.expand(40, -1, -1, -1, -1) for row in (both[:1], both[1:]))
        pair = noised(policy, times, members, model.encode_prompts(PROMPTS[:1]).expand(40), range(40))
        assert model.belongs(pair.time, name).all()
        clear(model)


def test_each_expert_gets_its_share_of_the_draws(model: VideoModel) -> None:
    shares = Times.model_validate({"name": "uniform", "experts": {"high_noise": 0.75, "low_noise": 0.25}})
    t = model.time_sampler(shares, model.settings, model.networks).draw(range(2000))
    high = model.belongs(model.schedule.network_time(t), HIGH)
    assert float(high.float().mean()) == pytest.approx(0.75, abs=0.04)
    with pytest.raises(ConfigError, match="experts: low_noise is not among the trained networks"):
        model.time_sampler(shares, model.settings, [HIGH])
    with pytest.raises(ConfigError, match="no training time is left"):
        model.time_sampler(Times(name="uniform", high=0.5), model.settings, [HIGH])


@pytest.mark.parametrize("experts", [None, "high_noise"])
def test_a_run_and_its_resume(
    model: VideoModel, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experts: str | None
) -> None:
    """Two steps in one go, or one, a checkpoint and another one: the same to the last bit."""
    if experts is None:
        monkeypatch.setattr(model, "_boundary", 500.0)  # at 875 one time in forty is the high-noise expert's
    values: dict[str, Any] = {"checkpoints": {"every": 1, "keep": 3}, "validation": {"every": 1, "share": 0.25}}
    whole = run(model, pairs, tmp_path / "whole", 2, "dpo", experts=experts, **values)
    run(model, pairs, tmp_path / "parts", 1, "dpo", experts=experts, **values)
    parts = run(model, pairs, tmp_path / "parts", 2, "dpo", experts=experts, **values)
    assert parts == whole
    assert all(row["passes"] == 4 * 2 * 2 for row in whole)  # pairs, members, policy and reference
    one, other = (load_file(tmp_path / n / "checkpoints/step-000002/lora.safetensors") for n in ("whole", "parts"))
    first = load_file(tmp_path / "whole/checkpoints/step-000001/lora.safetensors")
    assert {key.partition(".")[0] for key in one} == ({HIGH, LOW} if experts is None else {HIGH})
    assert all(torch.equal(one[key], other[key]) for key in one)
    changed = {key.partition(".")[0] for key in one if not torch.equal(one[key], first[key])}
    assert changed == {key.partition(".")[0] for key in one}


def test_every_trained_expert_needs_a_step_with_gradient(model: VideoModel) -> None:
    """The last step of a chain is the low-noise expert's; of these four (times 1000, 900, 750, 500) two are each's."""
    sampling = model.settings
    times = model.new_scheduler(4, SHAPE).timesteps.tolist()
    assert [time >= BOUNDARY for time in times] == [True, True, False, False]

    def build(experts: Any, **settings: Any) -> Instruct:
        policy = LoraPolicy(model, Lora(rank=1, experts=experts), seed=0)
        try:
            context = context_of(policy, sampling=sampling, batch_size=2)
            return Instruct(Instruct.Config(**settings), context)
        finally:
            clear(model)

    noise = {"start": "noise"}
    build("low_noise", **noise)
    build("high_noise", grad_steps=3, **noise)
    build("both", grad_steps=3, **noise)
    for experts, settings in (("high_noise", noise), (None, noise), ("both", {"grad_steps": 2, **noise}),
                              ("both", {"tau": 0.5, "grad_steps": 4})):  # fmt: skip
        with pytest.raises(ConfigError, match=r"have none of high_noise: set lora\.experts to low_noise") as caught:
            build(experts, **settings)
        assert "\n" not in str(caught.value)


def test_experts_of_a_model_with_one_network(tiny_wan: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora\.experts: .* has one network: leave it out"):
        LoraPolicy(models.load(str(tiny_wan)), Lora(experts="both"), seed=0)


def test_memory_options_cover_both(folder: Path) -> None:
    model = models.load(str(folder), attention="sdpa")
    memory.tune(model, gradient_checkpointing=True)
    for network in model.networks.values():
        assert network.is_gradient_checkpointing
        assert {str(block.attn1.processor._attention_backend) for block in network.blocks} == {
            "AttentionBackendName.NATIVE"
        }


@pytest.fixture(params=[None, "low_noise"], ids=["both", "low"])
def made(request: pytest.FixtureRequest, model: VideoModel, folder: Path, tmp_path: Path) -> tuple[Path, Tensor]:
    """A run folder as `vpo train` leaves it, and what the experts give with its LoRA."""
    policy, root = begin(model, request.param), tmp_path / "run"
    root.mkdir()
    policy.export(root / "lora")
    (root / "config.yaml").write_text(config.dump(config.build({"model": str(folder)})))
    found = outputs(model)
    clear(model)
    return root, found


def in_diffusers(folder: Path, lora: Path | None = None) -> VideoModel:
    """Diffusers' own pipeline, with the LoRA as docs/export.md says; behind our adapter."""
    pipeline = diffusers.WanPipeline.from_pretrained(folder)
    if lora is not None and (lora / "high_noise.safetensors").is_file():
        pipeline.load_lora_weights(lora, weight_name="high_noise.safetensors")
    if lora is not None and (lora / "low_noise.safetensors").is_file():
        pipeline.load_lora_weights(lora, weight_name="low_noise.safetensors", load_into_transformer_2=True)
    return type(models.load(str(folder)))(pipeline, None, "plain")


@pytest.mark.parametrize("form", ["diffusers", "comfyui", "merged"])
def test_exports_in_diffusers_alone(made: tuple[Path, Tensor], form: Any, folder: Path, tmp_path: Path) -> None:
    root, expected = made
    copy = tmp_path / "copy"
    exporting.export(root, form, copy, None, None)
    plain = in_diffusers(copy) if form == "merged" else in_diffusers(folder, copy)
    torch.testing.assert_close(outputs(plain), expected, atol=1e-5, rtol=1e-5)
    if form == "comfyui":
        keys = [key for file in copy.iterdir() for key in load_file(file)]
        assert all(key.startswith("diffusion_model.blocks.") for key in keys)
    if form == "merged":
        trained = {
            path.stem.replace("high_noise", HIGH).replace("low_noise", LOW) for path in (root / "lora").iterdir()
        }
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        assert sorted(files) == sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
        changed = {path for path in files if (copy / path).read_bytes() != (folder / path).read_bytes()}
        assert changed == {Path(name) / "diffusion_pytorch_model.safetensors" for name in trained}


@pytest.mark.parametrize("lost", ["high_noise", "low_noise"])
def test_a_lost_expert_is_refused(
    model: VideoModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    begin(model).export(tmp_path / "lora")
    write = exporting._write

    def damaged(source: Any, form: Any, target: Path) -> Any:
        found = write(source, form, target)
        (target / f"{lost}.safetensors").unlink()
        return found

    monkeypatch.setattr(exporting, "_write", damaged)
    with pytest.raises(ModelError, match="of 32 weights 16 unmatched and 0 wrong"):
        exporting.export(tmp_path / "lora", "diffusers", tmp_path / "copy", str(folder), None)
    assert not (tmp_path / "copy").exists()


def test_init_takes_the_experts_from_the_files(made: tuple[Path, Tensor], model: VideoModel) -> None:
    root, expected = made
    labels = {path.stem for path in (root / "lora").iterdir()}
    settings = Lora(rank=2, alpha=3, init=root)
    policy = LoraPolicy(model, settings, 5, initial.start(model, settings))
    assert {model.experts[name] for name in policy.networks} == labels
    torch.testing.assert_close(outputs(model), expected, atol=1e-6, rtol=0)
    with policy.reference():
        torch.testing.assert_close(outputs(model), expected, atol=1e-6, rtol=0)


def test_init_with_other_experts_is_refused(made: tuple[Path, Tensor], model: VideoModel) -> None:
    root, _ = made
    labels = sorted(path.stem for path in (root / "lora").iterdir())
    right = "both" if len(labels) == 2 else labels[0]
    for experts in {"both", "high_noise", "low_noise"} - {right}:
        settings = Lora(rank=2, alpha=3, init=root, experts=experts)
        with pytest.raises(ConfigError, match=f"has {' and '.join(labels)}: leave it out"):
            LoraPolicy(model, settings, 5, initial.start(model, settings))


def test_one_file_says_which_expert_it_is_for(model: VideoModel, folder: Path, tmp_path: Path) -> None:
    """Also one that another program has named."""
    bare = outputs(model)
    policy = begin(model)
    policy.export(tmp_path / "lora")
    ours = outputs(model)
    clear(model)
    (tmp_path / "wan_low_noise_r2.safetensors").write_bytes((tmp_path / "lora/low_noise.safetensors").read_bytes())
    with loras.loaded(model, tmp_path / "wan_low_noise_r2.safetensors"):
        found = outputs(model)
    torch.testing.assert_close(found[0], bare[0])
    torch.testing.assert_close(found[1], ours[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs(model), bare)
    exporting.export(
        tmp_path / "wan_low_noise_r2.safetensors", "comfyui", tmp_path / "out_low_noise.safetensors", str(folder), None
    )
    with loras.loaded(model, tmp_path / "out_low_noise.safetensors"):
        torch.testing.assert_close(outputs(model), found, atol=1e-5, rtol=1e-5)


def test_mistakes_are_one_line(
    model: VideoModel, folder: Path, tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(model).export(tmp_path / "lora")
    (tmp_path / "own.safetensors").write_bytes((tmp_path / "lora/low_noise.safetensors").read_bytes())
    several = tmp_path / "several"
    several.mkdir()
    for name in ("a_low_noise", "b_low_noise"):
        (several / f"{name}.safetensors").write_bytes((tmp_path / "own.safetensors").read_bytes())
    other = tmp_path / "other"
    begin(models.load(str(folder)), "high_noise", targets=["to_q"]).export(other)
    (other / "low_noise.safetensors").write_bytes((tmp_path / "own.safetensors").read_bytes())
    sample = ["sample", "--prompt", "a red circle", "--output", tmp_path / "out", "--model"]
    for arguments, code, message in (
        ([*sample, folder, "--lora", tmp_path / "own.safetensors"], 1, "does not say which expert"),
        ([*sample, folder, "--lora", several], 1, "holds several LoRAs of low_noise: a_low_noise.safetensors, b_low_"),
        ([*sample, tiny_wan, "--lora", tmp_path / "lora"], 1, "is a LoRA of a model with two experts, and"),
        (["export", tmp_path / "lora", "--model", folder, "--format", "comfyui", "--output", tmp_path / "x.safetensors"
          ], 2, "each expert gets a file of its own: give a folder, x"),
        (["export", other, "--model", folder, "--output", tmp_path / "x"], 1, "differ in rank, alpha or layers"),
    ):  # fmt: skip
        found, shown = fails(capsys, *arguments)
        assert (found, message in shown, shown.count("\n")) == (code, True, 1), shown


def test_the_code_on_the_card_runs(
    made: tuple[Path, Tensor], model: VideoModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, expected = made
    settings = Lora(rank=2, alpha=3, init=root)
    LoraPolicy(model, settings, 5, initial.start(model, settings))
    text = card._use("a14b", model)
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(text.removeprefix("```python\n").removesuffix("```").replace("path/to/this/folder", f"{root}/lora"), names)
    plain = type(model)(names["pipe"], None, "plain")
    torch.testing.assert_close(outputs(plain), expected, atol=1e-5, rtol=1e-5)


def test_the_code_of_the_docs_runs(model: VideoModel, folder: Path, tmp_path: Path) -> None:
    begin(model).export(tmp_path)
    text = (ROOT / "docs" / "export.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    names: dict[str, Any] = {"pipe": diffusers.WanPipeline.from_pretrained(folder), "folder": tmp_path}
    exec(found[1], names)
    plain = type(model)(names["pipe"], None, "plain")
    torch.testing.assert_close(outputs(plain), outputs(model), atol=1e-5, rtol=1e-5)


def test_a_whole_run(folder: Path, tmp_path: Path) -> None:
    """The command, then evaluation and a second run from where the first ended."""
    sets = ["batch_size=1", "evaluation.num_prompts=2", "method.num_candidates=2", "optimiser.lr=0.02",
            "optimiser.warmup_steps=0", "evaluation.judges=[]", "lora.rank=2"]  # fmt: skip
    flags = [part for text in sets for part in ("--set", text)]
    main_ok(["train", "--model", folder, "--output", tmp_path / "one", "--steps", 2, *flags])
    one = tmp_path / "one"
    assert {path.name for path in (one / "lora").iterdir()} == {
        "README.md", "high_noise.safetensors", "low_noise.safetensors",
    }  # fmt: skip
    main_ok(["train", "--model", folder, "--output", tmp_path / "two", "--steps", 1, *flags[:-2], "--init-lora", one])
    before, after = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("two", "one"))
    assert before["before"] == pytest.approx(after["after"], abs=1e-4)
    for _ in range(2):
        main_ok(["eval", one, "--model", folder, "--output", tmp_path / "eval", "--num-prompts", 2, "--best-of", 0])


def test_a_run_says_which_expert_got_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No time of the high-noise expert's range is drawn, as when it has a fortieth of few draws."""
    sets = [
        "batch_size=1",
        "evaluation.num_prompts=0",
        "method.num_candidates=2",
        "optimiser.lr=0.02",
        "lora.rank=2",
        "optimiser.warmup_steps=0",
        "evaluation.judges=[]",
        "method.times={name: uniform, experts: {high_noise: 0.000000001, low_noise: 1}}",
    ]
    flags = [part for text in sets for part in ("--set", text)]
    main_ok(["train", "--model", folder, "--output", tmp_path / "one", "--steps", 2, *flags])
    shown = " ".join(capsys.readouterr().out.split())
    assert "high_noise: it got no update, and high_noise.safetensors holds zeros" in shown
    assert "low_noise: " not in shown
    one = tmp_path / "one"
    rows = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert [(row["updated_high_noise"], row["updated_low_noise"]) for row in rows] == [(0, 1)] * 2
    assert json.loads((one / "summary.json").read_text())["updates"] == {"high_noise": 0, "low_noise": 2}
    page = (one / "lora/README.md").read_text()
    assert "| steps that changed high\\_noise | 0 |" in page
    assert "| steps that changed low\\_noise | 2 |" in page
    assert not any(
        value.any() for key, value in load_file(one / "lora/high_noise.safetensors").items() if "lora_B" in key
    )


def test_an_expert_that_is_as_the_run_began_is_named(model: VideoModel, folder: Path, tmp_path: Path) -> None:
    begin(model).export(tmp_path)
    clear(model)
    settings = Lora(rank=2, alpha=3, init=tmp_path)
    policy = LoraPolicy(model, settings, 5, initial.start(model, settings))
    assert len(trained_experts.unchanged(policy, {"high_noise": 0, "low_noise": 3})) == 2
    with torch.no_grad():
        policy.groups["low_noise"][0].add_(0.1)
    (line,) = trained_experts.unchanged(policy, {"high_noise": 2, "low_noise": 3})
    assert line.startswith("high_noise: what is kept is from before its first update")
    assert "holds the LoRA that the run began with" in line
    assert trained_experts.counts([{"updated_a": 1.0, "updated_b": 0.0}, {"updated_a": 1.0, "updated_b": 1.0}]) == {
        "a": 2, "b": 1,
    }  # fmt: skip
    assert trained_experts.counts([{"step": 1}, {"step": 2, "updated_a": 1.0}]) == {}


def test_the_probe_sees_both_experts(model: VideoModel) -> None:
    bare = probe(model)
    for experts in ("high_noise", "low_noise"):
        begin(model, experts)
        moved = (probe(model) - bare).flatten(1).abs().amax(1) > 1e-3
        assert moved.tolist() == [experts == "high_noise"] * 2 + [experts == "low_noise"] * 2
        clear(model)
