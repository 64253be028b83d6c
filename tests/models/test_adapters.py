"""Every family, on a tiny pipeline in the real layout loaded by the production path, against diffusers itself."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor

from tests.support.places import ROOT
from vpo_kit import losses, models
from vpo_kit.config import Lora
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.models.base import VideoModel, add_methods
from vpo_kit.registry import MODELS
from vpo_kit.sampler import Guidance, PartialStart, chain_levels, draw_noise, sample
from vpo_kit.schedule import DDPMSchedule, FlowSchedule, from_scheduler
from vpo_kit.testing.families import FAMILIES, cogvideox
from vpo_kit.testing.parity import NEGATIVE, Case, make
from vpo_kit.testing.parity import PROMPTS as BOTH
from vpo_kit.times import Times
from vpo_kit.training.lora import WEIGHTS_NAME, LoraPolicy
from vpo_kit.training.loras import loaded

pytestmark = pytest.mark.filterwarnings(
    "ignore:In CPU autocast",  # Mochi's rotary embedding asks for float32 autocast
    "ignore:__array__ implementation",  # LTXConditionPipeline gives its scheduler a tensor
)
TWO = list(BOTH)


class Cases:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, Case] = {}

    def __getitem__(self, name: str) -> Case:
        if name not in self._made:
            self._made[name] = make(FAMILIES[name], self._root / name)
        return self._made[name]


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return Cases(tmp_path_factory.mktemp("families"))


@pytest.fixture(params=FAMILIES)
def case(cases: Cases, request: pytest.FixtureRequest) -> Case:
    return cases[request.param]


@pytest.fixture(params=FAMILIES)
def trained(cases: Cases, request: pytest.FixtureRequest) -> Iterator[tuple[Case, LoraPolicy]]:
    """A family with a LoRA on its shared model, taken off again afterwards."""
    found = cases[request.param]
    policy = LoraPolicy(found.model, Lora(rank=2, alpha=4), seed=0)
    yield found, policy
    remove(policy)


def remove(policy: LoraPolicy) -> None:
    for network in policy.networks.values():
        if getattr(network, "peft_config", {}):
            network.delete_adapters(["default"])


def times_of(model: VideoModel, seed: int) -> Tensor:
    """A training time of each network."""
    uniform = Times(name="uniform")
    return torch.cat([model.time_sampler(uniform, model.settings, [name]).draw([seed]) for name in model.networks])


def move(policy: LoraPolicy, by: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))


def check_gradients(policy: LoraPolicy, names: Collection[str]) -> None:
    """Every layer of the networks `names` has one, and no other network any."""
    for name, network in policy.networks.items():
        gradients = {n: p.grad for n, p in network.named_parameters() if ".lora_B.default." in n}
        if name not in names:
            assert all(gradient is None for gradient in gradients.values())
            continue
        assert gradients
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        silent = [n for n, g in gradients.items() if g is not None and not g.any()]
        assert not silent, silent


def test_the_table_names_every_family(cases: Cases) -> None:
    made = {json.loads((cases[name].folder / "model_index.json").read_text())["_class_name"] for name in FAMILIES}
    assert made == set(MODELS.targets())


@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["plain", "guided"])
def test_same_video_as_the_pipeline(case: Case, scale: float) -> None:
    noise = draw_noise(case.shape, [11, 12])
    ours, theirs = case.ours(noise, scale), case.theirs(noise, scale)
    assert ours.shape == (2, case.call.frames, 3, case.call.height, case.call.height)
    assert float((ours - theirs).abs().max()) < 1e-4
    assert float(ours.std()) > 0.01


def test_guidance_and_prompt_matter(case: Case) -> None:
    """Or parity would show nothing."""
    model, noise = case.model, draw_noise(case.shape, [11])
    negative = model.encode_prompts([NEGATIVE])

    def latents(prompt: str, scale: float) -> Tensor:
        with torch.no_grad():
            return sample(
                model, model.encode_prompts([prompt]), noise=noise, steps=2, guidance=Guidance(scale, negative)
            )

    base = latents(TWO[0], 4.0)
    assert float((latents(TWO[0], 1.0) - base).abs().max()) > 1e-5
    assert float((latents(TWO[1], 4.0) - base).abs().max()) > 1e-5


def test_encode_undoes_the_scaling_of_decode(case: Case) -> None:
    model, vae = case.model, case.plain.vae
    video = torch.rand(2, case.call.frames, 3, case.call.height, case.call.height)
    latents = model.encode(video)
    assert latents.shape == (2, *case.shape)
    pixels = (2 * video - 1).transpose(1, 2)
    with torch.no_grad():  # the autoencoder alone: there and back, no scaling at all
        if model.causal:
            z = [vae.encode(row[None]).latent_dist.mode() for row in pixels]
            extra = [torch.zeros(1)] if vae.config.get("timestep_conditioning") else []
            whole = torch.cat([vae.decode(row, *extra).sample for row in z])
            raw = torch.cat(z)
        else:
            frames = vae.encode(pixels.transpose(1, 2).flatten(0, 1)).latent_dist.mode()
            raw = frames.unflatten(0, (2, -1)).transpose(1, 2)
            whole = vae.decode(frames).sample.unflatten(0, (2, -1)).transpose(1, 2)
    expected = (whole / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    assert float((model.decode(latents) - expected).abs().max()) < 1e-4
    assert float((latents - raw).abs().max()) > 1e-3


def test_decoding_single_frames(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (channels, _, height, width) = case.model, case.shape
    frames = 4 * model.multiples[0] + int(model.causal)
    ranges = model.frame_map(frames)
    latents = draw_noise((channels, len(ranges), height, width), [5])
    wanted = [0, ranges[1][0], ranges[-2][0], frames - 1]
    assert model.decode(latents, frames=wanted).shape == (1, 4, 3, case.call.height, case.call.height)
    # with all that there is as context, these are the frames of the whole clip
    monkeypatch.setattr(model, "decode_window", lambda _: (0, len(ranges)))
    whole = model.decode(latents)
    assert whole.shape[1] == frames
    torch.testing.assert_close(model.decode(latents, frames=wanted), whole[:, wanted], atol=1e-5, rtol=0)


def test_dpo_step(trained: tuple[Case, LoraPolicy]) -> None:
    """A pair at a time of each network, in one batch."""
    case, policy = trained
    model, schedule, count = case.model, case.model.schedule, len(case.model.networks)
    x = draw_noise(case.shape, range(2 * count))
    t = times_of(model, 3).repeat(2)
    eps = draw_noise(case.shape, range(10, 10 + count)).repeat(2, 1, 1, 1, 1)
    x_t, target, time = schedule.add_noise(x, eps, t), schedule.target(x, eps, t), schedule.network_time(t)
    conditions = model.encode_prompts(TWO[:1]).expand(2 * count)

    def loss() -> Tensor:
        with torch.no_grad(), policy.reference():
            reference = losses.frame_errors(model.predict(x_t, time, conditions), target)
        own = losses.frame_errors(model.predict(x_t, time, conditions), target)
        errors = losses.PairErrors(*own.chunk(2), *reference.chunk(2))
        config = losses.PreferenceConfig(beta=100)
        return losses.preference_loss(errors, torch.ones(count), config).value.mean()

    value = loss()
    assert value.item() == pytest.approx(math.log(2), abs=1e-6)  # policy = reference
    value.backward()
    check_gradients(policy, model.networks)
    with torch.no_grad():
        for parameter in policy.parameters:
            assert parameter.grad is not None
            parameter.sub_(0.01 * parameter.grad / parameter.grad.norm().clamp_min(1e-12))
    assert loss().item() < math.log(2)


def test_trained_where_the_sampler_goes(case: Case) -> None:
    """At its usual size no part of the chain that the sampler visits is left out of the training: of a shifted chain a
    third of the steps and more lie at levels of .9 and above, where logit-normal(0, 1) has 1.4% of its draws.
    """
    model, settings = case.model, case.model.settings
    if "AnimateDiff" in type(model.pipeline).__name__:  # its tiny motion adapter takes no more
        settings = settings.changed(frames=4)
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    times = model.time_sampler(None, settings, model.networks)
    levels = model.schedule.noise_level(times.draw(range(2000)))
    chain = chain_levels(model, settings.steps, shape)
    for level in (0.9, 0.5):
        visited, trained = float((chain >= level).float().mean()), float((levels >= level).float().mean())
        assert trained > 0.3 * visited, (level, visited, trained)
    assert model.times_source


@pytest.mark.parametrize("start", ["noise", "clip"])
def test_truncated_gradient(trained: tuple[Case, LoraPolicy], start: str) -> None:
    """From noise and from a partly noised clip, with guidance, through one step and the decoding of one frame."""
    case, policy = trained
    model, noise, seen = case.model, draw_noise(case.shape, [6]), []
    partial = PartialStart(draw_noise(case.shape, [7]), 2) if start == "clip" else None
    latents = sample(
        model, model.encode_prompts(TWO[:1]), noise=noise, steps=4, grad_steps=1, start=partial,
        guidance=Guidance(4.0, model.encode_prompts([NEGATIVE])), callback=lambda i, x: seen.append(x.requires_grad),
    )  # fmt: skip
    assert seen == ([False, True] if partial else [False, False, False, True])
    model.decode(latents, frames=[case.call.frames - 1]).square().mean().backward()
    last = model.new_scheduler(4, case.shape).timesteps[-1:]
    check_gradients(policy, [name for name in model.networks if model.belongs(last, name).all()])


def test_lora_round_trip(trained: tuple[Case, LoraPolicy], tmp_path: Path) -> None:
    case, policy = trained
    model, x = case.model, draw_noise(case.shape, [8, 9])
    conditions = model.encode_prompts(TWO)
    time = model.schedule.network_time(torch.cat([times_of(model, 1), times_of(model, 2)])[:2])
    with torch.no_grad():
        base = model.predict(x, time, conditions)
        move(policy)
        ours = model.predict(x, time, conditions)
        assert all(float(change.abs().max()) > 1e-3 for change in ours - base)
        policy.export(tmp_path)
        remove(policy)
        with loaded(model, tmp_path):
            torch.testing.assert_close(model.predict(x, time, conditions), ours, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.predict(x, time, conditions), base)
        theirs = type(model)(in_diffusers_alone(case, tmp_path), model.settings, "plain")
        torch.testing.assert_close(theirs.predict(x, time, conditions), ours, atol=1e-5, rtol=1e-5)


def in_diffusers_alone(case: Case, folder: Path) -> Any:
    """A fresh pipeline of diffusers with the LoRA, in the four ways of docs/models.md: by itself, by its network
    (HunyuanVideo 1.5), after a line of ours (ModelScope), or a file for each expert (Wan 2.2 A14B).
    """
    pipeline = type(case.plain).from_pretrained(case.folder)
    network = pipeline.components[case.model.network_name]
    ways = hasattr(pipeline, "load_lora_weights"), hasattr(network, "load_lora_adapter")
    if ways == (False, True):
        network.load_lora_adapter(str(folder), weight_name=WEIGHTS_NAME)
        return pipeline
    if ways == (True, False):
        add_methods(network, PeftAdapterMixin)
    if case.model.experts:
        pipeline.load_lora_weights(str(folder), weight_name="high_noise.safetensors")
        pipeline.load_lora_weights(str(folder), weight_name="low_noise.safetensors", load_into_transformer_2=True)
        return pipeline
    pipeline.load_lora_weights(str(folder))
    return pipeline


def test_bfloat16(case: Case) -> None:
    """Weights in bfloat16, latents and video in float32, and the video of the float32 model as far as that goes."""
    model, noise = models.load(str(case.folder), dtype="bfloat16"), draw_noise(case.shape, [1])
    for key, value in FAMILIES[case.folder.name].attributes.items():
        setattr(model.pipeline, key, value)
    with torch.no_grad():
        videos = [
            m.decode(sample(m, m.encode_prompts(TWO[:1]), noise=noise, steps=2)).float() for m in (model, case.model)
        ]
        latents = model.encode(videos[0])
    assert model.pipeline.vae.dtype == torch.bfloat16
    assert latents.dtype == videos[0].dtype == torch.float32
    assert float((videos[0] - videos[1]).abs().mean()) < 0.25 * float(videos[1].std())


def test_lora_of_another_family_is_refused(cases: Cases, tmp_path: Path) -> None:
    """Also where diffusers itself only logs that it found no place for the weights."""
    for source, targets in {"wan2.1": ["ltx", "modelscope"], "modelscope": ["animatediff", "mochi"]}.items():
        model = cases[source].model
        policy = LoraPolicy(model, Lora(rank=2, alpha=4), seed=0)
        policy.export(tmp_path / source)
        remove(policy)
        for target in targets:
            with (
                pytest.raises(ModelError, match=r"is the LoRA of another model: \d+ of its \d+ weights have") as caught,
                loaded(cases[target].model, tmp_path / source),
            ):
                pass
            assert "\n" not in str(caught.value)


def test_two_experts(cases: Cases) -> None:
    """A noise level belongs to one expert, also when a batch has both."""
    case = cases["wan2.2-a14b"]
    model, x = case.model, draw_noise(case.shape, [1, 2, 3])
    conditions = model.encode_prompts(TWO[:1]).expand(3)
    t = torch.tensor([900.0, 100.0, 875.0])  # the boundary, 0.875, belongs to the first
    for expert, rows in ((model.pipeline.transformer, [0, 2]), (model.pipeline.transformer_2, [1])):
        alone = expert(x[rows], t[rows], conditions[rows].tensors["embeds"], return_dict=False)[0]
        torch.testing.assert_close(model.predict(x, t, conditions)[rows], alone)


def test_default_settings_follow_the_variant(cases: Cases) -> None:
    sizes = {name: cases[name].model.settings for name in FAMILIES}
    assert (sizes["wan2.2-5b"].frames, sizes["wan2.2-5b"].fps) == (121, 24)
    assert sizes["wan2.2-a14b"].steps == 40
    assert sizes["wan2.1"].frames == 81
    tall = {"ltx": 32, "cogvideox-2b": 16, "hunyuan": 16, "hunyuan1.5": 16, "mochi": 16, "modelscope": 8}
    for name, side in tall.items():  # of the published autoencoder and patches, which these have too
        assert sizes[name].height % side == sizes[name].width % side == 0
        assert cases[name].model.multiples[1:] == (side, side)
        assert cases[name].model.latent_shape(sizes[name].frames, sizes[name].height, sizes[name].width)


def test_the_docs_have_every_family_and_its_settings(cases: Cases) -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    assert all(f"| `{name}`" in text for name in MODELS.targets())
    for name in FAMILIES:
        model, s = cases[name].model, cases[name].model.settings
        scales = s.guidance.values() if isinstance(s.guidance, Mapping) else [s.guidance]
        guidance = " and ".join(f"{scale:g}" for scale in scales)
        row = f"{s.frames} x {s.width} x {s.height} | {s.fps} | {s.steps} | {guidance}"
        assert row in text.replace("`", ""), row
        assert list(model.lora_targets) == ["to_q", "to_k", "to_v", "to_out.0"], "the docs say that all are the same"


def test_the_docs_have_every_familys_training_times(cases: Cases) -> None:
    text = " ".join((ROOT / "docs" / "models.md").read_text(encoding="utf-8").split())
    for name in MODELS.targets():
        kind = MODELS.load(name)
        assert f"| {kind.times.describe()} | {kind.times_source} |" in text, name


def test_sizes_that_do_not_divide_name_the_nearest(case: Case) -> None:
    model, size = case.model, case.call.height
    right = f"the nearest that do are {case.call.frames} frames of {size} x {size}"
    with pytest.raises(ConfigError, match=right) as caught:
        model.latent_shape(case.call.frames, size + 1, size - 1)
    assert "\n" not in str(caught.value)
    if model.multiples[0] > 1:
        with pytest.raises(ConfigError, match=right):
            model.latent_shape(case.call.frames + 1, size, size)


def test_animatediff_has_so_many_positions(cases: Cases) -> None:
    with pytest.raises(ConfigError, match=r"17 frames do not fit the motion adapter .*: at most 16 do"):
        cases["animatediff"].model.latent_shape(17, 32, 32)


def test_mochi_needs_two_steps(cases: Cases) -> None:
    with pytest.raises(ConfigError, match="at least 2 steps"):
        cases["mochi"].model.new_scheduler(1, cases["mochi"].shape)


def test_time_of_mochi_runs_the_other_way(cases: Cases) -> None:
    schedule = cases["mochi"].model.schedule
    assert isinstance(schedule, FlowSchedule)
    scheduler = cases["mochi"].model.new_scheduler(4, cases["mochi"].shape)
    times = schedule.chain_times(scheduler)
    torch.testing.assert_close(schedule.network_time(times), scheduler.timesteps)
    assert times[0] == 1
    assert (times.diff() < 0).all()
    x, eps = draw_noise((2, 3, 4, 4), [1, 2]), draw_noise((2, 3, 4, 4), [3, 4])
    t = torch.tensor([0.2, 0.9])
    torch.testing.assert_close(
        schedule.to_clean(schedule.add_noise(x, eps, t), schedule.target(x, eps, t), t), x, atol=1e-5, rtol=0
    )


def test_cogvideox_ends_in_pure_noise(cases: Cases) -> None:
    for name in ("cogvideox-2b", "cogvideox-5b"):
        schedule = cases[name].model.schedule
        assert isinstance(schedule, DDPMSchedule)
        assert schedule.v_prediction
        last = torch.tensor([len(schedule.alphas_cumprod) - 1])
        x, eps = draw_noise((2, 3, 4, 4), [1]), draw_noise((2, 3, 4, 4), [2])
        assert schedule.noise_level(last) == 1
        torch.testing.assert_close(schedule.add_noise(x, eps, last), eps)
        torch.testing.assert_close(schedule.target(x, eps, last), -x)


def test_noise_of_the_steps_follows_from_the_first(cases: Cases) -> None:
    """CogVideoX-5B's solver adds noise in every step: the same video alone, in a batch, and again."""
    case = cases["cogvideox-5b"]
    model, noise = case.model, draw_noise(case.shape, [1, 2])
    conditions = model.encode_prompts(TWO)
    with torch.no_grad():
        both = sample(model, conditions, noise=noise, steps=3)
        again = sample(model, conditions, noise=noise, steps=3)
        alone = sample(model, conditions[1:], noise=noise[1:], steps=3)
    assert torch.equal(both, again)
    torch.testing.assert_close(alone, both[1:], atol=1e-4, rtol=1e-4)


def test_what_is_not_supported_says_so(cases: Cases, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ModelError, match=f"supported are {', '.join(sorted(MODELS.targets()))}"):
        models.load(str(tmp_path))
    (tmp_path / "model_index.json").rename(tmp_path / "modular_model_index.json")
    with pytest.raises(ModelError, match="modular pipelines"):
        models.load(str(tmp_path))
    for kind in (diffusers.EulerDiscreteScheduler, diffusers.PNDMScheduler):
        with pytest.raises(ModelError, match=f"{kind.__name__} does not work here: .* DDIMScheduler"):
            from_scheduler(kind(skip_prk_steps=True) if kind is diffusers.PNDMScheduler else kind())
    with pytest.raises(ModelError, match=r"CogVideoX 1\.5 is not supported"):
        type(cases["cogvideox-5b"].model)(cogvideox(rotary=True, patch_size_t=2), None, "here")


def test_missing_shard_is_one_line(cases: Cases, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(cases["ltx"].folder, folder)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    cases["ltx"].plain.transformer.save_pretrained(folder / "transformer", max_shard_size="100KB")
    shards = sorted((folder / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    assert models.load(str(folder)).device.type == "cpu"
    shards[-1].unlink()
    with pytest.raises(ModelError, match="lacks") as caught:
        models.load(str(folder))
    assert "\n" not in str(caught.value)
    assert shards[-1].name in str(caught.value)
