"""KTO and MaPO on a set and on rated clips: the losses written plainly, passes counted, verdicts read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.support.offline_member import Member
from tests.support.offline_run import make_set
from vpo_kit import clips, models
from vpo_kit.errors import DataError
from vpo_kit.library import train
from vpo_kit.methods import kto
from vpo_kit.methods.kto import KTOConfig, side_weights
from vpo_kit.methods.preference import motion_weights
from vpo_kit.models.base import VideoModel
from vpo_kit.processes import Processes
from vpo_kit.training import initial, recipe
from vpo_kit.training import ratings as rated
from vpo_kit.video import write_video


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "pairs")


def test_half_of_the_passes_without_a_reference(model: VideoModel, pairs: Path) -> None:
    seen: dict[str, int] = {}
    for method in ("dpo", "mapo"):
        member, rows = Member(model), 0

        def count(_: object, __: object, output: tuple[torch.Tensor, ...]) -> None:
            nonlocal rows
            rows += len(output[0])

        hook = model.network.register_forward_hook(count)
        try:
            member.gradients(member.step(pairs, method))
        finally:
            hook.remove()
            member.close()
        seen[method] = rows
    assert seen == {"dpo": 32, "mapo": 16}


def test_both_sides_count_alike() -> None:
    sign = torch.tensor([1.0, 1, 1, -1, 0])
    found = side_weights(sign, KTOConfig(bad_weight=3.0), Processes())
    torch.testing.assert_close(found, torch.tensor([1 / 6, 1 / 6, 1 / 6, 1.5, 0.0]), check_dtype=False)


def test_the_policy_at_the_reference_is_at_a_half(model: VideoModel, pairs: Path) -> None:
    member = Member(model)
    try:
        with torch.no_grad():
            for parameter in member.policy.parameters:
                parameter.mul_(0)
        output = member.step(pairs, "kto")
        assert output.loss is not None
        assert float(output.loss.detach()) == pytest.approx(0.5, abs=1e-6)
        assert output.by_label["implicit_accuracy"] == 0.5
        assert output.num_labels == 16
    finally:
        member.close()


def test_a_winner_that_moves_less_counts_less() -> None:
    moved = torch.tensor([[0.1, 0.4], [0.4, 0.1], [0.1, 0.4]])
    torch.testing.assert_close(
        motion_weights(moved, torch.tensor([1.0, 1.0, -1.0]), 0.5), torch.tensor([0.5, 1.0, 1.0])
    )


class TestVerdicts:
    def folder(self, path: Path, rows: list[dict[str, object]]) -> Path:
        path.mkdir()
        for i in range(len(rows)):
            write_video(path / f"{i}.mp4", torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(i)), 8)
        lines = [json.dumps({"file_name": f"{i}.mp4", "text": f"clip {i}", **row}) for i, row in enumerate(rows)]
        (path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
        return path

    def test_words_and_numbers(self, tmp_path: Path) -> None:
        rows = [{"verdict": "good"}, {"verdict": False}, {"rating": 4.5}, {}, {"verdict": None}]
        assert clips.ratings(self.folder(tmp_path / "a", rows)) == {"0.mp4": 1, "1.mp4": 0, "2.mp4": 4.5}
        with pytest.raises(DataError, match=r"0.mp4 is rated 'meh': give a number, or good"):
            clips.ratings(self.folder(tmp_path / "b", [{"rating": "meh"}]))

    def test_a_table(self, tmp_path: Path) -> None:
        (tmp_path / "metadata.csv").write_text("file_name,text,rating\na.mp4,one,2\nb.mp4,two,\n")
        assert clips.ratings(tmp_path) == {"a.mp4": 2.0}

    def test_the_line_between_good_and_bad(self) -> None:
        """Verdicts have their own; ratings their mean. Standing is within a prompt, and 0 alone."""
        assert rated.tensors([1.0, 1.0, 0.0], ["a", "a", "b"])["middle"].tolist() == [0.5] * 3
        found = rated.tensors([1.0, 5.0, 3.0, 7.0], ["a", "b", "a", "c"])
        assert found["middle"].tolist() == [4.0] * 4
        assert found["rating"].tolist() == [1, 5, 3, 7]
        assert found["standing"].tolist() == [-1, 0, 1, 0]

    def test_dimensions(self, tmp_path: Path) -> None:
        rows: list[dict[str, object]] = [{"scores": {"VQ": 1, "Overall": 2.5}}, {"scores": {"VQ": 3, "Overall": None}}]
        folder = self.folder(tmp_path / "a", rows)
        assert clips.ratings(folder) == {"0.mp4": 2.5}
        assert clips.ratings(folder, "VQ") == {"0.mp4": 1, "1.mp4": 3}
        with pytest.raises(DataError, match=r"there is no 'MQ': .* is rated in VQ, Overall"):
            clips.ratings(folder, "MQ")
        with pytest.raises(DataError, match=r"was not imported with people's scores"):
            clips.ratings(self.folder(tmp_path / "b", [{"rating": 1}]), "VQ")
        with pytest.raises(DataError, match="is rated nan: give a number"):
            clips.ratings(self.folder(tmp_path / "c", [{"rating": float("nan")}]))

    def test_training_on_them(self, tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        videos = self.folder(tmp_path / "clips", [{"rating": 1}, {"rating": 2}, {"rating": 5}, {"rating": 3}, {}])
        options = {"method": "kto", "model": str(tiny_wan), "videos": videos, "output": tmp_path / "run", "steps": 2}
        sets = ["evaluation.num_prompts=0", "batch_size=4", "method.good_above=3", "optimiser.warmup_steps=0"]
        train.run(initial.resolve(recipe.read(options, None, sets)))
        assert "1 of 5 clips have neither rating nor verdict" in " ".join(capsys.readouterr().out.split())
        rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
        assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-6)
        assert rows[0]["labels"] == 3, "the clip at the line is neither good nor bad"
        assert rows[0]["good_share"] == pytest.approx(1 / 3)
        assert rows[0]["grad_norm"] > 0
        assert math.isfinite(rows[1]["loss"])


def test_the_factor_is_a_mean_over_the_videos_that_count() -> None:
    """At the reference each has p (1 - p) = 1/4."""
    nothing, sign = torch.zeros(3), torch.tensor([1.0, -1.0, 0.0])
    found = kto.report(nothing, sign, torch.tensor(0.0), torch.ones(3), beta=20.0)
    assert (found["gradient_factor"], found["implicit_accuracy"]) == (0.25, 0.5)
