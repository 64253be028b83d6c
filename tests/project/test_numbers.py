"""Numbers that go wrong: a run stops with the step, the items and a saved state, or goes on where nothing is wrong."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support import offline_run
from tests.support.brief_runs import PROMPTS
from vpo_kit import files, make_pairs, models, sample
from vpo_kit.config import Lora
from vpo_kit.errors import DataError, HealthError, ModelError, VpoError
from vpo_kit.evaluation.measuring import measure
from vpo_kit.library.export import export
from vpo_kit.models.base import VideoModel
from vpo_kit.pairing import store
from vpo_kit.rewards.base import Mixture, Reward, RewardOutput, RewardSpec
from vpo_kit.testing.rewards import Brightness, stub
from vpo_kit.testing.runs import train_briefly
from vpo_kit.training import checkpoints
from vpo_kit.training.lora import LoraPolicy

BAD = [math.nan, math.inf, -math.inf]


class Failing(Reward):
    """The mean pixel, and from its fourth call on something else."""

    spec = RewardSpec(
        name="failing",
        licence="none",
        source="closed form",
        scale="0 to 1",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        per_frame=True,
    )
    bad = math.nan
    good_calls = 3

    def forward(self, video: Tensor, prompts: Any = None, *, fps: float, segments: Any = None) -> RewardOutput:
        self.good_calls -= 1
        change = self.bad if self.good_calls < 0 else 0.0
        parts = None if segments is None else torch.stack([video[:, a:b].flatten(1).mean(1) for a, b in segments], 1)
        return RewardOutput(video.flatten(1).mean(1) + change, None if parts is None else parts + change)


Constant = stub("constant", lambda video, _: video.flatten(1).mean(1) * 0 + 1)


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


def run(
    model: VideoModel,
    folder: Path,
    method: str,
    rewards: list[Reward],
    prompts: list[str] = PROMPTS,
    before: Callable[[LoraPolicy], None] = lambda _: None,
    **settings: Any,
) -> list[dict[str, float]]:
    """Six steps of a method on prompts; the model is left as it was found."""
    return train_briefly(
        model, prompts, folder, Mixture([(reward, 1.0) for reward in rewards]) if rewards else None, before=before,
        steps=6, batch_size=2, checkpoints={"every": 4}, optimiser={"lr": 1e-3}, lora={"rank": 2, "alpha": 2},
        validation={"share": 0.0}, method={"name": method, **settings},
    )  # fmt: skip


ONLINE = {"num_candidates": 2, "updates_per_rollout": 1, "num_draws": 1}


def stopped_in_step_4(folder: Path) -> None:
    """Three steps are saved and logged, though checkpoints are written every fourth step."""
    found = checkpoints.latest(folder / "checkpoints")
    assert found is not None
    assert found[0].step == 3
    assert all(torch.isfinite(value).all() for value in found[0].policy.values())
    assert any(bool(value.any()) for key, value in found[0].policy.items() if "lora_B" in key)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("bad", BAD)
def test_a_reward_that_ranks(model: VideoModel, tmp_path: Path, bad: float) -> None:
    reward = Failing()
    reward.bad = bad
    with pytest.raises(DataError, match=r"^step 4, items [12], [12]: reward 'failing' is not finite for the prompt"):
        run(model, tmp_path, "online", [reward], **ONLINE)
    stopped_in_step_4(tmp_path)


@pytest.mark.parametrize("bad", BAD)
def test_a_reward_with_a_gradient(model: VideoModel, tmp_path: Path, bad: float) -> None:
    reward = Failing()
    reward.bad = bad
    pattern = r"^step 4: the loss is -?(nan|inf); items [12], [12]; prompts '.*no weight was changed"
    with pytest.raises(HealthError, match=pattern):
        run(model, tmp_path, "vader", [reward], guidance_gradient=False)
    stopped_in_step_4(tmp_path)


def test_a_model_that_gives_nan(tiny_wan: Path, tmp_path: Path) -> None:
    """Reward and pairs are sound; a weight of the network goes bad in the middle of the run."""
    model = models.load(str(tiny_wan))
    passes = 0

    def spoil(network: torch.nn.Module, *_: object) -> None:
        nonlocal passes
        passes += 1
        if passes == 4 * 2:  # policy and reference in each step
            with torch.no_grad():
                next(network.parameters()).fill_(math.nan)

    model.network.register_forward_pre_hook(spoil)
    pairs = offline_run.make_set(tmp_path / "pairs")
    with pytest.raises(HealthError, match=r"^step 4: the loss is nan; items p\d, p\d, p\d, p\d; prompts .*no weight"):
        offline_run.run(model, pairs, tmp_path / "run", 6, "dense", checkpoints={"every": 4}, validation={"share": 0.0})
    stopped_in_step_4(tmp_path / "run")


@pytest.fixture
def broken(tiny_wan: Path, tmp_path: Path) -> Path:
    """A model that gives NaN, as one does that overflows."""
    folder = shutil.copytree(tiny_wan, tmp_path / "broken")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: value * math.nan for name, value in load_file(weights).items()}, weights)
    return folder


def test_a_video_that_is_not_finite_is_none(broken: Path, tmp_path: Path) -> None:
    """It became a black file, and where a reward was asked the reward was blamed."""
    said = "^the video of the prompt 'a red circle' is not finite"
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    with pytest.raises(DataError, match=said):
        sample("a red circle", model=str(broken), output=tmp_path / "videos")
    for label in ("none", "reward:vqa"):
        with pytest.raises(DataError, match=said):
            make_pairs(
                tmp_path / label, prompts=tmp_path / "prompts.txt", model=str(broken), label=label, quiet=True,
                sampling={"steps": 1},
            )  # fmt: skip
    video = torch.full((2, 3, 3, 8, 8), math.nan)
    with pytest.raises(DataError, match=said):
        Mixture([(Brightness(), 1.0)])(video, ["a red circle"] * 2, fps=8, group=2)
    with pytest.raises(DataError, match=said):
        measure(video, ["a red circle"] * 2, [Brightness()], 8)
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize("form", ["merged", "diffusers"])
def test_a_lora_that_is_not_finite_is_refused(tiny_wan: Path, tmp_path: Path, form: Any) -> None:
    policy = LoraPolicy(models.load(str(tiny_wan)), Lora(rank=2, alpha=2), seed=0)
    with torch.no_grad():
        policy.parameters[1][0, 0] = math.nan
    policy.export(tmp_path / "lora")
    with pytest.raises(ModelError, match="safetensors holds numbers that are not finite"):
        export(tmp_path / "lora", form, tmp_path / "own", str(tiny_wan))
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("method", ["dense", "structural", "sft"])
def test_data_that_are_not_finite(model: VideoModel, tmp_path: Path, method: str, bad: float) -> None:
    """One of eight pairs; its hash is right, as it would be in a set made so. The item is named."""
    pairs = offline_run.make_set(tmp_path / "pairs")
    path = pairs / "latents/5.safetensors"
    tensors = load_file(path)
    tensors["first"][0, 0, 0, 0] = bad
    tensors["source"][0, 0, 0, 0] = bad
    save_file(tensors, path)
    found = store.read(pairs)
    right = found.pairs[5].sha256.model_copy(update={"latents": files.sha256(path)})
    changed = [pair.model_copy(update={"sha256": right}) if pair.id == "p5" else pair for pair in found.pairs]
    store.write(pairs, found.facts, changed)
    settings = {"checkpoints": {"every": 4}, "validation": {"share": 0.0}}
    with pytest.raises(HealthError, match=r"^step [12]: the loss is .*; items .*p5.*; prompts .*no weight"):
        offline_run.run(model, pairs, tmp_path / "run", 6, method, **settings)
    weights = checkpoints.latest(tmp_path / "run/checkpoints")
    assert weights is None or all(torch.isfinite(value).all() for value in weights[0].policy.values())


def test_half_precision_that_overflows(tiny_wan: Path, tmp_path: Path) -> None:
    """Weights within float16's range, whose products are not."""
    model = models.load(str(tiny_wan), dtype="float16")
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.ndim == 2:
                wide = parameter.float()
                parameter.copy_(wide * (2e4 / wide.abs().max()))
    assert all(torch.isfinite(parameter).all() for parameter in model.network.parameters())
    pairs = offline_run.make_set(tmp_path / "pairs")
    with pytest.raises(HealthError, match=r"step 1: the loss is (nan|inf)"):
        offline_run.run(model, pairs, tmp_path / "run", 2, "dense")


def test_ema_moves_once_for_a_step_that_comes_again(model: VideoModel, tmp_path: Path) -> None:
    """A step that failed after the reference had moved is done again on resume: the log is that of a whole run."""
    settings = {**ONLINE, "reference_update": "ema", "reference_decay": 0.5}
    whole = run(model, tmp_path / "whole", "online", [Brightness()], **settings)
    passes = 0

    def spoil(output: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return output * math.nan if passes == 4 else output

    from vpo_kit.methods import online

    sound = online.pair_output

    def failing(*arguments: Any, **options: Any) -> Any:
        from dataclasses import replace

        found = sound(*arguments, **options)
        return replace(found, loss=spoil(found.loss))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "pair_output", failing)
        with pytest.raises(HealthError, match="step 4"):
            run(model, tmp_path / "parts", "online", [Brightness()], **settings)
    parts = run(model, tmp_path / "parts", "online", [Brightness()], **settings)
    assert parts == whole


def test_a_reward_without_spread_teaches_nothing(model: VideoModel, tmp_path: Path) -> None:
    """Alone, and beside another constant: n candidates all equal are ties, and no number goes wrong."""
    for rewards in ([Constant()], [Constant(), _named(Constant, "other")]):
        folder = tmp_path / str(len(rewards))
        rows = run(model, folder, "online", rewards, **ONLINE)
        assert [(row["loss"], row["skipped"], row["grad_norm"]) for row in rows] == [(0.0, 1.0, 0.0)] * 6
        found = checkpoints.latest(folder / "checkpoints")
        assert found is not None
        assert not any(bool(value.any()) for key, value in found[0].policy.items() if "lora_B" in key)


def test_a_constant_reward_has_no_gradient(model: VideoModel, tmp_path: Path) -> None:
    rows = run(model, tmp_path, "draft", [Constant()])
    assert [row["grad_norm"] for row in rows] == [0.0] * 6
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("method", ["online", "draft"])
def test_one_prompt(model: VideoModel, tmp_path: Path, method: str) -> None:
    """A batch of two from a source of one: the same prompt twice, each time with noise of its own."""
    rows = run(model, tmp_path, method, [Brightness()], PROMPTS[:1], **(ONLINE if method == "online" else {}))
    assert len(rows) == 6
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_pairs_of_equal_videos(model: VideoModel, tmp_path: Path) -> None:
    """Labelled though they are alike: the loss is ln 2, without a gradient."""
    pairs = offline_run.make_set(tmp_path / "pairs")
    found = store.read(pairs)
    for pair in found.pairs:
        tensors = store.read_latents(pairs / pair.latents)
        store.write_latents(pairs / pair.latents, {**tensors, "second": tensors["first"].clone()})
    renewed = [
        pair.model_copy(
            update={"sha256": pair.sha256.model_copy(update={"latents": files.sha256(pairs / pair.latents)})}
        )
        for pair in found.pairs
    ]
    store.write(pairs, found.facts, renewed)
    for method in ("dense", "structural"):
        rows = offline_run.run(
            model, pairs, tmp_path / method, 2, method, micro_batch_size=1 if method == "dense" else None
        )
        assert [row["loss"] for row in rows] == pytest.approx([math.log(2)] * 2, abs=1e-6)
        assert [row["grad_norm"] for row in rows] == pytest.approx([0.0] * 2, abs=1e-6)


def test_a_set_of_ties_is_refused(model: VideoModel, tmp_path: Path) -> None:
    pairs = offline_run.make_set(tmp_path / "pairs")
    found = store.read(pairs)
    store.write(pairs, found.facts, [p.model_copy(update={"labels": [0, 0, 0], "label": 0}) for p in found.pairs])
    for method in ("dense", "structural", "dpo"):
        with pytest.raises(VpoError, match="has nothing to learn from: all of its pairs are ties"):
            offline_run.run(model, pairs, tmp_path / "run", 2, method)


def _named(kind: type[Reward], name: str) -> Reward:
    from dataclasses import replace

    return type(name, (kind,), {"spec": replace(kind.spec, name=name)})()  # type: ignore[no-any-return]
