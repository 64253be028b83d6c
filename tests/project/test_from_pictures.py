"""Models that make a video from a picture: what the picture reaches, and whole runs with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from tests.conftest import PROMPTS
from tests.support.commands import fails, main_ok
from tests.support.kept_videos import write_once
from vpo_kit import losses, models
from vpo_kit.errors import DataError
from vpo_kit.evaluation.samples import Results, compare
from vpo_kit.inputs import Inputs, Shade, as_image
from vpo_kit.library.sample import sample as sample_videos
from vpo_kit.methods.rows import rows_of
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.encoding import PromptCache
from vpo_kit.sampler import Guidance, draw_noise, sample
from vpo_kit.schedule import FlowSchedule
from vpo_kit.testing.families import FAMILIES
from vpo_kit.training.data import Prompts
from vpo_kit.training.lora import WEIGHTS_NAME
from vpo_kit.video import read_video

SHAPE = (8, 3, 4, 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny pipelines: one that sees a picture beside the latents, one whose first latent frame is the picture's."""
    found = {}
    for name in ("wan2.2-i2v-a14b", "wan2.2-5b-i2v"):
        torch.manual_seed(0)
        found[name] = tmp_path_factory.mktemp("models") / name
        FAMILIES[name].build().save_pretrained(found[name], safe_serialization=True)
        sizes = {"frames": 9, "height": 32, "width": 32, "fps": 8, "steps": 4, "guidance": 3.0}
        (found[name] / "vpo.json").write_text(json.dumps(sizes))
    return found


@pytest.fixture(scope="module")
def given(folders: dict[str, Path]) -> VideoModel:
    return models.load(str(folders["wan2.2-5b-i2v"]))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts with pictures, other ones to report on, and clips."""
    path = tmp_path_factory.mktemp("material")
    (path / "pictures").mkdir()
    for i in range(4):
        as_image(Shade(i).read(32, 48)).save(path / "pictures" / f"{i}.png")
    for name, rows in (("train", (0, 1)), ("heldout", (2, 3))):
        lines = [json.dumps({"prompt": PROMPTS[i], "image": f"pictures/{i}.png"}) for i in rows]
        (path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (path / "clips").mkdir()
    for i in range(2):
        moving = torch.stack([Shade(i + f).read(32, 32) for f in range(12)])
        write_once(path / "clips" / f"{i}.mp4", moving, 8)
        (path / "clips" / f"{i}.txt").write_text(PROMPTS[i])
    return path


def conditions(model: VideoModel, *seeds: int) -> Conditions:
    return model.encode_conditions([Inputs(PROMPTS[0], Shade(seed)) for seed in seeds])


def test_given_frames_have_no_noise_no_error_and_time_zero(given: VideoModel) -> None:
    found = conditions(given, 1, 2)
    x, eps, t = draw_noise(SHAPE, [3, 4]), draw_noise(SHAPE, [5, 6]), torch.tensor([0.3, 0.9])
    rows = rows_of(given.schedule, x, eps, t, found)
    assert torch.equal(rows.x_t[:, :, :1], found.tensors["given"])
    torch.testing.assert_close(rows.x_t[:, :, 1:], given.schedule.add_noise(x, eps, t)[:, :, 1:])
    with torch.no_grad():
        output = given.predict(rows.x_t, rows.time, found)
    errors = losses.frame_errors(output, rows.target, rows.weight)
    assert not errors[:, 0].any()
    free = losses.frame_errors(output, rows.target)[:, 1:].mean(1)
    torch.testing.assert_close(errors.mean(1), free)  # the mean over the frames that are not given
    seen: list[Tensor] = []
    hook = given.network.register_forward_pre_hook(
        lambda _, args, named: seen.append(named["timestep"]), with_kwargs=True
    )
    with torch.no_grad():
        given.predict(rows.x_t, rows.time, found)
    hook.remove()
    tokens = seen[0].view(2, 3, -1)
    assert not tokens[:, 0].any()
    torch.testing.assert_close(tokens[:, 1:], rows.time[:, None, None].expand_as(tokens[:, 1:]))


def test_the_sampler_keeps_given_frames(given: VideoModel) -> None:
    found, negative = conditions(given, 1, 2), given.encode_prompts([""])
    trace: list[Tensor] = []
    latents = sample(
        given, found, noise=draw_noise(SHAPE, [1, 2]), steps=4, guidance=Guidance(3.0, negative),
        callback=lambda _, x: trace.append(x),
    )  # fmt: skip
    for x in (*trace, latents):
        torch.testing.assert_close(x[:, :, :1], found.tensors["given"], atol=1e-5, rtol=1e-5)


def test_a_mask_and_given_frames_both_count() -> None:
    found = Conditions({"given": torch.ones(1, 2, 1, 4, 4)})
    x, mask = torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    mask[:, :2, :2] = 1
    counted = found.free(mask, x)
    assert counted is not None
    assert counted[0, 0].sum() == 0
    assert torch.equal(counted[0, 1:], mask[0, 1:])
    assert Conditions({"embeds": x}).free(None, x) is None


def test_a_negative_prompt_sees_the_items_own_picture(folders: dict[str, Path]) -> None:
    model = models.load(str(folders["wan2.2-i2v-a14b"]))
    found, negative = conditions(model, 1, 2), model.encode_prompts(["blurry"])
    both = found.instead(negative)
    assert torch.equal(both.tensors["condition"], found.tensors["condition"])
    assert torch.equal(both.tensors["embeds"], negative.tensors["embeds"].expand(2, -1, -1))
    dropped = found.replaced(1, negative)  # as caption dropout does it
    assert torch.equal(dropped.tensors["condition"], found.tensors["condition"])
    assert torch.equal(dropped.tensors["embeds"][1], negative.tensors["embeds"][0])


def test_what_the_cache_keeps_of_a_picture_is_what_is_encoded(given: VideoModel) -> None:
    items = [Inputs(PROMPTS[0], Shade(1)), Inputs(PROMPTS[1], Shade(2)), Inputs(PROMPTS[0], Shade(2))]
    direct = [given.encode_conditions([item]).tensors for item in items]
    one = sum(value.numel() * value.element_size() for value in direct[0].values())
    for most in (2**29, one, 0):  # all is kept; some; each thing only until the next one comes
        encode = PromptCache(given, most_bytes=most)
        for _ in range(2):
            found = encode(items).tensors
            assert all(torch.equal(found[name], torch.cat([row[name] for row in direct])) for name in direct[0])
        assert encode.num_bytes <= max(most, one)


def test_an_item_without_its_picture_is_refused(given: VideoModel, tiny_wan: Path) -> None:
    with pytest.raises(DataError, match=r"makes a video from a picture, and the prompt 'a' has none"):
        given.check_inputs([Inputs("a")])
    with pytest.raises(DataError, match=r"takes no last_image, and 'a' has one: leave it out"):
        given.check_inputs([Inputs("a", Shade(), Shade())])
    with pytest.raises(DataError, match=r"takes no image, and the prompt 'a' has one: leave it out"):
        models.load(str(tiny_wan)).check_inputs([Inputs("a", Shade())])
    assert isinstance(given.schedule, FlowSchedule)  # a velocity of zero keeps a frame in this one alone
    assert Prompts(["a"]).inputs == ["a"]


def test_a_last_picture_that_is_needed_is_asked_for(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clips give no last picture: grey would be shown to CLIP in its place."""
    FAMILIES["wan2.1-flf2v"].build().save_pretrained(tmp_path / "model", safe_serialization=True)
    sizes = {"frames": 9, "height": 32, "width": 32, "fps": 8, "steps": 4, "guidance": 3.0}
    (tmp_path / "model" / "vpo.json").write_text(json.dumps(sizes))
    with pytest.raises(DataError, match="has no last_image: give prompts in a csv or jsonl file with both"):
        PromptCache(models.load(str(tmp_path / "model")))([Inputs("a", Shade())])
    words = ["pair", "--strategy", "guided", "--videos", material / "clips", "--model", tmp_path / "model"]
    code, said = fails(capsys, *words, "--output", tmp_path / "set", "--label", "none")
    assert (code, "has no last_image" in said, (tmp_path / "set").exists()) == (1, True, False), said


def test_a_picture_of_no_prompt_is_not_passed_over(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--prompts", material / "train.jsonl", "--output", tmp_path / "out"]
    code, said = fails(capsys, *words, "--image", material / "pictures" / "0.png")
    assert (code, "--image and --last-image are for --prompt" in said) == (2, True), said


QUICK = (
    "--seed", 0, "--steps", 2, "--set", "batch_size=2", "--set", "sampling.steps=3", "--set", "lora.rank=2",
    "--set", "evaluation.judges=[]", "--set", "selection.strengths=[]", "--set", "evaluation.num_prompts=2",
)  # fmt: skip


def train(model: Path, output: Path, material: Path, method: str, *more: Any) -> dict[str, Any]:
    held = ("--set", f"evaluation.prompts={material / 'heldout.jsonl'}")
    main_ok(["train", "--model", model, "--method", method, "--output", output, *QUICK, *held, *more])
    found: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return found


@pytest.mark.parametrize("family", ["wan2.2-5b-i2v", pytest.param("wan2.2-i2v-a14b", marks=pytest.mark.slow)])
def test_online_from_a_prompt_file_with_pictures(
    family: str, folders: dict[str, Path], material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It trains, measures whether videos begin with their picture, and its LoRA loads in diffusers. An evaluation takes
    the pictures too, and goes on when there are more.
    """
    model = folders[family]
    found = train(
        model, tmp_path / "run", material, "online", "--reward", "technical",
        "--prompts", material / "train.jsonl", "--set", "method.num_candidates=2", "--set", "validation.share=0",
    )  # fmt: skip
    assert found["steps"] == 2
    measured = json.loads((tmp_path / "run" / "samples" / "step-000000" / "metrics.json").read_text())["metrics"]
    assert len(measured["first_frame"]) == 2
    assert "last_frame" not in measured
    pipeline = diffusers.WanImageToVideoPipeline.from_pretrained(model)
    lora = tmp_path / "run" / "lora"
    name = WEIGHTS_NAME if (lora / WEIGHTS_NAME).exists() else "high_noise.safetensors"
    pipeline.load_lora_weights(str(lora), weight_name=name)
    assert pipeline.get_active_adapters()
    held = tmp_path / "held.jsonl"
    held.write_text((material / "heldout.jsonl").read_text())
    shutil.copytree(material / "pictures", tmp_path / "pictures")
    words = ["eval", tmp_path / "run", "--prompts", held, "--output", tmp_path / "eval", "--best-of", 0]
    main_ok([*words, "--reward", "technical"])
    base = Results.load(tmp_path / "eval" / "videos" / "base")
    assert base.metrics["first_frame"] == pytest.approx(measured["first_frame"], abs=1e-5)  # the same videos
    made = {path.stat().st_ino for path in (tmp_path / "eval" / "videos").rglob("*.mp4")}
    rows = held.read_text().splitlines()  # the same prompt with another picture is another item, and comes first
    held.write_text("\n".join([json.dumps({"prompt": PROMPTS[2], "image": "pictures/0.png"}), *rows]))
    main_ok([*words, "--reward", "technical"])
    more = Results.load(tmp_path / "eval" / "videos" / "base")
    assert more.metrics["first_frame"][1:] == base.metrics["first_frame"]
    now = {path.stat().st_ino for path in (tmp_path / "eval" / "videos").rglob("*.mp4")}
    assert (len(made), len(now), made < now) == (4, 6, True)  # what was there of the others stayed
    held.write_text("\n".join(rows))
    code, said = fails(capsys, *words, "--reward", "technical")
    assert (code, "prompts that are left out now" in said) == (2, True), said
    with pytest.raises(DataError, match="the same prompts, pictures and seeds"):
        compare(base, replace(base, pictures=[["a", ""], ["b", ""]]))


@pytest.mark.parametrize("method", ["instruct", pytest.param("sft", marks=pytest.mark.slow)])
def test_clips_give_their_own_first_frame(
    method: str, folders: dict[str, Path], material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, clips = folders["wan2.2-5b-i2v"], ("--videos", material / "clips", "--set", "validation.share=0")
    reward = ("--reward", "technical") if method == "instruct" else ()
    code, said = fails(
        capsys, "train", "--model", model, "--method", method, "--output", tmp_path / "no", *QUICK, *clips, *reward,
        "--set", f"evaluation.prompts={material / 'heldout.jsonl'}",
    )  # fmt: skip
    assert (code, "data.first_frame=true" in said, "loading" in said) == (1, True, False), said
    found = train(model, tmp_path / "run", material, method, *clips, *reward, "--set", "data.first_frame=true")
    assert found["steps"] == 2


@pytest.mark.slow
def test_pairs_from_clips_and_dense_on_them(folders: dict[str, Path], material: Path, tmp_path: Path) -> None:
    model = folders["wan2.2-i2v-a14b"]
    main_ok([
        "pair", "--strategy", "guided", "--videos", material / "clips", "--model", model, "--output", tmp_path / "set",
        "--set", "sampling.steps=3", "--label", "reward:technical", "--set", "labelling.tie_share=0",
    ])  # fmt: skip
    found = train(
        model, tmp_path / "run", material, "dense", "--pairs", tmp_path / "set", "--set", "data.first_frame=true",
        "--set", "validation.share=0",
    )  # fmt: skip
    assert found["steps"] == 2


def test_a_sample_begins_with_its_image(folders: dict[str, Path], given: VideoModel, tmp_path: Path) -> None:
    """Two pictures of one prompt; the first frame is the picture, as far as the autoencoder keeps it."""
    items = [Inputs(PROMPTS[0], Shade(i)) for i in range(2)]
    videos = sample_videos(items, model=given, sampling={"steps": 2})
    for item, video in zip(items, videos, strict=True):
        kept = given.decode(given.encode(given.pictures([item])[:, None]))[0, 0]
        torch.testing.assert_close(video.frames[0], kept, atol=1e-4, rtol=0)
    as_image(Shade(0).read(32, 32)).save(tmp_path / "first.png")
    main_ok([
        "sample", "--model", folders["wan2.2-5b-i2v"], "--set", "sampling.steps=2", "--prompt", PROMPTS[0],
        "--image", tmp_path / "first.png", "--output", tmp_path / "videos",
    ])  # fmt: skip
    assert read_video(tmp_path / "videos" / "000-0.mp4").frames.shape == videos[0].frames.shape


def test_a_comparison_without_pictures_is_refused_before_it_begins(
    folders: dict[str, Path], material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.txt").write_text("a\nb\n")
    words = ["compare", "--model", folders["wan2.2-5b-i2v"], "--methods", "online", "--reward", "technical"]
    words += ["--prompts", tmp_path / "train.txt", "--output", tmp_path / "board", "--set"]
    words += [f"evaluation.prompts={material / 'heldout.jsonl'}"]
    for more in ([], ["--dry-run"]):
        code, said = fails(capsys, *words, *more)
        assert (code, "makes a video from a picture, and the prompt 'a' has none" in said) == (1, True), said
        assert not (tmp_path / "board").exists()
