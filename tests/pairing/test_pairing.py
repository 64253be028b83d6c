"""Pair sets: made whole, resumed exactly, shared by processes; labels that land on the right latent frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.commands import fails, main_ok
from tests.support.forks import side_by_side, vpo
from vpo_kit import models
from vpo_kit.cli import clips as clips_command
from vpo_kit.clips import read_folder
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.labelling import by_reward, by_scores
from vpo_kit.labelling.answers import FOLDER
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.pairing.guided import GuidedMaker
from vpo_kit.pairing.independent import IndependentMaker
from vpo_kit.pairing.job import Made, Task
from vpo_kit.pairing.records import Motion, Pair, Scores
from vpo_kit.pairing.segments import cut, default_seconds, latent_labels, vote
from vpo_kit.pairing.settings import Labelling, PairSettings
from vpo_kit.processes import Processes
from vpo_kit.rewards.base import Mixture, RewardOutput
from vpo_kit.sprites import tracker, world
from vpo_kit.testing.pairs import pair_row
from vpo_kit.testing.rewards import stub
from vpo_kit.video import write_video

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "clips"
    clips_command.clips(folder, 6, seed=3)
    return folder


class TestSegments:
    def test_a_clip_is_cut_into_seconds(self) -> None:
        assert cut(48, 16, 1.0) == [(0, 16), (16, 32), (32, 48)]

    def test_a_short_rest_joins_the_last_segment_and_a_longer_one_does_not(self) -> None:
        assert cut(81, 16, 1.0)[-1] == (64, 81)
        assert cut(40, 16, 1.0) == [(0, 16), (16, 32), (32, 40)]
        assert cut(5, 16, 1.0) == [(0, 5)]

    def test_the_embedded_model_has_four(self) -> None:
        assert len(cut(17, 8, default_seconds(17, 8))) == 4
        assert default_seconds(81, 16) == 1.0

    def test_causal_stride(self, model: VideoModel) -> None:
        frames = model.frame_map(17)
        assert frames == [(0, 1), (1, 5), (5, 9), (9, 13), (13, 17)]
        segments = [(0, 4), (4, 8), (8, 12), (12, 17)]
        # 1 to 4: three frames of the first segment, one of the second; and so on
        assert latent_labels([1, -1, 0, 1], segments, frames) == [1, 1, -1, 0, 1]

    def test_stride_without_a_causal_start(self) -> None:
        assert latent_labels([1, -1], [(0, 6), (6, 16)], [(0, 4), (4, 8), (8, 12), (12, 16)]) == [1, 0, -1, -1]

    def test_a_draw_is_a_tie_and_equal_labels_do_not_draw(self) -> None:
        assert latent_labels([1, -1], [(0, 2), (2, 4)], [(0, 4)]) == [0]
        assert latent_labels([1, 1, -1], [(0, 2), (2, 3), (3, 6)], [(0, 6)]) == [0]
        assert latent_labels([1, 1, -1], [(0, 2), (2, 4), (4, 7)], [(0, 7)]) == [1]

    def test_vote(self) -> None:
        assert [vote(labels) for labels in ([1, 1, -1], [0, -1], [1, -1], [0, 0])] == [1, -1, 0, 0]


def task(model: VideoModel, **changes: object) -> Task:
    settings = PairSettings.model_validate({"sampling": {"batch_size": 4}, **changes})
    return Task(model=model, sampling=model.settings, encode=PromptCache(model), settings=settings, seed=0)


class TestGuided:
    def test_at_the_lowest_level_both_members_are_the_source(self, clips: Path) -> None:
        model = models.load("sprites")
        model.settings = model.settings.changed(steps=400)  # whose last level is .005
        found = read_folder(clips, model.settings).clips[:2]
        maker = GuidedMaker(task(model, guided={"eta_min": 1e-3, "eta_max": 1e-3}), found)
        source = model.encode(torch.stack([clip.read() for clip in found]))
        members = maker.members([0, 1], source)
        assert float((members - torch.cat([source, source])).abs().mean()) < 0.02 * float(source.std())

    def test_members_share_their_path_and_independent_ones_do_not(self, clips: Path) -> None:
        model = models.load("sprites")
        found = read_folder(clips, model.settings).clips[:4]
        job = GuidedMaker(task(model), found)
        with torch.no_grad():
            guided = [pair for batch in job.job().batches for _, made in job.make(batch) for pair in made]
            prompts = [clip.prompt for clip in found]
            other = IndependentMaker(task(model), prompts, None)
            loose = [pair for batch in other.job().batches for _, made in other.make(batch) for pair in made]
        assert len({pair.eta for pair in guided if isinstance(pair, Made)}) >= 1
        near, far = (sum(path_distance(pair.first, pair.second) for pair in pairs) for pairs in (guided, loose))
        assert near < 0.4 * far

    def test_levels_are_the_schedules_and_inside_the_range(self, model: VideoModel, clips: Path) -> None:
        found = read_folder(clips, model.settings).clips
        maker = GuidedMaker(task(model, guided={"eta_min": 0.5, "eta_max": 0.9, "pairs_per_clip": 4}), found)
        assert len(maker.first) == 24
        levels = {float(maker.levels[first]) for first in maker.first}
        assert levels <= {float(level) for level in maker.levels}
        assert len(levels) > 1
        torch.manual_seed(1)  # which nothing of a set hangs on
        assert GuidedMaker(maker.task, found).first == maker.first


def path_distance(first: Tensor, second: Tensor) -> float:
    """Mean distance of two sprites' centroids, in pixels, frame by frame."""
    paths = [torch.from_numpy(tracker.track(video.numpy()).path) for video in (first, second)]
    return float((paths[0] - paths[1]).norm(dim=1).nanmean())


Late = stub("late")
"""Brightness, and a reward that knows whole clips only: a segment is then judged as a clip of its own."""


class TestLabels:
    def pair(self, first: list[float], second: list[float], strategy: str = "guided", moved: float = 1.0) -> Pair:
        return pair_row(
            strategy=strategy, frames=4 * len(first), segments=cut(4 * len(first), 8, 0.5),
            scores=Scores(first=first, second=second, first_clip=sum(first), second_clip=sum(second)),
            motion=Motion(first=[moved] * len(first), second=[1.0] * len(first)),
        )  # fmt: skip

    def test_margin_makes_ties_and_the_vote_is_over_the_rest(self) -> None:
        (found,), margins = by_scores.decide([self.pair([1, 0, 2, 0], [0, 0.1, 0, 0])], Labelling(tie_margin=0.2))
        assert (found.labels, found.label, margins.segment) == ([1, 0, 1, 0], 1, 0.2)

    def test_a_calibrated_margin_calls_the_wanted_share_ties(self) -> None:
        generator = torch.Generator().manual_seed(0)
        pairs = [self.pair(torch.randn(4, generator=generator).tolist(), [0.0] * 4) for _ in range(100)]
        found, _ = by_scores.decide(pairs, Labelling(tie_share=0.3))
        ties = [label == 0 for pair in found for label in pair.labels or []]
        assert abs(sum(ties) / len(ties) - 0.3) < 0.01

    def test_a_still_winner_is_a_tie_where_the_veto_is_on(self) -> None:
        for strategy, expected in (("independent", [0, -1]), ("guided", [1, -1])):
            (found,), _ = by_scores.decide([self.pair([1, 0], [0, 1], strategy, moved=0.3)], Labelling(tie_margin=0))
            assert found.labels == expected
        (found,), _ = by_scores.decide([self.pair([1, 0], [0, 1], moved=0.3)], Labelling(tie_margin=0, motion_veto=0.5))
        assert found.labels == [0, -1]

    def test_the_clip_may_be_judged_as_a_whole(self) -> None:
        pair = self.pair([1, 1, -9], [0, 0, 0])
        assert by_scores.decide([pair], Labelling(tie_margin=0))[0][0].label == 1
        assert by_scores.decide([pair], Labelling(tie_margin=0, clip_label="score"))[0][0].label == -1

    def test_a_reward_of_whole_clips_judges_each_segment_as_a_clip(self) -> None:
        video = torch.zeros(8, 3, 8, 8)
        video[4:] = 1
        scorer = by_reward.RewardScorer("late", Mixture([(Late(), 1.0)]), CPU)
        scores = scorer(video, 1 - video, self.pair([0, 0], [0, 0]))
        assert (scores.first, scores.second, scores.first_clip) == ([0.0, 1.0], [1.0, 0.0], 0.5)

    @pytest.mark.parametrize("strategy", ["guided", "imported"])
    def test_a_reward_sees_videos_where_its_weights_are(self, strategy: str) -> None:
        """Videos are decoded on the processor. What lies on `meta` cannot be read: the look at it is what is seen."""
        seen = []

        class Elsewhere(Late):
            def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
                seen.append(video.device.type)
                return super().forward(torch.zeros_like(video, device="cpu"), prompts, fps=fps)

        scorer = by_reward.RewardScorer("late", Mixture([(Elsewhere(), 1.0)]), torch.device("meta"))
        parts = [0] if strategy == "imported" else [0, 0]
        scorer(*torch.zeros(2, 8, 3, 8, 8), self.pair(parts, parts, strategy))
        assert set(seen) == {"meta"}


class TestClips:
    def test_captions_windows_and_what_is_left_out(self, model: VideoModel, tmp_path: Path) -> None:
        video = torch.rand(30, 3, 24, 40)
        write_video(tmp_path / "long.mp4", video, 12)  # 2.5 s: two windows of 9 frames at 8 a second
        write_video(tmp_path / "short.mp4", video[:6], 12)
        write_video(tmp_path / "silent.mp4", video, 12)
        (tmp_path / "cut.mp4").write_bytes((tmp_path / "long.mp4").read_bytes()[:700])
        (tmp_path / "empty.mp4").write_bytes(b"")
        for name in ("long", "short", "cut", "empty"):
            (tmp_path / f"{name}.txt").write_text("a red circle\n")
        found = read_folder(tmp_path, model.settings)
        assert [clip.name for clip in found.clips] == ["long.mp4@0.00", "long.mp4@1.12"]
        assert found.clips[1].read().shape == (9, 3, 32, 32)
        assert len(found.skipped) == 4
        for text in ("cut.mp4 cannot be decoded", "empty.mp4 cannot be decoded", "shorter than", "has no caption"):
            assert sum(text in line for line in found.skipped) == 1, found.skipped
        assert len(read_folder(tmp_path, model.settings, max_windows=1).clips) == 1

    @pytest.mark.parametrize("kind", ["jsonl", "csv"])
    def test_listings(self, model: VideoModel, tmp_path: Path, kind: str) -> None:
        write_video(tmp_path / "a" / "x.mp4", torch.rand(9, 3, 32, 32), 8)
        rows = [("a/x.mp4", "a red, round circle"), ("../outside.mp4", "no"), ("a/gone.mp4", "no")]
        if kind == "jsonl":
            text = "\n".join(json.dumps({"file_name": name, "text": caption}) for name, caption in rows)
        else:
            text = "file_name,text\n" + "\n".join(f'{name},"{caption}"' for name, caption in rows)
        (tmp_path / f"metadata.{kind}").write_text(text)
        found = read_folder(tmp_path, model.settings)
        assert [clip.prompt for clip in found.clips] == ["a red, round circle"]
        assert len(found.skipped) == 2

    def test_nothing_usable_is_an_error(self, model: VideoModel, tmp_path: Path) -> None:
        for folder, message in ((tmp_path, "holds no usable clip"), (tmp_path / "none", "there is no folder")):
            with pytest.raises(DataError, match=message):
                read_folder(folder, model.settings)


def command(model: Path, clips: Path, output: Path, *more: str) -> list[str]:
    return [
        "pair", "--strategy", "guided", "--videos", str(clips), "--model", str(model),
        "--output", str(output), "--set", "sampling.batch_size=4", "--set", "guided.pairs_per_clip=3", *more,
    ]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """All but the store of answers, in which the time of each one stands."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and FOLDER not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def undisturbed(tiny_wan: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "whole"
    main_ok(command(tiny_wan, clips, folder))
    return folder


def test_kill_9_and_go_on(
    tiny_wan: Path, clips: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "killed"
    with vpo(*command(tiny_wan, clips, folder)) as child:
        until = time.monotonic() + 120
        while len(list(folder.glob(".parts/*.json"))) < 5:
            assert time.monotonic() < until
            assert child.code is None, child.errors
            time.sleep(0.005)
    assert not (folder / "metadata.jsonl").exists()
    with pytest.raises(DataError, match="not finished"):
        store.read(folder)
    # and as if the power had gone too: what finished items speak of is not all on the disk
    for i, name in enumerate(sorted(folder.glob(".parts/latents/*"))[:1] + sorted(folder.glob(".parts/videos/*"))[3:4]):
        name.write_bytes(name.read_bytes()[: 10 * i])
    main_ok(command(tiny_wan, clips, folder))
    assert contents(folder) == contents(undisturbed)
    # a finished set is not begun again with other settings
    code, shown = fails(capsys, *command(tiny_wan, clips, folder, "--seed", "5"))
    assert (code, "another seed" in shown) == (2, True)


def test_two_processes_make_the_same_set(tiny_wan: Path, clips: Path, undisturbed: Path, tmp_path: Path) -> None:
    started = side_by_side(2, partial(vpo, *command(tiny_wan, clips, tmp_path / "two")))
    assert [(process.wait(), process.errors[-2000:]) for process in started if process.wait()] == []
    assert contents(tmp_path / "two") == contents(undisturbed)


@pytest.mark.slow
def test_torchrun_makes_the_same_set(tiny_wan: Path, clips: Path, undisturbed: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611"]
    done = subprocess.run(
        [*launcher, "-m", "vpo_kit", *command(tiny_wan, clips, tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "two") == contents(undisturbed)


def test_relabelling_keeps_the_videos(undisturbed: Path, tmp_path: Path) -> None:
    before = store.read(undisturbed)
    settings = Labelling(segment_seconds=0.125, tie_margin=0.0)
    scorer = by_reward.RewardScorer("late", Mixture([(Late(), 1.0)]), CPU)
    files = {name: data for name, data in contents(undisturbed).items() if name.startswith(("videos", "latents"))}
    after = by_scores.label(before, scorer, settings, Processes(), lambda: None, {})
    try:
        assert len(after.pairs[0].segments) > len(before.pairs[0].segments)
        assert {pair.labeller for pair in after.pairs} == {"reward:late"}
        assert after.facts["labels"]["tie_margin"] == 0.0
        assert {k: v for k, v in contents(undisturbed).items() if k.startswith(("videos", "latents"))} == files
    finally:
        store.write(undisturbed, before.facts, before.pairs)


class Sick(Late):
    def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
        return RewardOutput(torch.full((len(video),), float("nan")))


def test_a_score_that_is_not_finite_changes_no_label(undisturbed: Path) -> None:
    before = (undisturbed / "metadata.jsonl").read_bytes()
    scorer = by_reward.RewardScorer("sick", Mixture([(Sick(), 1.0)]), CPU)
    with pytest.raises(DataError, match=r"pair 000000 a score that is not finite: no label was changed"):
        by_scores.label(store.read(undisturbed), scorer, Labelling(), Processes(), lambda: None, {})
    assert (undisturbed / "metadata.jsonl").read_bytes() == before


class TestIndependent:
    def test_best_against_worst_in_their_own_order(self, model: VideoModel) -> None:
        maker = IndependentMaker(task(model, independent={"num_candidates": 4}), ["a red circle"], None)
        assert maker._pairs(torch.tensor([0.3, 0.9, 0.1, 0.2])) == [(1, 2)]
        assert maker._pairs(torch.tensor([0.5, 0.5, 0.5, 0.5])) == []

    def test_all_pairs_above_the_margin(self, model: VideoModel) -> None:
        options = {"num_candidates": 3, "pairs": "all", "min_margin": 0.25}
        maker = IndependentMaker(task(model, independent=options), ["a red circle"], None)
        assert maker._pairs(torch.tensor([0.0, 0.2, 0.5])) == [(0, 2), (1, 2)]

    def test_a_set_from_prompts(self, tiny_wan: Path, tmp_path: Path) -> None:
        from vpo_kit.library import pair

        pair.make_pairs(
            tmp_path / "set", model=str(tiny_wan), independent={"num_candidates": 3}, sampling={"batch_size": 6}
        )
        found = store.read(tmp_path / "set")
        assert len(found.pairs) == len((tiny_wan / "prompts/train.txt").read_text().splitlines())
        assert all(pair.labels and pair.seeds[0] != pair.seeds[1] for pair in found.pairs)

    def test_choosing_among_many_needs_a_reward(self, tiny_wan: Path, tmp_path: Path) -> None:
        from vpo_kit.library import pair

        with pytest.raises(ConfigError, match="needs --label reward:NAME"):
            pair.make_pairs(tmp_path / "set", model=str(tiny_wan), label="none", independent={"num_candidates": 3})


def test_segments_against_truth() -> None:
    """On clips with a window that is known to be flawed, the labeller finds the segment; see docs/data.md."""
    import numpy as np

    from vpo_kit.rewards.vqa import VQA

    scorer, right, total = by_reward.RewardScorer("vqa", Mixture([(VQA(), 1.0)]), CPU), 0, 0
    pool = world.scenes(held_out=False)
    for i in range(12):
        rng = np.random.default_rng([77, i])
        scene = pool[int(rng.integers(len(pool)))]
        start = int(rng.integers(1, 4)) * 4
        flaw = world.Flaw("blur", start, start + 4, 0.8)
        clean, broken = (
            torch.from_numpy(world.render(scene, np.random.default_rng([78, i]), flaws).video)
            for flaws in ((), (flaw,))
        )
        pair = TestLabels().pair([0.0] * 4, [0.0] * 4).model_copy(
            update={"frames": 17, "segments": [(0, 4), (4, 8), (8, 12), (12, 17)]}
        )  # fmt: skip
        scores = scorer(clean, broken, pair)
        gaps = [a - b for a, b in zip(scores.first, scores.second, strict=True)]
        right += gaps.index(max(gaps)) == start // 4
        total += 1
    assert right >= 0.9 * total
