"""A pair is what its row says: from its seeds, its prompt and its source both members are made here again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support import known
from vpo_kit import files, models
from vpo_kit.cli import clips as clips_command
from vpo_kit.errors import OutputError
from vpo_kit.library.pair import make_pairs
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.pairing.independent import IndependentMaker
from vpo_kit.pairing.job import Task
from vpo_kit.pairing.settings import PairSettings
from vpo_kit.pairing.store import PairSet
from vpo_kit.rewards.base import Mixture
from vpo_kit.sampler import PartialStart, chain_levels, derive_seed, draw_noise, nearest_step, sample
from vpo_kit.testing.rewards import Brightness, brightness, stub
from vpo_kit.video import read_video

SETTINGS = {"sampling": {"batch_size": 4}, "guided": {"eta_min": 0.3, "eta_max": 0.9}}


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture(scope="module", params=["guided", "independent"])
def made(request: pytest.FixtureRequest, tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    place = tmp_path_factory.mktemp(request.param)
    clips_command.clips(place / "clips", 6, seed=3)
    data = {"videos": place / "clips"} if request.param == "guided" else {}
    return make_pairs(place / "set", strategy=request.param, model=str(tiny_wan), label="none", **data, **SETTINGS)


@torch.no_grad()
def again(model: VideoModel, prompt: str, seed: int, source: Tensor | None = None, eta: float | None = None) -> Tensor:
    """One member alone, with the guidance that the model's folder asks for."""
    encode, settings = PromptCache(model), model.settings
    assert settings.guidance == 3
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    start = None
    if source is not None and eta is not None:
        levels = chain_levels(model, settings.steps, shape)
        first = nearest_step(levels, eta)
        assert float(levels[first]) == pytest.approx(eta, abs=1e-6)
        start = PartialStart(source[None], first)
    guidance = model.guidance(settings, encode([settings.negative_prompt]))
    noise = draw_noise(shape, [seed])
    return sample(model, encode([prompt]), noise=noise, steps=settings.steps, guidance=guidance, start=start)


def test_pairs_are_those_that_were_written_down(made: PairSet) -> None:
    known.check(f"pairs/{made.pairs[0].strategy}", known.of_pairs(made))


def test_both_members_follow_from_the_row(model: VideoModel, made: PairSet) -> None:
    apart = []
    for pair in made.pairs:
        assert pair.latents is not None
        kept = store.read_latents(made.path / pair.latents)
        names = ("first", "second")
        for name, seed, file in zip(names, pair.seeds, (pair.first_file_name, pair.second_file_name), strict=True):
            latents = again(model, pair.prompt, seed, kept.get("source"), pair.eta)
            torch.testing.assert_close(kept[name], latents[0], atol=1e-4, rtol=1e-4)
            video = read_video(made.path / file).frames
            own, other = (model.decode(kept[n][None])[0] for n in (name, names[name == "first"]))
            assert float((video - own).abs().mean()) < 0.9 * float((video - other).abs().mean())
        apart.append(float((kept["first"] - kept["second"]).abs().mean()))
    assert min(apart) > 1e-2
    assert len({pair.prompt for pair in made.pairs}) > 1
    if made.pairs[0].strategy == "guided":
        assert len({pair.eta for pair in made.pairs}) > 1


def test_the_best_and_the_worst_of_each_prompts_own_candidates(model: VideoModel) -> None:
    """Scored under their own prompt; which of the two comes first says nothing."""
    prompts = [f"a {colour} circle" for colour in ("red", "blue", "green", "white", "pink", "grey")]

    def by_prompt(video: Tensor, texts: Sequence[str]) -> Tensor:
        return brightness(video, texts) * torch.tensor([1.0 if "e" in text.split()[1] else -1.0 for text in texts])

    settings = PairSettings.model_validate({"sampling": {"batch_size": 8}, "independent": {"num_candidates": 4}})
    task = Task(model=model, sampling=model.settings, encode=PromptCache(model), settings=settings, seed=5)
    maker = IndependentMaker(task, prompts, Mixture([(stub("prompted", by_prompt)(), 1.0)]))
    job, firsts = maker.job(), []
    with torch.no_grad():
        found = {item: pairs for batch in job.batches for item, pairs in job.make(batch)}
    for item, prompt in enumerate(prompts):
        seeds = [derive_seed(5, "independent", maker.items[item].key, k) for k in range(4)]
        latents = torch.cat([again(model, prompt, seed) for seed in seeds])
        scores = by_prompt(model.decode(latents), [prompt] * 4)
        (pair,) = found[item]
        assert not isinstance(pair, str)
        places = [seeds.index(seed) for seed in pair.seeds]
        assert places == sorted([int(scores.argmax()), int(scores.argmin())])
        for name, place in zip(("first", "second"), places, strict=True):
            torch.testing.assert_close(pair.latents[name], latents[place], atol=1e-4, rtol=1e-4)
        assert pair.prompt == prompt
        torch.testing.assert_close(pair.first, model.decode(latents[places[:1]])[0], atol=1e-3, rtol=0)
        firsts.append(places[0] == int(scores.argmax()))
    assert {True, False} == set(firsts)


def test_labels_follow_the_scores_of_the_members(tiny_wan: Path, model: VideoModel, tmp_path: Path) -> None:
    """From the command's own settings to the sign of each label."""
    path = f"{Brightness.__module__}:Brightness"
    made = make_pairs(tmp_path / "set", model=str(tiny_wan), label=f"reward:{path}", labelling={"tie_margin": 0.0})
    labels = []
    for pair in made.pairs:
        first, second = (read_video(made.path / n).frames for n in (pair.first_file_name, pair.second_file_name))
        gaps = [float(first[a:b].mean() - second[a:b].mean()) for a, b in pair.segments]
        veto = [label == 0 for label in pair.labels or []]
        assert pair.labels == [0 if tie else (gap > 0) - (gap < 0) for gap, tie in zip(gaps, veto, strict=True)]
        labels += pair.labels or []
    assert {1, -1} <= set(labels)


def test_a_set_is_made_by_one_command(tiny_wan: Path, tmp_path: Path) -> None:
    """Two would work on the same item, and one of them note the hash of what the other had half written."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    with files.held(tmp_path / "set"), pytest.raises(OutputError, match="is in use by another vpo pair: wait"):
        make_pairs(tmp_path / "set", prompts=prompts, model=str(tiny_wan), label="none")
