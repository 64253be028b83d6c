"""A run as it can be followed: lines without a terminal, the time left, trackers, samples and the page on the way."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from tests.support.commands import main_ok
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation import report
from vpo_kit.library import following, heartbeat
from vpo_kit.library.display import TrainingBar, count_bar, working
from vpo_kit.library.heartbeat import Pace, clock
from vpo_kit.registry import TRACKERS
from vpo_kit.training.trackers import base
from vpo_kit.video import write_video

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")


class TestPace:
    def test_steps_of_unequal_length(self) -> None:
        """One in four takes 40 s, the others 1 s: the mean is 10.75 s, whichever was the last."""
        now = 0.0
        pace = Pace(40, lambda: now)
        assert pace.left is None
        for step in range(1, 9):
            now += 40 if step % 4 == 1 else 1
            pace.reach(step)
        assert pace.left == pytest.approx(32 * 10.75)
        now += 10
        assert pace.left == pytest.approx(32 * 10.75 - 10)
        now += 600  # the step takes longer than any before: the others are still to come
        assert pace.left == pytest.approx(31 * 10.75)

    def test_what_was_done_before_took_this_process_no_time(self) -> None:
        now = 100.0
        pace = Pace(10, lambda: now)
        now += 50  # loading
        pace.start_at(8)
        now += 3
        pace.reach(9)
        assert (pace.left, pace.elapsed) == (3.0, 3.0)

    def test_words(self) -> None:
        assert [clock(seconds) for seconds in (7, 720, 12300)] == ["0:07", "12:00", "3:25:00"]
        assert Pace(None, lambda: 0.0).words() == "0:00 gone"


class TestLines:
    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeat, "QUIET_S", 0.05)

    @pytest.fixture
    def log(self) -> io.StringIO:
        return io.StringIO()

    @pytest.fixture
    def console(self, log: io.StringIO) -> Console:
        """As in a log file: no terminal."""
        return Console(file=log, width=200)

    def test_a_count(self, console: Console, log: io.StringIO) -> None:
        with count_bar(console, "pairs", 12, "pairs") as tick:
            time.sleep(0.3)
            tick(5)
            time.sleep(0.3)
        lines = log.getvalue().splitlines()
        assert lines[0] == "pairs: 0/12 pairs (0:00 gone)"
        assert lines[-1].startswith("pairs: 5/12 pairs (")
        assert "left)" in lines[-1]

    def test_work_without_a_count(self, console: Console, log: io.StringIO) -> None:
        with working(console, "measuring the base"):
            time.sleep(0.3)
        assert log.getvalue().startswith("measuring the base (0:00 gone)\n")

    def test_training_within_one_long_step(self, console: Console, log: io.StringIO) -> None:
        with TrainingBar(console, 40) as bar:
            time.sleep(0.3)
            bar.step({"step": 3.0, "loss": 0.5}, 3 / 40)
            time.sleep(0.3)
        assert log.getvalue().startswith("step 0/40 ")
        assert "step 3/40  loss 0.5  (" in log.getvalue()

    def test_another_limit_says_how_many_steps_it_will_be(self, console: Console, log: io.StringIO) -> None:
        """Of ten, two by an earlier process; the limit of steps says nothing of it."""
        with TrainingBar(console, 5000) as bar:
            time.sleep(0.1)
            bar.step({"step": 3.0}, 0.3)
            time.sleep(0.3)
        assert "step 0/5000 " in log.getvalue()
        assert "step 3/about 10 " in log.getvalue()
        left = re.search(r"step 3/about 10 .* about (\d):(\d\d) left", log.getvalue())
        assert left is not None
        assert int(left[1]) * 60 + int(left[2]) <= 3  # a tenth of a second for each of the seven

    def test_nothing_where_all_goes_quickly(
        self, console: Console, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(heartbeat, "QUIET_S", 60.0)
        with count_bar(console, "pairs", 1) as tick:
            tick(1)
        assert log.getvalue() == ""


def events(folder: Path) -> Any:
    """What TensorBoard's own reader finds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    found.Reload()
    return found


def tracker(kind: str, folder: Path) -> base.Tracker:
    made: base.Tracker = TRACKERS.load(kind)(folder, "a run", {"method": {"name": "online"}, "steps": 4})
    return made


def record(one: base.Tracker, steps: range, clip: Path) -> None:
    for step in steps:
        one.scalars(step, {"loss": 1 / step})
    one.table(steps[-1], "changes", [("metric", "before"), ("vqa", "-1.2")])
    one.video(steps[-1], "after/0", clip, "a dog")
    one.close()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)), 8)
    return tmp_path / "clip.mp4"


@needs_tensorboard
def test_tensorboard_reads_what_was_written(tmp_path: Path, clip: Path) -> None:
    record(tracker("tensorboard", tmp_path / "t"), range(1, 5), clip)
    found = events(tmp_path / "t")
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [
        (step, pytest.approx(1 / step)) for step in range(1, 5)
    ]
    (image,) = found.Images("after/0")
    assert Image.open(io.BytesIO(image.encoded_image_string)).n_frames == 5
    texts = {tag: found.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"]}
    assert "    method:\n      name: online\n" in texts["settings/text_summary"]
    assert texts["changes/text_summary"] == "metric | before\n-|-\nvqa | -1.2"
    assert texts["after/0 prompt/text_summary"] == "a dog"


@needs_tensorboard
def test_a_resumed_run_has_each_step_once(tmp_path: Path, clip: Path) -> None:
    record(tracker("tensorboard", tmp_path / "t"), range(1, 5), clip)
    time.sleep(1.1)  # its files are named by the second
    record(tracker("tensorboard", tmp_path / "t"), range(3, 7), clip)
    assert [one.step for one in events(tmp_path / "t").Scalars("loss")] == [1, 2, 3, 4, 5, 6]


@needs_wandb
def test_wandb_writes_offline(tmp_path: Path, clip: Path) -> None:
    record(tracker("wandb", tmp_path / "w"), range(1, 3), clip)
    (folder,) = (tmp_path / "w" / "wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    from wandb.proto.wandb_internal_pb2 import MetricRecord

    # curves are drawn against the optimiser's steps, not against the number of calls
    drawn = MetricRecord(glob_name="*", step_metric="optimiser_step").SerializeToString()
    end = time.monotonic() + 30  # its writer is a process of its own
    while drawn not in log.read_bytes() and time.monotonic() < end:
        time.sleep(0.1)
    assert drawn in log.read_bytes()
    assert list((folder / "files" / "media" / "videos").rglob("*.mp4"))


def test_a_tracker_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        base.check(["tensorbord"])
    monkeypatch.setattr(base, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'vpo-kit\[wandb\]'"):
        base.check(["wandb"])


def test_a_run_on_the_way(
    tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages: list[str] = []
    render = report.render
    monkeypatch.setattr(report, "render", lambda page: pages.append(render(page)) or pages[-1])
    monkeypatch.setattr(following, "PAGE_S", 0.0)
    run, board = tmp_path / "run", find_spec("tensorboard") is not None
    sets = ["batch_size=1", "evaluation.num_prompts=3", "method.num_candidates=2", "evaluation.judges=[]",
            "samples.every=2", "samples.num_prompts=2", "validation.every=2"]  # fmt: skip
    sets += ["tracking=[tensorboard]"] if board else []
    (tmp_path / "p.txt").write_text("a dog\na cat\n")
    flags = [part for text in sets for part in ("--set", text)]
    main_ok(["train", "--model", tiny_wan, "--output", run, "--steps", 4, "--prompts", tmp_path / "p.txt", *flags])
    assert f"run: {run}\n" in capsys.readouterr().out
    small = json.loads((run / "samples" / "during-000002" / "metrics.json").read_text())
    assert len(small["files"]) == 2
    assert not (run / "samples" / "during-000004").exists()  # the measurement after training comes then
    live = [page for page in pages if 'http-equiv="refresh"' in page]
    assert ["step 0 of 4" in live[0], "step 2 of 4" in live[1], "samples/during-000002" in live[-1]] == [True] * 3
    assert pages[-1] == (run / "report.html").read_text()
    assert 'http-equiv="refresh"' not in pages[-1]
    if board:
        found = events(run / "tracking" / "tensorboard")
        log: list[Mapping[str, float]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [one.value for one in found.Scalars("loss")] == pytest.approx([row["loss"] for row in log])
        assert {tag.partition("/")[0] for tag in found.Tags()["images"]} == {"before", "samples", "after"}
        assert "changes/text_summary" in found.Tags()["tensors"]
