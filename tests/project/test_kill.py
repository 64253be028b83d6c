"""Exact resume of every method: kill -9 at any moment, and the run ends as if nothing had been."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reliability import kills
from benchmarks.reliability.kills import METHOD_NAMES, Case
from benchmarks.reliability.nursery import Ended, Nursery, Trap
from tests.support.offline_run import make_set
from tests.support.places import ROOT
from vpo_kit import files
from vpo_kit.registry import METHODS
from vpo_kit.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as started:
        yield started


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "pairs", shape=kills.LATENTS, model="sprites")


def test_every_method_is_covered() -> None:
    """The table of kills has a row for each, none of which ended in another way."""
    table = (ROOT / "docs" / "reliability.md").read_text().split("<!-- kills -->")[1].split("<!-- end -->")[0]
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|", table, re.MULTILINE)
    ours = {name for name, target in METHODS.targets().items() if target.startswith("vpo_kit.")}
    assert set(METHOD_NAMES) == {name for name, *_ in rows} == ours
    assert {(killed, ended) for _, killed, ended in rows} == {("20", "20")}


QUICK = ("online", "dense", "instruct")
"""One of each kind: from rollouts, from pairs, through the sampler. All of them would take minutes."""


@pytest.mark.parametrize(
    "method", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHOD_NAMES]
)
def test_killed_twice_and_resumed(nursery: Nursery, pairs: Path, tmp_path: Path, method: str) -> None:
    """Once in a pass through the network (a rollout, a reference, a gradient), once at a file, of a checkpoint mostly;
    the second time in the resumed run.
    """
    case, rng = Case(method, pairs), random.Random(method)
    whole = kills.undisturbed(nursery, case, tmp_path / "whole")
    traps = [kills.draw(rng, whole, "pass", share=0.6), kills.draw(rng, whole, "file", share=0.4)]
    trial = kills.attempt(nursery, case, tmp_path / "whole", tmp_path / "killed", traps)
    assert trial.problem is None, trial
    assert trial.kills == 2, trial


@pytest.fixture(scope="module")
def whole(nursery: Nursery, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of `sft`, the quickest of the methods."""
    folder = tmp_path_factory.mktemp("whole") / "sft"
    kills.undisturbed(nursery, Case("sft", pairs), folder)
    return folder


def test_killed_in_the_middle_of(nursery: Nursery, pairs: Path, whole: Path, tmp_path: Path) -> None:
    """One run that is killed five times: before its settings have their name, before its log has its name, in a
    checkpoint, with a checkpoint that is written and has no name, and while it exports.
    """
    places = [("run_folder.start", 3), ("run_folder.rewind", 3), ("checkpoints.save", 2), ("checkpoints.save", 14),
              ("lora.export", 1)]  # fmt: skip
    traps = [Trap("file", nth, place) for place, nth in places]
    trial = kills.attempt(nursery, Case("sft", pairs), whole, tmp_path / "run", traps)
    assert trial.problem is None, trial
    assert trial.during == tuple(place for place, _ in places), trial


@pytest.mark.parametrize(("place", "nth", "left"), [
    ("checkpoints.prune", 5, "checkpoints/step-000002"), ("unfinished.drop", 1, "samples/step-000000/.parts"),
])  # fmt: skip
def test_killed_before_it_has_tidied_up(
    nursery: Nursery, pairs: Path, tmp_path: Path, place: str, nth: int, left: str
) -> None:
    """The last step is saved, or all is measured: nothing that comes after would remove what is left over."""
    case, folder = Case("sft", pairs, measured=place == "unfinished.drop"), tmp_path / "run"
    kills.undisturbed(nursery, case, tmp_path / "whole")
    assert nursery.run(case.arguments(folder), folder, trap=Trap("file", nth, place)).during == place
    assert (folder / left).exists()
    assert not (tmp_path / "whole" / left).exists()
    assert nursery.run(case.arguments(folder, resume=True), folder).code == 0
    assert kills.difference(tmp_path / "whole", folder) is None


def test_killed_in_a_rollout(nursery: Nursery, pairs: Path, tmp_path: Path) -> None:
    case = Case("online", pairs)
    kills.undisturbed(nursery, case, tmp_path / "whole")
    trap = Trap("pass", 5, "from_rollouts._roll_out")  # in the middle of the second rollout
    trial = kills.attempt(nursery, case, tmp_path / "whole", tmp_path / "run", [trap])
    assert trial.problem is None, trial
    assert trial.during == ("from_rollouts._roll_out",), trial


class TestDisk:
    """What goes wrong under a run is one line; and when it is mended, the run ends as an undisturbed one."""

    @pytest.fixture
    def half(self, nursery: Nursery, pairs: Path, tmp_path: Path) -> Path:
        """Two of four steps."""
        ended = nursery.run(self.arguments(pairs, tmp_path / "run", 2), tmp_path / "run")
        assert ended.code == 0, ended.output
        return tmp_path / "run"

    def arguments(self, pairs: Path, folder: Path, steps: int, *more: str) -> list[str]:
        arguments = Case("sft", pairs).arguments(folder)
        arguments[arguments.index("--steps") + 1] = str(steps)
        return [*arguments, *more]

    def fails(self, ended: Ended, *words: str) -> None:
        assert ended.code == 1, ended.output
        last = ended.output.strip().splitlines()[-1]
        assert last.startswith("vpo: ")
        assert "Traceback" not in ended.output
        for word in words:
            assert word in last

    def test_full(self, nursery: Nursery, pairs: Path, whole: Path, half: Path) -> None:
        resume = self.arguments(pairs, half, 4, "--resume")
        largest = max(path.stat().st_size for path in (half / "checkpoints").rglob("*") if path.is_file())
        self.fails(nursery.run(resume, half, max_file_bytes=largest // 2), "cannot write the checkpoint")
        names = sorted(path.name for path in (half / "checkpoints").iterdir())
        assert names == ["step-000001", "step-000002"]
        assert nursery.run(resume, half).code == 0
        assert kills.difference(whole, half) is None

    @pytest.mark.parametrize(
        ("place", "words"), [("checkpoints", "cannot write the checkpoint"), (".", "cannot remove")]
    )
    def test_read_only(self, nursery: Nursery, pairs: Path, whole: Path, half: Path, place: str, words: str) -> None:
        resume = self.arguments(pairs, half, 4, "--resume")
        (half / place).chmod(0o555)
        try:
            self.fails(nursery.run(resume, half, obedient=True), words, "ermission denied")
        finally:
            (half / place).chmod(0o755)
        assert nursery.run(resume, half).code == 0
        assert kills.difference(whole, half) is None

    def test_an_old_run_that_cannot_be_removed(self, nursery: Nursery, pairs: Path, half: Path) -> None:
        """No new run begins beside its checkpoints, which would be taken for the new one's."""
        before = sorted(half.rglob("*"))
        (half / "checkpoints").chmod(0o555)
        overwrite = self.arguments(pairs, half, 4, "--overwrite")
        try:
            self.fails(nursery.run(overwrite, half, obedient=True), "cannot remove", "ermission denied")
        finally:
            (half / "checkpoints").chmod(0o755)
        kept = [path.relative_to(half).parts[0] for path in before if path.exists()]
        assert {"checkpoints", "metrics.jsonl", "summary.json", "config.yaml"} <= set(kept)

    def test_two_runs_in_one_folder(self, nursery: Nursery, pairs: Path, half: Path, tmp_path: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in half.rglob("*")}
        new = tmp_path / "new"
        with RunFolder(half).claimed(), RunFolder(new).claimed():
            self.fails(nursery.run(self.arguments(pairs, half, 4, "--resume"), half), "in use by another run")
            self.fails(nursery.run(self.arguments(pairs, half, 4, "--overwrite"), half), "in use by another run")
            self.fails(nursery.run(self.arguments(pairs, new, 4), new), "in use by another run")
            assert [path.name for path in new.iterdir()] == [files.LOCK]
        assert {path: path.stat().st_mtime_ns for path in half.rglob("*")} == before
        assert not new.exists()

    @pytest.mark.parametrize(
        ("name", "damage"), [("optimiser.pt", "flip"), ("state.json", "flip"), ("method.safetensors", "remove")]
    )
    def test_a_damaged_checkpoint(
        self, nursery: Nursery, pairs: Path, whole: Path, half: Path, name: str, damage: str
    ) -> None:
        path = half / "checkpoints/step-000002" / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 16
        path.unlink()
        if damage == "flip":
            path.write_bytes(data)
        ended = nursery.run(self.arguments(pairs, half, 4, "--resume"), half)
        assert ended.code == 0, ended.output
        shown = " ".join(ended.output.split())
        assert "step-000002 is damaged (" in shown
        assert "going on from step 1" in shown
        assert kills.difference(whole, half) is None

    def test_a_damaged_log(self, nursery: Nursery, pairs: Path, half: Path) -> None:
        log = half / "metrics.jsonl"
        lines = log.read_text().splitlines()
        for text, words in ((lines[0] + "\n", "ends after step 1 of 2"), ("\n".join(["{", lines[1]]), "line 1 is not")):
            log.write_text(text)
            self.fails(nursery.run(self.arguments(pairs, half, 4, "--resume"), half), words, "--overwrite")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_killed_at_20_random_moments(nursery: Nursery, pairs: Path, tmp_path: Path, method: str) -> None:
    trials = kills.series(nursery, Case(method, pairs, measured=True), tmp_path, count=20, seed=0)
    assert [trial for trial in trials if trial.problem] == []
    assert sum(trial.kills for trial in trials) == 20
