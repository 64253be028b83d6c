"""Every family, on a tiny pipeline in the real layout loaded by the production path, against diffusers itself."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch

from tests.support.places import ROOT
from vpo_kit import models
from vpo_kit.errors import ConfigError, DataError, ModelError
from vpo_kit.inputs import Inputs, Shade
from vpo_kit.models.ltx import LTXModel
from vpo_kit.models.rerun import rerun
from vpo_kit.models.wan import WanImageModel
from vpo_kit.registry import MODELS
from vpo_kit.sampler import chain_levels, draw_noise, sample
from vpo_kit.schedule import DDPMSchedule, FlowSchedule, from_scheduler
from vpo_kit.testing import adapter, families
from vpo_kit.testing.calling import arguments_of
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.lora_checks import with_lora
from vpo_kit.testing.parity import PROMPTS as BOTH
from vpo_kit.testing.parity import Case, make
from vpo_kit.training.export import probe
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


def test_the_table_names_every_family(cases: Cases) -> None:
    made = {json.loads((cases[name].folder / "model_index.json").read_text())["_class_name"] for name in FAMILIES}
    assert made == set(MODELS.targets())


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_an_image_that_may_be_left_out(cases: Cases, scale: float) -> None:
    """LTX 0.9.5: from an image too it is the pipeline's own video, where that adds no noise to the image."""
    case, noise = cases["ltx0.9.5"], draw_noise(cases["ltx0.9.5"].shape, [11, 12])
    own = replace(case, call=replace(case.call, more={"image_cond_noise_scale": 0.0}))
    items = [Inputs(prompt, Shade(i)) for i, prompt in enumerate(TWO)]
    ours = own.ours(noise, scale, items)
    assert float((ours - own.theirs(noise, scale, items)).abs().max()) < 1e-4
    assert float((ours - own.ours(noise, scale)).abs().max()) > 1e-3  # the image matters
    with pytest.raises(DataError, match="some prompts have an image and 'a' has none: give it to all or to none"):
        case.model.check_inputs([*items, Inputs("a")])


def test_a_picture_in_the_noise(cases: Cases) -> None:
    """HunyuanVideo I2V from the caller's own noise, into which its pipeline mixes a thousandth of the picture."""
    case, noise = cases["hunyuan-i2v"], draw_noise(cases["hunyuan-i2v"].shape, [11])
    arguments = arguments_of(case.model, case.plain, case.call, item=case.model.example(TWO[0]), negative="", scale=4.0)
    theirs = case.plain(**arguments, latents=noise)[0]
    assert float((case.ours(noise, 4.0, TWO[:1]) - theirs).abs().max()) < 1e-4


def test_networks_that_take_something_else_are_refused(cases: Cases, tmp_path: Path) -> None:
    """Of a pipeline that drops frames, of a patch in time that nobody has published, of a step that sees its end."""
    for name, changed, problem in (
        ("hunyuan-i2v", {"image_condition_type": "latent_concat"}, "its network takes the picture by latent_concat"),
        ("cogvideox1.5", {"patch_size_t": 4}, "its network takes 4 latent frames together: .* 1.0 takes one, 1.5 two"),
        ("hunyuan1.5-i2v", {"use_meanflow": True}, "its network takes the time of the next step .* was not distilled"),
    ):
        pipeline = copy.copy(cases[name].plain)
        pipeline.transformer = type(pipeline.transformer).from_config(pipeline.transformer.config, **changed)
        with pytest.raises(ModelError, match=problem):
            type(cases[name].model)(pipeline, None, str(tmp_path))


@pytest.mark.parametrize(
    ("given", "scale"),
    [
        ({"guidance_scale": 1.0}, 1.0),  # of the distilled models
        ({"guidance_scale": 3.0}, 3.0),
        ({"guidance_scale": 2.0, "use_original_formulation": True}, 3.0),
        ({"guidance_scale": 3.0, "enabled": False}, 1.0),
    ],
)
def test_guided_as_the_folder_says(cases: Cases, given: dict[str, float], scale: float) -> None:
    """HunyuanVideo 1.5: without settings it is the video that its pipeline's own guider makes."""
    case, noise = cases["hunyuan1.5"], draw_noise(cases["hunyuan1.5"].shape, [11])
    pipeline, plain = copy.copy(case.model.pipeline), copy.copy(case.plain)
    pipeline.guider = diffusers.ClassifierFreeGuidance(**given)
    model = type(case.model)(pipeline, None, "a pipeline at hand")
    assert model.settings == replace(case.model.settings, guidance=scale)
    arguments = arguments_of(model, plain, case.call, item=Inputs(TWO[0]), negative="", scale=9.0)
    plain.guider = pipeline.guider.new()
    with torch.no_grad():
        guidance = model.guidance(model.settings, model.encode_prompts([""]))
        conditions = case.conditions(TWO[:1], model)
        ours = model.decode(sample(model, conditions, noise=noise, steps=case.call.steps, guidance=guidance))
    assert float((ours - plain(**arguments, latents=noise)[0]).abs().max()) < 1e-4


def test_a_latent_frame_in_front(cases: Cases) -> None:
    """CogVideoX 1.5: a copy of the first one, which stands for the first pixel frame and is not decoded."""
    model, call = cases["cogvideox1.5"].model, cases["cogvideox1.5"].call
    latents = model.encode(torch.rand(1, call.frames, 3, call.height, call.width))
    assert latents.shape[1:] == cases["cogvideox1.5"].shape
    assert latents.shape[2] % 2 == 0
    assert torch.equal(latents[:, :, 0], latents[:, :, 1])
    assert model.frame_map(call.frames) == [(0, 1), (0, 1), (1, 5), (5, 9)]
    with torch.no_grad():
        other = torch.cat([latents[:, :, :1] + 1, latents[:, :, 1:]], 2)
        assert torch.equal(model.decode(other), model.decode(latents))
        assert torch.equal(model.decode(other, [0, 7]), model.decode(latents, [0, 7]))


@pytest.mark.parametrize("check", adapter.CHECKS)
def test_is_its_pipeline(case: Case, check: str) -> None:
    """Every check of `vpo model check`."""
    found = list(adapter.CHECKS[check](case))
    assert found
    assert all(one.passed for one in found), [one.line() for one in found]


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


def test_bfloat16(case: Case) -> None:
    """Weights in bfloat16, latents and video in float32, and the video of the float32 model as far as that goes."""
    model, noise = models.load(str(case.folder), dtype="bfloat16"), draw_noise(case.shape, [1])
    for key, value in FAMILIES[case.folder.name].attributes.items():
        setattr(model.pipeline, key, value)
    with torch.no_grad():
        videos = [
            m.decode(sample(m, case.conditions(TWO[:1], m), noise=noise, steps=2)).float() for m in (model, case.model)
        ]
        latents = model.encode(videos[0])
    assert model.pipeline.vae.dtype == torch.bfloat16
    assert latents.dtype == videos[0].dtype == torch.float32
    assert float((videos[0] - videos[1]).abs().mean()) < 0.25 * float(videos[1].std())


def test_lora_of_another_family_is_refused(cases: Cases, tmp_path: Path) -> None:
    """Also where diffusers itself only logs that it found no place for the weights."""
    for source, targets in {"wan2.1": ["ltx", "modelscope"], "modelscope": ["animatediff", "mochi"]}.items():
        model = cases[source].model
        with with_lora(model) as policy:
            policy.export(tmp_path / source)
        for target in targets:
            with (
                pytest.raises(ModelError, match=r"is the LoRA of another model: \d+ of its \d+ weights have") as caught,
                loaded(cases[target].model, tmp_path / source),
            ):
                pass
            assert "\n" not in str(caught.value)


def test_a_prompt_is_cut_where_its_notice_says(case: Case) -> None:
    """A last word within the limit is seen, one behind it is not."""
    model, most = case.model, case.model.most_tokens
    assert most is not None

    def seen(count: int) -> bool:
        one, other = (model.encode_prompts(["red " * count + last]).tensors for last in ("circle", "square"))
        return any(not torch.equal(one[name], other[name]) for name in one)

    def length(text: str) -> int:
        return len(model.pipeline.tokenizer(text, verbose=False)["input_ids"])

    template = most // 4 * ("Hunyuan" in type(model.pipeline).__name__)  # a tiny tokenizer cuts its end to many tokens
    assert seen(max(n for n in range(most) if length("red " * n + "circle") <= most - template))
    assert not seen(min(n for n in range(most + 2) if length("red " * n) > most))


def test_wan_s_own_clamp_silences_no_pixel(tiny_wan: Path) -> None:
    """Diffusers' decoder ends with one: the values stay, and the gradient of what is saturated passes."""
    model = models.load(str(tiny_wan))
    latents = 30 * torch.randn(1, 8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = model.decode(latents)
    silent = (plain == 0) | (plain == 1)
    assert silent.any()
    seen = model.decode(latents.requires_grad_())
    torch.testing.assert_close(seen.detach(), plain)
    (gradient,) = torch.autograd.grad(seen[silent].sum(), latents)
    assert gradient.abs().max() > 0


def test_a_decoder_that_adds_noise_adds_the_same() -> None:
    """LTX 0.9.1: before and after would differ by more than the LoRA, and a gradient be that of another picture."""
    torch.manual_seed(0)
    model = LTXModel(families.ltx(timed=True, noisy=True), None, "tiny")
    latents = torch.randn(1, 8, 3, 2, 2).requires_grad_()
    state = torch.get_rng_state()
    video = model.decode(latents)
    assert torch.equal(torch.get_rng_state(), state)
    (gradient,) = torch.autograd.grad(video.square().sum(), latents)
    rerun(model.pipeline.vae.decoder)
    again = model.decode(latents)
    assert torch.equal(again, video)
    assert torch.equal(torch.autograd.grad(again.square().sum(), latents)[0], gradient)
    for name, weight in model.pipeline.vae.decoder.named_parameters():
        if "per_channel_scale" in name:
            weight.data.zero_()
    assert not torch.equal(model.decode(latents), video)


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
    assert sizes["wan2.1"].frames == sizes["cogvideox1.5"].frames == 81
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
        seen = ["add_k_proj", "add_v_proj"] if isinstance(model, WanImageModel) else []
        assert list(model.lora_targets) == ["to_q", "to_k", "to_v", "to_out.0", *seen], "the docs say so"


def test_the_docs_say_how_diffusers_loads_a_lora(cases: Cases) -> None:
    ways = {(True, True): "`pipe.load", (False, True): "`pipe.transformer.load_lora_adapter`", (True, False): "none"}
    lines = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    for name in FAMILIES:
        case = cases[name]
        network = case.plain.components[case.model.network_name]
        has = hasattr(case.plain, "load_lora_weights"), hasattr(network, "load_lora_adapter")
        rows = [row for row in lines if row.startswith(f"| `{type(case.plain).__name__}`")]
        assert rows
        assert all(ways[has] in row.split("|")[5] or "each expert" in row for row in rows), name


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


def test_cogvideox_i2v_has_one_size(cases: Cases) -> None:
    model = cases["cogvideox-5b-i2v"].model
    assert model.only_size == (32, 32)
    with pytest.raises(ConfigError, match=r"has positions for 32 x 32 alone: set sampling.width=32 and"):
        model.use(model.settings.changed(frames=9, height=64, width=64))
    assert probe(model).isfinite().all()  # what an export is checked with
    assert cases["cogvideox-5b"].model.only_size is None


def test_cogvideox_1_5_has_places_up_to_a_size(cases: Cases) -> None:
    for name in ("cogvideox1.5", "cogvideox1.5-i2v"):
        model = cases[name].model
        with pytest.raises(ConfigError, match=r"has positions for 32 x 32 at most: 48 x 32 is too large"):
            model.use(model.settings.changed(frames=9, height=32, width=48))
        assert probe(model).isfinite().all(), "an export's check would ask for more"
    assert cases["cogvideox-5b"].model.largest_size is None


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
