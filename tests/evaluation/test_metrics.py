"""Metrics against closed forms, plain second computations, and clips whose truth is known."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as tv

from tests.support import known as figures
from vpo_kit.errors import ConfigError, DataError, ModelError, OutputError
from vpo_kit.evaluation import distances, features, temporal, vbench
from vpo_kit.evaluation.consistency import Consistency, Dino, consistency, embed
from vpo_kit.evaluation.features import diversity
from vpo_kit.evaluation.metrics import about, known, ordered
from vpo_kit.evaluation.samples import Results
from vpo_kit.evaluation.temporal import closed_forms
from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.flow import gaussian
from vpo_kit.rewards.images import TextImageReward, TwoTowers
from vpo_kit.rewards.vqa import GoldVQA
from vpo_kit.sprites import world
from vpo_kit.video import write_video


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texture(height: int, width: int) -> Tensor:
    """Smooth noise ``[3, height, width]`` in [0, 1]: something to see everywhere."""
    noise = gaussian(torch.rand(1, 3, height, width, generator=generator()), 1.5)[0]
    return (noise - noise.min()) / (noise.max() - noise.min())


def pan(step: int, frames: int = 9, side: int = 64) -> Tensor:
    """A clip ``[1, F, 3, side, side]`` that moves left by `step` pixels a frame."""
    picture = texture(side, side + step * frames)
    return torch.stack([picture[:, :, step * f : step * f + side] for f in range(frames)])[None]


def sprites(speed: str, *flaws: world.Flaw, count: int = 4) -> Tensor:
    """`count` clips ``[N, 17, 3, 64, 64]`` of one speed, each of another shape, all with the flaws put in."""
    scenes = [
        world.Scene(colour="red", shape=shape, motion="moving right", speed=speed, background="navy")
        for shape in world.SHAPES[:count]
    ]
    clips = [world.render(scene, np.random.default_rng(i), flaws).video for i, scene in enumerate(scenes)]
    return torch.from_numpy(np.stack(clips))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# in closed form


def test_a_frozen_clip_is_the_best_over_time_and_does_not_move() -> None:
    still = texture(64, 64).expand(1, 9, 3, 64, 64)
    found = {key: values[0] for key, values in closed_forms(still, 8).items()}
    assert found["flicker"] == 1
    assert found["smoothness"] == pytest.approx(1, abs=1e-5)
    assert found["warp_error"] == pytest.approx(0, abs=1e-3)
    assert found["flow_speed"] == pytest.approx(0, abs=1e-3)
    assert found["dynamic_degree"] == 0


def test_flicker_by_hand() -> None:
    clip = torch.full((5, 3, 16, 16), 0.5)
    clip[1::2] += 0.2
    assert float(temporal.flicker(clip)) == pytest.approx(0.8)
    clip[3:] = clip[2]  # 2 of 4 steps are left
    assert float(temporal.flicker(clip)) == pytest.approx(0.9)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_speed_of_a_pan(step: int) -> None:
    clip = pan(step)
    flow = temporal.flow_between(clip[0, :-1], clip[0, 1:])
    assert float(flow[:, 0].median()) == pytest.approx(-step, abs=0.01)
    assert float(flow[:, 1].median()) == pytest.approx(0, abs=0.01)
    found = {key: values[0] for key, values in closed_forms(clip, 8).items()}
    # the fastest 5% lie at the border, where less is known: a little too fast, never too slow
    assert step * 4 <= found["flow_speed"] <= step * 4 * 1.2
    assert found["dynamic_degree"] == float(step * 4 > 6)
    raw = 255 * (1 - found["flicker"])
    assert found["warp_error"] < 0.05 * raw
    assert step == 5 or found["smoothness"] > 0.99  # 10 pixels over two frames are more than these small waves allow


def test_speed_is_for_an_eighth_of_a_second() -> None:
    clip = pan(1, frames=17)
    speeds = {fps: closed_forms(clip, fps)["flow_speed"][0] for fps in (8, 16, 24)}
    assert speeds[16] == pytest.approx(2 * speeds[8], rel=0.15)
    assert speeds[24] == pytest.approx(3 * speeds[8], rel=0.2)
    moves = [closed_forms(clip, fps)["dynamic_degree"][0] for fps in (8, 16)]
    assert moves == [0, 1]


def test_speed_is_that_of_the_fastest_twentieth_of_the_picture() -> None:
    flow = torch.zeros(1, 2, 20, 20)
    flow[0, 0, 9:11, 5:15] = 3.0  # 20 of 400 pixels, in pixels of a side of 20
    assert float(temporal.fastest(flow)) == pytest.approx(3 * 256 / 20)
    flow[0, 0, 9, 5:15] = 1.0
    assert float(temporal.fastest(flow)) == pytest.approx(2 * 256 / 20)
    flow[0, 0, 9:11, 5:15] = 30.0  # out of the picture: nothing is matched there
    assert float(temporal.fastest(flow)) == 0


def test_vbench_rule_for_moving_clips() -> None:
    for frames, needed in ((2, 1), (9, 2), (17, 4), (49, 12)):
        speeds = torch.zeros(frames - 1)
        speeds[: needed - 1] = 7
        assert not temporal.is_dynamic(speeds, frames)
        speeds[needed - 1] = 7
        assert temporal.is_dynamic(speeds, frames)
        assert not temporal.is_dynamic(speeds.clamp_max(6), frames)


def test_dynamic_degree_tells_slow_clips_from_quick_ones() -> None:
    assert closed_forms(sprites("slowly"), 8)["dynamic_degree"] == [0] * 4
    assert closed_forms(sprites("quickly"), 8)["dynamic_degree"] == [1] * 4


def test_what_every_metric_says_of_itself() -> None:
    """Which way is better, and where it stands: tables, verdicts and corrections go by it."""
    figures.check("metrics", {name: asdict(metric) for name, metric in known().items()})


def test_smoothness_guesses_every_second_frame_to_the_last() -> None:
    still = texture(64, 64).expand(1, 9, 3, 64, 64)
    for spoiled in (1, 3, 5, 7):
        clip = still.clone()
        clip[:, spoiled] = 0
        assert mean(closed_forms(clip, 8)["smoothness"]) == pytest.approx(1 - float(still.mean()) / 4, abs=1e-3)


def test_flaws_show_where_they_should() -> None:
    def measured(speed: str, *flaws: world.Flaw) -> dict[str, float]:
        return {key: mean(values) for key, values in closed_forms(sprites(speed, *flaws, count=2), 8).items()}

    clean = measured("quickly")
    flawed = {kind: measured("quickly", world.Flaw(kind, 4, 13, 0.5)) for kind in world.FLAWS}
    for kind in ("flicker", "noise", "blocks"):
        assert flawed[kind]["warp_error"] > 3 * clean["warp_error"], kind
    for kind in ("jitter", "drop", "noise"):
        assert 1 - flawed[kind]["smoothness"] > 3 * (1 - clean["smoothness"]), kind
    assert flawed["blur"]["sharpness"] < 0.7 * clean["sharpness"]
    assert flawed["freeze"]["flow_speed"] < 0.8 * clean["flow_speed"]
    # quick motion alone is no error
    assert clean["warp_error"] == pytest.approx(measured("slowly")["warp_error"], abs=0.3)


def test_noise_raises_the_warp_error_by_its_size() -> None:
    clip = pan(2)
    errors = []
    for sigma in (0.0, 0.02, 0.04):
        noisy = clip + sigma * torch.randn(clip.shape, generator=generator(1))
        errors.append(closed_forms(noisy, 8)["warp_error"][0])
    assert errors[0] < 1 < 0.5 * errors[1] < 0.4 * errors[2]


def test_sharpness_is_about_edges_and_not_about_their_height() -> None:
    clip = sprites("slowly")
    sharp = mean(closed_forms(clip, 8)["sharpness"])
    assert mean(closed_forms(0.25 + clip / 2, 8)["sharpness"]) == pytest.approx(sharp, rel=0.1)
    soft = gaussian(clip.flatten(0, 1), 1.5).view_as(clip)
    assert mean(closed_forms(soft, 8)["sharpness"]) < 0.6 * sharp


def test_short_and_small_clips_leave_out_what_they_cannot_show() -> None:
    assert set(closed_forms(pan(1, frames=1), 8)) == {"sharpness"}
    assert "smoothness" not in closed_forms(pan(1, frames=2), 8)
    assert set(closed_forms(pan(1, side=12), 8)) == {"sharpness"}
    large = torch.rand(1, 2, 3, 300, 400, generator=generator())
    assert temporal.working(large[0]).shape == (2, 3, 256, 341)


# features of networks


def test_consistency_by_hand() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    found = consistency(torch.stack([torch.stack([a, 3 * a, b]), torch.stack([a, -a, -a]), torch.stack([a, a, a])]))
    # a, a, b: (1 + 1) / 2 and (0 + 0) / 2; a, -a, -a: a negative cosine is 0, so (0 + 0) / 2 and (1 + 0) / 2
    assert found.tolist() == pytest.approx([0.5, 0.25, 1.0])


def tiny_vit(kind: str, folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    if kind == "vit":
        ViTModel(ViTConfig(intermediate_size=64, **sizes), add_pooling_layer=False).save_pretrained(folder)
    else:
        Dinov2Model(Dinov2Config(mlp_ratio=2, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_dino_is_the_stock_network_on_normalised_pictures(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = tiny_vit(kind, tmp_path)
    video = torch.rand(2, 3, 3, 56, 84, generator=generator())
    dino = Dino(str(folder))
    plain = AutoModel.from_pretrained(folder, **({"add_pooling_layer": False} if kind == "vit" else {})).eval()
    large = tv.resize(video.flatten(0, 1), [224, 336], antialias=True)
    pictures = tv.normalize(large, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # ImageNet's
    more = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.no_grad():
        wanted = plain(pictures, **more).last_hidden_state[:, 0].view(2, 3, 32)
    torch.testing.assert_close(embed(video, dino), wanted, atol=1e-5, rtol=1e-4)
    found = Consistency(dino, [])(video, [], 8)
    assert set(found) == {"subject_consistency"}
    first, last = (functional.cosine_similarity(wanted[0, 2], wanted[0, i], dim=0).clamp_min(0) for i in (0, 1))
    second = functional.cosine_similarity(wanted[0, 0], wanted[0, 1], dim=0).clamp_min(0)
    assert found["subject_consistency"][0] == pytest.approx(float((2 * second + first + last) / 4), abs=1e-5)
    clip = features.load("dino", dino, torch.device("cpu"))(video, 8)
    torch.testing.assert_close(clip, functional.normalize(wanted, dim=-1).mean(1), atol=1e-5, rtol=1e-4)


def test_dino_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig

    with pytest.raises(ModelError, match=r"cannot be loaded.*facebook/dino-vitb16"):
        Dino(str(tmp_path / "none"))
    CLIPVisionConfig().save_pretrained(tmp_path / "clip")
    with pytest.raises(ModelError, match="is a clip_vision_model model: vit, dinov2"):
        Dino(str(tmp_path / "clip"))
    folder = tiny_vit("vit", tmp_path / "vit")
    listing = folder / "config.json"
    listing.write_text(json.dumps({**json.loads(listing.read_text()), "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"lacks weights: .*layer"):
        Dino(str(folder))


class Colours(TwoTowers):
    """The mean colour as the only feature."""

    def embed_frames(self, frames: Tensor) -> Tensor:
        return frames.mean((2, 3))


class ClipJudge(TextImageReward):
    spec = RewardSpec(
        name="clip",
        licence="none",
        source="closed form",
        scale="-1 to 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
    )

    def __init__(self) -> None:
        super().__init__()
        self.network = Colours()


def test_background_consistency_needs_clip_as_a_judge() -> None:
    video = torch.zeros(1, 3, 3, 8, 8)
    video[0, :2, 0] = 1  # red, red, blue
    video[0, 2, 2] = 1
    assert Consistency(None, [ClipJudge()])(video, [], 8) == {"background_consistency": [pytest.approx(0.5)]}
    assert Consistency(None, [GoldVQA()])(video, [], 8) == {}
    assert Consistency(None, [ClipJudge()])(video[:, :1], [], 8) == {}


def test_judge_features_are_what_its_last_layer_sees() -> None:
    video = sprites("slowly")
    judge = GoldVQA().judge
    found = features.load("judge", None, torch.device("cpu"))(video, 8)
    assert found.shape == (4, 96)
    score = (judge.head(found).squeeze(-1) - judge.offset) / judge.unit
    torch.testing.assert_close(score, judge(video).mean(1), atol=1e-4, rtol=1e-4)
    whole = features.load("judge", None, torch.device("cpu"))(video[:1], 8)
    torch.testing.assert_close(whole, found[:1], atol=1e-5, rtol=1e-5)


def test_pixel_features_measure_a_root_mean_square() -> None:
    pixels = features.load("pixels", None, torch.device("cpu"))
    black, white = torch.zeros(1, 9, 3, 32, 40), torch.ones(1, 9, 3, 32, 40)
    half = black.clone()
    half[..., 20:] = 1
    apart = [float((pixels(black, 8) - pixels(other, 8)).norm()) for other in (white, half, black)]
    assert apart == pytest.approx([1, 0.5**0.5, 0])


def test_diversity_is_the_mean_over_pairs_of_one_prompt() -> None:
    rows = torch.randn(6, 5, generator=generator())
    groups = [0, 0, 0, 1, 1, 1]
    found = diversity(rows, groups)
    pairs = [functional.pdist(rows[:3]).mean(), functional.pdist(rows[3:]).mean()]
    assert mean(found[:3]) == pytest.approx(float(pairs[0]), rel=1e-5)
    assert mean(found) == pytest.approx(float(sum(pairs) / 2), rel=1e-5)
    assert diversity(rows[:1].expand(4, 5), [7, 7, 9, 9]) == [0] * 4


def test_feature_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown feature extractor 'pixel' .did you mean 'pixels'"):
        features.check("pixel", has_dino=False)
    with pytest.raises(ConfigError, match="give --dino"):
        features.check("dino", has_dino=False)
    with pytest.raises(ConfigError, match="no feature extractor"):
        features.check("vpo_kit.rewards.vqa:GoldVQA", has_dino=False)
    assert features.check("vpo_kit.evaluation.features:PixelFeatures", has_dino=False) is features.PixelFeatures


# distances between sets


def drawn(means: Sequence[float], covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows whose sample mean and covariance are exactly these."""
    rows = np.random.default_rng(seed).normal(size=(count, len(means)))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T)).T)
    return rows @ np.linalg.cholesky(covariance).T + np.asarray(means)


def root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def test_frechet_distance_is_that_of_gaussians() -> None:
    x = drawn([0, 0], np.diag([1.0, 4.0]), 40, 0)
    y = drawn([3, 4], np.diag([9.0, 1.0]), 55, 1)
    assert distances.frechet(x, y) == pytest.approx(25 + (1 - 3) ** 2 + (2 - 1) ** 2)
    assert distances.frechet(x, x) == pytest.approx(0, abs=1e-9)
    first, second = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])  # they do not commute
    cross = root(root(first) @ second @ root(first))
    wanted = np.trace(first) + np.trace(second) - 2 * np.trace(cross)
    found = distances.frechet(drawn([1, 1], first, 30, 2), drawn([1, 1], second, 30, 3))
    assert found == pytest.approx(wanted)


def test_frechet_distance_without_full_rank() -> None:
    x, y = drawn([0, 0, 0], np.eye(3), 8, 0), drawn([1, 0, 0], 2 * np.eye(3), 9, 1)
    wide = np.pad(x, ((0, 0), (0, 40))), np.pad(y, ((0, 0), (0, 40)))  # fewer clips than features
    assert distances.frechet(*wide) == pytest.approx(distances.frechet(x, y))


def test_kernel_distance_is_the_mean_over_pairs() -> None:
    x, y = (np.random.default_rng(seed).normal(size=(count, 3)) + seed for seed, count in ((0, 6), (1, 5)))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = [np.mean([k(r[i], r[j]) for i in range(len(r)) for j in range(len(r)) if i != j]) for r in (x, y)]
    between = np.mean([k(a, b) for a in x for b in y])
    assert distances.kernel(x, y) == pytest.approx(sum(within) - 2 * between)


def test_kernel_distance_has_no_bias() -> None:
    rng = np.random.default_rng(0)
    found = [distances.kernel(rng.normal(size=(20, 4)), rng.normal(size=(30, 4))) for _ in range(300)]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found)) < 3 * error
    assert np.mean([distances.kernel(rng.normal(size=(20, 4)), 1 + rng.normal(size=(30, 4))) for _ in range(20)]) > 0.5
    same = rng.normal(size=(400, 4))
    assert abs(distances.kernel(same, same)) < 0.05


def test_changes_of_distances() -> None:
    rng = np.random.default_rng(0)
    reference, near, far = rng.normal(size=(60, 3)), rng.normal(size=(20, 3)), 1.5 + rng.normal(size=(20, 3))
    groups = np.arange(10).repeat(2)
    there, back = distances.compare(far, near, reference, groups), distances.compare(near, far, reference, groups)
    for name in ("frechet", "kernel"):
        assert there[name].difference == pytest.approx(-back[name].difference)
        assert there[name].p == back[name].p < 0.05
        assert there[name].high < 0 < back[name].low
        same = distances.compare(near, near, reference, groups)[name]
        assert (same.difference, same.p) == (0, 1)
        # of three prompts there are eight exchanges, and only none and all of them change it as much
        assert distances.compare(far[:6], near[:6], reference, [0, 0, 1, 1, 2, 2])[name].p == 2 / 8
    few = distances.compare(near[:2], far[:2], reference, [0, 1])["frechet"]
    assert (few.low == few.high == few.difference, few.p) == (True, 1)


# facts about metrics


def test_motion_stands_right_below_the_judges() -> None:
    names = ordered([*reversed(known()), "hpsv2", "vbench_imaging_quality"])
    assert names[:2] == ["hpsv2", "motion"]
    assert names[-1] == "vbench_imaging_quality"
    assert set(names) == {*known(), "hpsv2", "vbench_imaging_quality"}
    assert {about(name).direction for name in ("motion", "speed", "flow_speed", "vbench_dynamic_degree")} == {"neutral"}
    assert about("hpsv2").direction == "higher"


# VBench


PROMPTS = ['A cat, 9/16: "go"?', "a cat", "A Cat", "日" * 100, "日" * 100 + "x", "the end-2", "..."]


def evaluation(name: str) -> Results:
    groups = [i for i in range(len(PROMPTS)) for _ in range(2)]
    files = [f"{i:03d}-{k}.mp4" for i in range(len(PROMPTS)) for k in range(2)]
    return Results(name=name, prompts=PROMPTS, groups=groups, files=files, metrics={"vqa": [0.0] * len(files)})


def test_vbench_names_are_prompts_and_never_clash() -> None:
    names = vbench.names(evaluation("base"))
    assert len({name.casefold() for name in names}) == len(names)
    assert all(len(name.encode()) < 255 and "/" not in name and name.endswith(".mp4") for name in names)
    assert names[2:4] == ["a cat-0.mp4", "a cat-1.mp4"]
    # VBench takes a trailing number off and calls the rest the prompt
    assert [re.sub(r"-\d+$", "", Path(name).stem) for name in names[10:12]] == ["the end-2"] * 2


def results(folder: Path, model: str, values: dict[str, list[object]]) -> Path:
    """A results file as VBench writes it."""
    names = vbench.names(evaluation(model))
    content = {
        dimension: [0.5, [{"video_path": f"/x/{model}/{n}", "video_results": v} for n, v in zip(names, found)]]  # noqa: B905
        for dimension, found in values.items()
    }
    path = folder / f"{model}_{len(list(folder.iterdir()))}_eval_results.json"
    path.write_text(json.dumps(content))
    return path


def test_vbench_round_trip(tmp_path: Path) -> None:
    both = [evaluation("base"), evaluation("run")]
    sources = [tmp_path / "videos" / one.name for one in both]
    for one, source in zip(both, sources, strict=True):
        source.mkdir(parents=True)
        for number, file in enumerate(one.files):
            (source / file).write_bytes(f"{one.name}{number}".encode())
    target = tmp_path / "vbench"
    for _ in range(2):  # a second time it is the same
        commands = vbench.export(target, both, sources)
    assert len(commands) == 2
    assert commands[1].startswith(f"vbench evaluate --videos_path {target / 'run'} --dimension 'subject_consistency ")
    prompts = json.loads((target / "run.json").read_text())
    names = vbench.names(both[1])
    assert [prompts[name] for name in names] == [PROMPTS[i] for i in both[1].groups]
    assert [(target / "run" / name).read_bytes() for name in names] == [f"run{i}".encode() for i in range(14)]
    assert sorted(path.name for path in (target / "run").iterdir()) == sorted(names)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds no input for VBench"):
        vbench.export(tmp_path / "mine", both, sources)


def test_vbench_results_become_metrics(tmp_path: Path) -> None:
    both = [evaluation("base"), evaluation("run")]
    moved, sharp = [i % 2 == 0 for i in range(14)], [10.0 * i for i in range(14)]
    files = [results(tmp_path, "base", {"dynamic_degree": [*moved], "imaging_quality": [*sharp]})]
    files += [results(tmp_path, "run", {"dynamic_degree": [False] * 14})]
    with pytest.raises(DataError, match="lack imaging_quality of run/A cat"):
        vbench.read(files, both)
    files += [results(tmp_path, "run", {"imaging_quality": [50.0] * 14})]
    base, run = vbench.read(files, both)
    assert base.metrics["vbench_dynamic_degree"] == [1.0, 0.0] * 7
    assert base.metrics["vbench_imaging_quality"] == pytest.approx([i / 10 for i in range(14)])
    assert run.metrics["vbench_imaging_quality"] == [0.5] * 14
    assert run.metrics["vqa"] == both[1].metrics["vqa"]
    with pytest.raises(DataError, match="lack dynamic_degree of base"):
        vbench.read([results(tmp_path, "base", {"dynamic_degree": [True] * 13})], both[:1])
    with pytest.raises(DataError, match="the folder must be one of base"):
        vbench.read(files, both[:1])
    for text in ("[", "[]", '{"motion_smoothness": 3}', '{"a": [0, [{"video_path": "x"}]]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match="no results file of VBench"):
            vbench.read([tmp_path / "bad.json"], both)
    with pytest.raises(DataError, match="cannot read"):
        vbench.read([tmp_path / "none.json"], both)


def test_reference_clips_are_cut_to_the_samples(tmp_path: Path) -> None:
    from vpo_kit.evaluation.set_metrics import FeatureFolder, reference_files
    from vpo_kit.models.settings import Settings

    settings = Settings(frames=9, height=32, width=32, fps=8, steps=1, guidance=1)
    for number, clip in enumerate(sprites("slowly")):
        write_video(tmp_path / "clips" / "deep" / f"{number}.mp4", clip, 8)
    write_video(tmp_path / "clips" / "short.mp4", sprites("slowly")[0, :5], 8)
    seen: list[tuple[int, ...]] = []

    class Spy(features.PixelFeatures):
        def forward(self, video: Tensor, fps: float) -> Tensor:
            seen.append((*video.shape, round(fps)))
            return super().forward(video, fps)

    store = FeatureFolder(tmp_path / "features", "pixels", Spy)
    found = store.of_reference(tmp_path / "clips", settings, lambda _: None)
    assert found.shape == (4, 192)
    assert set(seen) == {(1, 9, 3, 32, 32, 8)}
    again = store.of_reference(tmp_path / "clips", settings, lambda _: None)
    assert torch.equal(found, again)
    assert len(seen) == 4  # kept, and not made again
    assert len(reference_files(tmp_path / "clips")) == 5
    (tmp_path / "clips" / "deep" / "0.mp4").unlink()
    assert len(store.of_reference(tmp_path / "clips", settings, lambda _: None)) == 3
    for folder, message in (("none", "there is no folder"), ("features", "fewer than two clips")):
        with pytest.raises(DataError, match=message):
            reference_files(tmp_path / folder)
    longer, other = settings.changed(frames=60), FeatureFolder(tmp_path / "other", "pixels", Spy)
    with pytest.raises(DataError, match="have 60 frames at 8 a second"):
        other.of_reference(tmp_path / "clips", longer, lambda _: None)
