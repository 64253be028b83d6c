"""`vpo compare`: one board for many runs, the same however often it is interrupted, and honest about what it knows."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from tests.conftest import PROMPTS
from tests.support import forked_runs
from tests.support.browser import check_players
from tests.support.commands import fails, main_ok
from tests.support.forks import Fork
from tests.support.offline_run import LABELS, make_set
from tests.support.said import say
from vpo_kit import config, files
from vpo_kit.comparison import baseline, board, board_files, board_page, labels, outcome, plan, regressed, runner, text
from vpo_kit.comparison.board import Board, Line
from vpo_kit.comparison.outcome import Machine, Outcome
from vpo_kit.comparison.plan import Allowance, Given, Row, RowSettings
from vpo_kit.comparison.pooling import changes, pooled
from vpo_kit.comparison.regressed import Luck
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.evaluation import people, tables, unfinished
from vpo_kit.evaluation.samples import Results
from vpo_kit.evaluation.statistics import Paired, paired
from vpo_kit.library import compare, entries, leaderboard
from vpo_kit.methods.dense import Dense
from vpo_kit.methods.sft import SFT
from vpo_kit.pairing import store

SMALL = ["batch_size=2", "evaluation.num_prompts=2", "evaluation.best_of=2", "sampling.steps=2", "checkpoints.every=1"]
# steps of 0.3 for each weight drive the margin away, and one step is enough to see it
DIVERGING = ["structural:optimiser.lr=0.3", "structural:optimiser.warmup_steps=0", "structural:health.window=1"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, tiny_wan: Path) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "pairs", model=str(tiny_wan))


def arguments(model: Path, pairs: Path, output: Path) -> list[object]:
    sets = [word for text in [*SMALL, *DIVERGING] for word in ("--set", text)]
    what = ["--methods", "sft,structural", "--seeds", 2, "--budget", "optimiser_steps=3"]
    return ["compare", *what, "--model", model, "--pairs", pairs, "--output", output, *sets]


def results(folder: Path) -> dict[str, Any]:
    """``results.json`` without what depends on the machine."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    for row in found["rows"]:
        for part in (row, *row["runs"]):
            del part["machine"]
    return found


def wait_for(path: Path, lines: int, process: Fork) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.code is None:
        if path.is_file() and path.read_text().count("\n") >= lines:
            return
        time.sleep(0.02)
    pytest.fail(f"{path} has not come: {process.errors}")


@pytest.fixture(scope="module")
def killed(tiny_wan: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that was killed with everything it had started while its second run was training, and then run
    again; its first run must not be touched by that.
    """
    folder = tmp_path_factory.mktemp("compare") / "killed"
    command = [str(word) for word in arguments(tiny_wan, pairs, folder)]
    with Fork(forked_runs.vpo, command, leads=True) as process:
        wait_for(folder / "runs/structural-0/metrics.jsonl", 1, process)
        os.killpg(process.pid, signal.SIGKILL)
    first = folder / "runs" / "sft-0"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    assert first / "summary.json" in before
    process = Fork(forked_runs.vpo, command)
    assert process.wait() == 0, process.errors
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()} == before
    return folder


def test_the_board_is_complete(killed: Path) -> None:
    found = results(killed)
    rows = {row["name"]: row for row in found["rows"]}
    assert set(rows) == {"sft", "structural", "best of 2 by vqa"}
    sft, structural = rows["sft"], rows["structural"]
    assert [(run["seed"], run["status"], run["steps"]) for run in sft["runs"]] == [(0, "done", 3), (1, "done", 3)]
    assert {"vqa", "gold", "motion"} <= set(sft["changes"])
    assert "text_accuracy" not in sft["changes"]  # of made worlds alone
    for name, change in sft["changes"].items():
        assert change["low"] <= change["difference"] <= change["high"]
        assert change["difference"] == pytest.approx(np.mean(list(change["by_seed"].values())), abs=1e-6)
        assert change["before"] == structural["changes"][name]["before"]
    assert sft["changes"]["vqa"]["by_seed"]["0"] != sft["changes"]["vqa"]["by_seed"]["1"]
    # three steps of two clips; a pair is four videos through the policy and the reference
    assert (sft["passes"], sft["labels"]) == (6, 0)
    assert structural["labels"] == 3 * len(LABELS)
    every = json.loads((killed / "results.json").read_text())["rows"]
    machine = [row["machine"] for row in every if row["name"] in ("sft", "structural")]
    assert len(machine) == 2
    assert all(part["seconds"] > 0 and part["peak_memory_mb"] > 100 for part in machine)
    # the seconds of the process that was killed with its parent are lost, and that is said
    assert sorted(part["seconds_complete"] for part in machine) == [False, True]


def test_changes_regressed_on_the_base_stand_beside_the_plain_ones(killed: Path) -> None:
    rows = {row["name"]: row for row in results(killed)["rows"]}
    for name, change in rows["sft"]["changes"].items():
        assert ("regressed" in change) == (name in ("vqa", "gold", "motion")), name
    # two videos: the slope explains their difference, and each prompt's mean is that of two candidates
    candidates = Results.load(next((killed / "base").glob("*-best-of-2")) / "samples" / "step-000000")
    base = Results.load(killed / "runs" / "sft-0" / "samples" / "step-000000")
    after = [Results.load(killed / "runs" / f"sft-{seed}" / "samples" / "step-000003") for seed in (0, 1)]
    luck = Luck.of(base, candidates, "gold")
    wanted = regressed.change([one.metrics["gold"] for one in after], luck, base.groups)
    assert rows["sft"]["changes"]["gold"]["regressed"] == wanted.interval()
    shown = [line for line in csv.DictReader((killed / "results.csv").read_text().splitlines()) if line["row"] == "sft"]
    assert {line["metric"] for line in shown if line["regressed_low"]} == {"vqa", "gold", "motion"}
    assert float(next(line for line in shown if line["metric"] == "gold")["regressed_change"]) == wanted.difference


def test_power_is_told_from_the_runs_that_are_there(
    killed: Path, tiny_wan: Path, pairs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in killed.rglob("*")}
    main_ok([*arguments(tiny_wan, pairs, killed), "--power", "0.05"])
    told = capsys.readouterr().out
    assert "power for a change of 0.05 in gold" in told
    assert "from 2 against the base and 1 against another row" in told
    assert {path: path.stat().st_mtime_ns for path in killed.rglob("*")} == before
    code, said = fails(capsys, *arguments(tiny_wan, pairs, tmp_path / "new"), "--power", "0.05")
    assert (code, "no row has two seeds that are measured" in said) == (1, True), said


def test_a_run_that_its_health_check_stopped_is_on_the_board(killed: Path) -> None:
    structural = next(row for row in results(killed)["rows"] if row["name"] == "structural")
    assert [run["status"] for run in structural["runs"]] == ["stopped", "stopped"]
    # where the weights are driven to, winners may be lost before the margin has run away
    assert all("step 2: the " in run["reason"] for run in structural["runs"])
    # the step whose loss the check has seen is done: it changed the weights that are measured
    assert [run["steps"] for run in structural["runs"]] == [2, 2]
    assert structural["changes"]  # what it left behind was measured
    for name in ("results.md", "report.html"):
        shown = (killed / name).read_text()
        assert "structural, seed 1 stopped: step 2: the " in shown


def test_a_stopped_run_that_goes_on_and_is_stopped_at_once_counts_all_its_steps(
    killed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed / "runs/structural-0", folder)
    code, told = fails(capsys, "train", "--resume", "--output", str(folder))
    assert (code, "step 3: the " in told) == (1, True), told
    assert json.loads((folder / "summary.json").read_text())["steps"] == 3
    assert (folder / "samples/step-000003/metrics.json").is_file()


def test_the_base_is_measured_once(killed: Path) -> None:
    base, candidates = sorted((killed / "base").iterdir())
    assert candidates.name == f"{base.name}-best-of-2"
    found = sorted((base / "samples" / "step-000000").glob("*.mp4"))
    assert [path.name for path in found] == ["000-0.mp4", "001-0.mp4"]
    assert {path.stat().st_nlink for path in found} == {5}  # here and in four runs


def test_a_base_that_was_ended_while_it_cleared_up_leaves_nothing(tmp_path: Path) -> None:
    """Its process is ended as soon as it has measured, which may be before the parts of the measurement are gone."""
    samples = tmp_path / "base" / runner.BASE_SAMPLES
    (samples / unfinished.PARTS).mkdir(parents=True)
    (samples / unfinished.PARTS / "key.mp4").write_bytes(b"video")
    (samples / "metrics.json").write_text("{}")
    planned = runner.Planned("row", config.build({"output": tmp_path / "run"}), tmp_path / "base")
    assert runner.measure_base(planned, print)
    assert [path.name for path in samples.iterdir()] == ["metrics.json"]


def test_people_join_the_board(killed: Path, tiny_wan: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command shows them, and shows none where nobody was asked; without their file all is as before."""
    before = (killed / "results.json").read_bytes()
    people.join(killed, "first", {"sft": {"quality": say()}})
    try:
        main_ok(arguments(tiny_wan, pairs, killed))
    finally:
        (killed / people.FILE).unlink()
    assert "62% [55%, 70%]*" in capsys.readouterr().out
    rows = {row["name"]: row.get("people") for row in results(killed)["rows"]}
    assert rows.pop("sft") == {"quality": asdict(say())}
    assert set(rows.values()) == {None}
    assert "| structural | quality | none |" in (killed / "results.md").read_text()
    main_ok(arguments(tiny_wan, pairs, killed))
    assert (killed / "results.json").read_bytes() == before


def test_again_is_nothing_new(killed: Path, tiny_wan: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("results.json", "results.md", "report.html", "compare.yaml")

    def written() -> list[bytes]:  # but for the minute that a page was written in
        return [re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d", b"", (killed / name).read_bytes()) for name in names]

    before = written()
    command = arguments(tiny_wan, pairs, killed)
    listing = killed / "compare.yaml"
    older = listing.read_text().replace("    quantise: none\n", "")  # begun before this setting came
    assert older != listing.read_text()
    listing.write_text(older)
    main_ok(command)
    shown = capsys.readouterr().out
    assert "done in" not in shown
    words = ("gold", "motion", "passes", "seconds", "memory", "labels", "1 stopped")
    assert not [word for word in words if word not in shown], shown
    assert written() == before
    # another budget, and a command that leaves a row out, are refused; nothing is touched
    for change, message in (
        (["--budget", "optimiser_steps=4"], "was begun with another steps of sft"),
        (["--methods", "sft", "--set", "batch_size=2"], "'structural' is not among --methods"),
        (["--seeds", 1], "was begun with seed 1"),
        (["--set", "structural:optimiser.lr=0.2"], "was begun with another optimiser of structural"),
    ):
        code, line = fails(capsys, *command, *change)
        assert (code, message in line, line.count("\n")) == (2, True, 1), line
    # so is the same path with something else in it
    listing = pairs / "metadata.jsonl"
    rows = listing.read_bytes()
    listing.write_bytes(b"\n".join(reversed(rows.splitlines())) + b"\n")
    try:
        code, line = fails(capsys, *command)
    finally:
        listing.write_bytes(rows)
    assert (code, "the pairs of sft are not what they were" in line, line.count("\n")) == (2, True, 1), line
    assert written() == before


def test_a_dry_run_says_what_it_costs_and_writes_nothing(
    tiny_wan: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("vpo_kit.models.load", lambda *_, **__: pytest.fail("loaded"))
    main_ok([*arguments(tiny_wan, pairs, tmp_path / "new"), "--dry-run"])
    shown = capsys.readouterr().out
    assert not (tmp_path / "new").exists()
    sft, structural = (next(line.split() for line in shown.splitlines() if line.startswith(n)) for n in ("sft", "str"))
    # three steps of two clips; a pair is four videos through the policy and the reference
    assert (sft[1:6], structural[1:6]) == (["2", "of", "2", "3", "6"], ["2", "of", "2", "3", "24"])
    assert sft[6] == "about"
    assert "4 of 4 runs are left, 60 passes, about " in shown
    table = shown[shown.index("what is left to train") : shown.index("4 of 4")]
    assert all(len(line) <= 80 for line in table.splitlines())


def test_a_dry_run_takes_the_time_of_finished_runs(
    killed: Path, tiny_wan: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in killed.rglob("*")}
    main_ok([*arguments(tiny_wan, pairs, killed), "--dry-run"])
    shown = capsys.readouterr().out
    assert "0 of 4 runs are left" in shown
    assert {path: path.stat().st_mtime_ns for path in killed.rglob("*")} == before
    code, said = fails(capsys, *arguments(tiny_wan, pairs, killed), "--dry-run", "--set", "batch_size=3")
    assert (code, "nothing else may change" in said) == (2, True)


def test_the_page_shows_all_methods_side_by_side(killed: Path) -> None:
    shown = (killed / "report.html").read_text()
    numbers = json.loads(shown.split('id="data">')[1].split("</script>")[0])
    assert [file for _, file in numbers["clips"]] == ["000-0.mp4", "001-0.mp4"]
    assert len(numbers["models"]) == 3  # the base and two rows
    for model in numbers["models"]:
        assert model["runs"]
        for run in model["runs"].values():
            assert (killed / run["folder"] / "000-0.mp4").is_file()
            assert len(run["values"]["gold"]) == 2
    assert "<svg" in shown


def test_the_page_in_a_browser(killed: Path) -> None:
    check_players(killed / "report.html", PROMPTS[0], 1)


@pytest.mark.slow
def test_kill_9_changes_no_result(killed: Path, tiny_wan: Path, pairs: Path, tmp_path: Path) -> None:
    main_ok(arguments(tiny_wan, pairs, tmp_path / "whole"))
    assert results(tmp_path / "whole") == results(killed)


@pytest.mark.slow
def test_a_crash_is_on_the_board_and_tried_again(
    tiny_wan: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a budget of passes; the base is measured by a row that can, and a second command adds a row."""
    other = make_set(tmp_path / "set", shape=(8, 3, 2, 2), model=str(tiny_wan))
    what = ["--methods", "sft,dense", "--seeds", 1, "--budget", "network_passes=20", "--pairs", pairs]
    sets = [word for text in [*SMALL, f"sft:pairs={other}"] for word in ("--set", text)]
    command = ["compare", *what, "--model", tiny_wan, "--output", tmp_path / "sweep", *sets]
    main_ok([*command, "--vary", "dense:method.beta=50"])
    assert "sft-0: failed" in capsys.readouterr().out
    dense, sft = results(tmp_path / "sweep")["rows"]  # what was not measured comes last
    assert (dense["name"], sft["name"]) == ("dense method.beta=50", "sft")
    (run,) = sft["runs"]
    assert run["status"] == "failed"
    assert "has nothing to learn from: p0: latents are (8, 3, 2, 2), this model's are (8, 3, 4, 4)" in run["reason"]
    shutil.rmtree(other)
    make_set(other, model=str(tiny_wan))
    main_ok([*command, "--vary", "dense:method.beta=50,5e3"])
    assert capsys.readouterr().out.count("done in") == 2  # the one that had failed, and the new one
    rows = {row["name"]: row for row in results(tmp_path / "sweep")["rows"]}
    assert {name: row["runs"][0]["status"] for name, row in rows.items()} == dict.fromkeys(
        ["sft", "dense method.beta=50", "dense method.beta=5e3"], "done"
    )
    assert rows["dense method.beta=50"] == dense
    new = rows["dense method.beta=5e3"]
    assert [row["passes"] for row in (dense, new)] == [24, 24]  # whole steps of eight, the first that reach 20
    assert [row["settings"]["method"]["beta"] for row in (dense, new)] == [50, 5000]
    assert new["changes"] != dense["changes"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give --methods, or a file with methods"),
        (["--methods", "sft,onlne"], 2, "unknown method 'onlne' (did you mean 'online'?)"),
        (["--methods", "sft,sft"], 2, "name each method once"),
        (["--methods", "draft,sft"], 2, "method 'sft' learns from videos or pairs: give --videos DIR or --pairs SET"),
        (["--methods", "dense"], 2, "method 'dense' learns from pairs: give --pairs SET"),
        (["--methods", "dpo", "--pairs", "SET"], 2, "give --independent-pairs SET"),
        (["--methods", "dense", "--pairs", "/none"], 1, "dense: /none is no pair set"),
        (["--methods", "sft", "--videos", "/none"], 1, "sft: there is no folder /none: --videos"),
        (["--methods", "draft", "--budget", "steps=3"], 2, "unknown budget 'steps' (did you mean 'optimiser_steps'?)"),
        (["--methods", "draft", "--budget", "optimiser_steps=0"], 2, "write it once as optimiser_steps=N"),
        (["--methods", "draft", "--budget", "seconds=0.5"], 2, "write it once as seconds=N"),
        (["--methods", "dense", "--pairs", "SET", "--budget", "labelled_segments=99"], 1, "has only 24 labels"),
        (["--methods", "draft", "--set", "method.bta=1"], 2, "draft: unknown setting method.bta"),
        (["--methods", "draft", "--set", "online:steps=1"], 2, "'online' is not among --methods (draft)"),
        (["--methods", "draft", "--set", "draft:seed=1"], 2, "draft: seed is the same for all runs"),
        (["--methods", "draft", "--set", "evaluation.num_prompts=0"], 2, "draft: evaluation.num_prompts is 0"),
        (["--methods", "draft", "--set", "method.name=online"], 2, "--methods names the methods"),
        (["--methods", "draft", "--vary", "steps"], 2, "write it as section.field=value,value"),
        (["--methods", "draft", "--vary", "steps=1,2", "--vary", "draft:steps=3"], 2, "steps is given twice"),
        (["--methods", "draft", "--seeds", "0"], 2, "seeds"),
    ],
)
def test_refusals(
    tiny_wan: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int,
    message: str,
) -> None:  # fmt: skip
    words = [str(pairs) if word == "SET" else word for word in arguments]
    found, shown = fails(capsys, "compare", "--model", tiny_wan, "--output", tmp_path / "out", *words)
    assert (found, message in shown) == (code, True), shown
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_left_alone(
    tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, shown = fails(capsys, "compare", "--methods", "draft", "--model", tiny_wan, "--output", tmp_path)
    assert (code, "holds no comparison" in shown) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_rows_of_a_plan(pairs: Path) -> None:
    settings = RowSettings(
        {"method": {"name": "dense", "beta": 7}, "batch_size": 4, "pairs": "a"},
        {"optimiser": {"lr": 1e-4}},
        {"dense": {"optimiser": {"lr": 1e-5}}},
    )
    varied = plan.read_vary(["batch_size=1,2", "dense:method.num_draws=3"], ["dense", "dpo", "online"])
    given = Given(independent=Path("b"))
    rows = plan.rows(["dense", "dpo", "online"], settings, varied, given, Allowance(passes=9))
    assert [row.name for row in rows][:3] == [
        "dense batch_size=1 method.num_draws=3", "dense batch_size=2 method.num_draws=3", "dpo batch_size=1",
    ]  # fmt: skip
    dense, dpo, online = (config.build(rows[i].values) for i in (1, 2, 5))
    assert dense.method == {"name": "dense", "beta": 7, "num_draws": 3}
    assert dpo.method == {"name": "dpo"}  # what the recipe sets for another method is not its own
    assert [run.optimiser.lr for run in (dense, dpo)] == [1e-5, 1e-4]
    assert (dense.pairs, dpo.pairs, online.pairs) == (Path("a"), Path("b"), None)
    assert {(run.steps, run.max_passes) for run in (dense, dpo, online)} == {(9, 9)}
    assert (dense.batch_size, dpo.batch_size) == (2, 1)
    timed = config.build(plan.rows(["draft"], settings, [], given, plan.read_budget("seconds=60"))[0].values)
    assert (timed.steps, timed.max_passes, timed.max_seconds) == (60000, None, 60)


def test_every_row_is_judged_by_the_rewards_that_others_are_trained_on() -> None:
    settings = RowSettings({"reward": "technical:0.5+vqa:0.5"}, {}, {})
    rows = plan.rows(["draft", "sft"], settings, [], Given(videos=Path("v")), Allowance())
    assert [row.values["evaluation"]["judges"] for row in rows] == [["technical", "vqa", "gold"]] * 2


def test_labels(pairs: Path, tmp_path: Path) -> None:
    found = store.read(pairs)
    assert (labels.used(Dense, found.pairs), labels.used(SFT, found.pairs)) == (24, 0)
    loose = [pair.model_copy(update={"source": None}) for pair in found.pairs]
    assert labels.used(SFT, loose) == 24  # without a real clip it learns from winners
    whole = [pair.model_copy(update={"labels": None}) for pair in found.pairs]
    assert labels.used(Dense, whole) == 8
    chosen = labels.first(found, 14)
    assert [pair.id for pair in chosen] == ["p0", "p1", "p2", "p3"]
    for _ in range(2):
        labels.write(found, chosen, tmp_path / "part")
    part = store.read(tmp_path / "part")
    assert [pair.id for pair in part.pairs] == [pair.id for pair in chosen]
    assert [store.problem(part.path, pair) for pair in part.pairs] == [None] * 4
    with pytest.raises(DataError, match="a single pair"):
        labels.first(found, 2)


def test_the_interval_widens_when_seeds_disagree() -> None:
    rng = np.random.default_rng(0)
    before, change = rng.normal(size=40), 0.5 + 0.1 * rng.normal(size=40)

    def width(*shifts: float) -> float:
        found = pooled(before, [before + change + shift for shift in shifts], range(40))
        assert found.difference == pytest.approx(change.mean())
        assert found.low < found.difference < found.high
        return found.high - found.low

    prompts = paired(before, before + change, range(40))
    assert width(0.0, 0.0, 0.0) == pytest.approx(prompts.high - prompts.low, rel=0.05)
    assert width(0.0, 0.0, 0.0) < width(-0.1, 0.0, 0.1) < width(-0.3, 0.0, 0.3)
    # where prompts all agree it is Student's interval of three values: 4.303 standard errors to either side
    exact = pooled(np.zeros(4), [[v] * 4 for v in (1.0, 2.0, 3.0)], range(4), resamples=200_000)
    assert (exact.low, exact.high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=0.05)
    # one seed has no second level
    assert pooled(before, [before + change], range(40)) == prompts


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_intervals_hold_what_they_say(spread: float) -> None:
    """No effect, three seeds: at most a few of a hundred intervals leave zero out, whatever the seeds do."""
    out = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        change = spread * rng.normal(size=(3, 1)) + rng.normal(size=(1, 30)) + rng.normal(size=(3, 30))
        found = pooled(np.zeros(30), change, range(30), resamples=1000)
        out += not found.low < 0 < found.high
    assert out <= 20  # 5% of 200 are 10; more than 20 has a chance of one in a thousand


def evaluation(name: str, **metrics: list[float]) -> Results:
    files = [f"{i:03d}-0.mp4" for i in range(3)]
    return Results(
        name=name, prompts=["<script>alert(1)</script>", "b", "c"], groups=[0, 1, 2], files=files, metrics=dict(metrics)
    )


def line(name: str, gold: float, folder: Path, reason: str = "") -> Line:
    before = evaluation("before", vqa=[0.0, 1.0, 2.0], gold=[0.0, 1.0, 2.0], motion=[0.1, 0.2, 0.3])
    after = evaluation("after", vqa=[1.0, 1.1, 2.5], gold=[gold, 1 + gold, 2 + 2 * gold], motion=[0.1, 0.1, 0.2])
    machine = Machine(12345.6, not reason, 98765)
    done = Outcome(
        seed=0,
        folder=folder / "runs" / "x-0",
        status="done",
        reason="",
        steps=9,
        passes=1234567,
        machine=machine,
        before=before,
        after=after,
        samples="samples/step-000009",
    )
    lost = Outcome(
        seed=1,
        folder=folder / "runs" / "x-1",
        status="failed",
        reason=reason,
        steps=0,
        passes=0,
        machine=machine,
        before=None,
        after=None,
    )
    return board.line(name, "dense", 1200, {"steps": 9}, [done, lost] if reason else [done])


def a_board(folder: Path) -> Board:
    wrong = "ended by SIGKILL (out of memory?) <b>"
    lines = [line("dense method.beta=5000", 0.1, folder), line("package.module:Method", 0.4, folder, wrong)]
    empty = board.line(
        "dpo",
        "dpo",
        0,
        {},
        [
            Outcome(
                seed=0,
                folder=folder,
                status="open",
                reason="",
                steps=0,
                passes=0,
                machine=Machine(None, True, None),
                before=None,
                after=None,
            )
        ],
    )
    facts = {"title": "<i>", "seeds": [0, 1], "versions": {"torch": "2"}}
    return Board(board.ranked([empty, *lines], "gold"), "gold", facts, {"gold": "CC-BY-NC-4.0"})


def test_what_health_checks_warned_of_is_on_the_board_once_a_row(tmp_path: Path) -> None:
    warned = line("draft", 0.1, tmp_path).outcomes[0]
    first, second = (
        replace(warned, seed=seed, warnings={"text_lost": f"right words have fallen to {share}%"})
        for seed, share in ((0, 84), (2, 90))
    )
    found = board.line("draft", "draft", 0, {}, [first, replace(warned, seed=1), second])
    assert found.reasons == []
    assert found.notes == ["seeds 0, 2, text_lost: right words have fallen to 84%"]
    whole = Board([found], "gold", {"title": "t", "seeds": [0, 1, 2], "versions": {}}, {})
    runs = board.results(whole)["rows"][0]["runs"]
    assert [sorted(run["warnings"]) for run in runs] == [["text_lost"], [], ["text_lost"]]
    shown = [text.markdown(whole), board_files.latex(whole), board_page.render(whole, tmp_path / "b.html")]
    assert all("have fallen to 84" in words for words in shown)


def test_the_board_in_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = a_board(tmp_path)
    assert [row.name for row in found.lines] == ["package.module:Method", "dense method.beta=5000", "dpo"]
    leaderboard.show(Console(width=80), found)
    shown = capsys.readouterr().out
    assert "…" not in shown
    grids = shown.split("package.module:Method, seed 1 failed")[0]
    assert max(map(len, grids.splitlines())) <= 80
    for part in ("+0.53 [+0.40, +0.80]", "1/2", "1,234,567", "≥12,346", "98,765 MB", "1,200", "0/1"):
        assert part in shown
    assert "package.module:Method, seed 1 failed: ended by SIGKILL (out of memory?) <b>" in shown
    assert "dpo, seed 0 open" in shown
    assert grids.count("motion, base") == 1  # one table for both judges, where it does not fit beside them
    leaderboard.show(Console(width=100), found)
    wide = capsys.readouterr().out
    assert "motion, base" not in wide
    assert sum(line.split()[-2:] == ["wins", "motion"] for line in wide.splitlines()) == 2


def test_markdown_and_page_escape_what_they_are_given(tmp_path: Path) -> None:
    found = a_board(tmp_path)
    table = text.markdown(found)
    assert (
        "| method | vqa ↑ | gold ↑ | motion – | equals best of | runs | passes | seconds | memory | labels | samples |"
        in table
    )
    assert "SIGKILL (out of memory?) \\<b\\>" in table
    shown = board_page.render(found, tmp_path / "report.html")
    assert "<script>alert" not in shown
    assert r"\u003cscript\u003ealert" in shown
    assert "&lt;i&gt;" in shown
    assert "(out of memory?) &lt;b&gt;" in shown
    assert "non-commercial</span>" in shown
    assert '"folder": "runs/x-0/samples/step-000009"' in shown
    assert board_page.render(found, tmp_path / "report.html") == shown


def test_the_page_says_who_is_first_and_who_is_not_measured(tmp_path: Path) -> None:
    found = a_board(tmp_path)
    said = board_page.said(found)
    assert said.startswith(
        "By gold, none of 2 better than the base and 0 worse; first is package.module:Method with +0.53"
    )
    assert said.endswith("(unclear); 1 not measured.")
    none = replace(found, lines=[row for row in found.lines if not row.changes])
    assert board_page.said(none) == "None of 1 methods has been measured yet."


def change(before: float, after: float, low: float, high: float) -> Paired:
    return Paired(
        before=before, after=after, difference=after - before, low=low, high=high, win_rate=0.5, count=4, p=0.01
    )


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (change(0.5, 0.62, 0.03, 0.21), "+0.120 [+0.030, +0.210]"),
        (change(0.5, 0.4999, -0.5, 0.5), "+0.00 [-0.50, +0.50]"),  # no sign on what is rounded to zero
        (change(0.0312, 0.0312 - 4e-6, -1.6e-5, 8e-6), "-0.4e-5 [-1.6e-5, +0.8e-5]"),
        (change(0.0, 3e-9, 1e-9, 5e-9), "+3.0e-9 [+1.0e-9, +5.0e-9]"),
        (change(0.0, 0.5, 0.499999, 0.500001), "+0.5000 [+0.5000, +0.5000]"),
        (change(0.0, 1e-5, 1e-5, 1e-5), "+1.00e-5 [+1.00e-5, +1.00e-5]"),  # one prompt has no interval
        (change(0.25, 0.25, 0.0, 0.0), "0 [0, 0]"),
        (change(0.25, 0.75, 0.5, 0.5), "+0.500 [+0.500, +0.500]"),
        (change(1000.0, 1200.0, -100.0, 500.0), "+200.0 [-100.0, +500.0]"),
    ],
)
def test_figures_show_what_is_not_zero(found: Paired, shown: str) -> None:
    assert tables.span(found) == shown
    assert len(shown) <= 30
    assert not re.search(r"-0\.0+\b(?!e)", shown)


def test_small_effects_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two hundred thousandths, on the terminal, in the files and on the page."""
    before = evaluation("before", vqa=[0.0, 1.0, 2.0], motion=[0.1, 0.2, 0.3])
    after = evaluation("after", vqa=[1e-5, 1 + 2e-5, 2 + 3e-5], motion=[0.1 + 1e-7, 0.2 - 1e-7, 0.3 + 3e-7])
    outcome = replace(a_board(tmp_path).lines[0].measured[0], before=before, after=after)
    found = Board([board.line("sft", "sft", 0, {}, [outcome])], "vqa", {"title": "t", "seeds": [0]}, {})
    leaderboard.show(Console(width=80), found)
    shown = capsys.readouterr().out
    assert max(map(len, shown.split("Means, and")[0].splitlines())) <= 80
    for text_of in (shown, text.markdown(found), board_page.render(found, tmp_path / "report.html")):
        assert "+2.0e-5" in text_of
        assert not re.search(r"[+-]0\.0+ ", text_of)
    assert "base 1.000000, change against it" in shown


def test_what_people_said_is_beside_the_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = a_board(tmp_path)
    wins = {name: say() for name in ("quality", "text")}
    judged, other, *_ = found.lines
    told = replace(found, lines=[replace(judged, people=wins), *found.lines[1:]])
    assert (told.people, found.people) == (["quality", "text"], [])
    said, strength = "62% [55%, 70%]*", "+0.49 [+0.20, +0.85]"
    shown = text.markdown(told)
    assert (shown.count(said), shown.count(strength), shown.count(people.CAPTION)) == (4, 2, 1)  # the board's, its own
    page = board_page.render(told, tmp_path / "report.html")
    assert (page.count(said), page.count(strength), page.count("People (vpo study)")) == (4, 2, 1)
    assert page.count(">none<") == 2 * 2 * (len(found.lines) - 1)  # the board's, its own
    assert "people: quality" in shown
    assert "people" not in text.markdown(found)
    assert board_files.latex(told).count(r"\begin{tabular}") == 2
    leaderboard.show(Console(width=80), told)
    shown = capsys.readouterr().out
    assert (shown.count(said), shown.count(strength), shown.count("0.41")) == (2, 2, 2)
    assert max(map(len, shown.split(f"{judged.name}, seed 1 failed")[0].splitlines())) <= 80
    assert "…" not in shown
    assert board.results(told)["rows"][0]["people"]["text"]["raters"] == 4
    assert "people" not in board.results(found)["rows"][0]
    rows = [row for row in csv.DictReader(io.StringIO(board_files.table(told))) if row["metric"] == "people: text"]
    assert [row["row"] for row in rows] == told.names
    keys = ("change", "low", "high", "wins", "wins_low", "wins_high", "verdicts", "raters", "alpha", "study")
    assert [rows[0][key] for key in keys] == ["0.49", "0.2", "0.85", "0.62", "0.55", "0.7", "90", "4", "0.41", "first"]
    assert [rows[1][key] for key in keys] == ["", "", "", "", "", "", "0", "0", "", ""]
    assert rows[1]["row"] == other.name


def test_csv_and_latex_hold_the_board(tmp_path: Path) -> None:
    found = a_board(tmp_path)
    rows = list(csv.DictReader(io.StringIO(board_files.table(found))))
    assert [(row["row"], row["metric"]) for row in rows] == [
        *[(name, metric) for name in ("package.module:Method", "dense method.beta=5000") for metric in found.metrics],
        ("dpo", ""),
    ]
    (gold,) = [row for row in rows if (row["row"], row["metric"]) == ("package.module:Method", "gold")]
    exact = found.lines[0].changes["gold"]
    assert [float(gold[key]) for key in ("base", "mean", "change", "low", "high", "p")] == [
        exact.before, exact.after, exact.difference, exact.low, exact.high, exact.p,
    ]  # fmt: skip
    assert float(gold["mean"]) - float(gold["base"]) == pytest.approx(float(gold["change"]))
    assert (gold["runs_measured"], gold["runs"], gold["passes"], gold["better"]) == ("1", "2", "1234567.0", "higher")
    tex = board_files.latex(found)
    body = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in body} == {len(found.metrics) + 1 + len(text.COSTS)}
    assert body[1].startswith("base & 1.00 & 1.00 & 0.20")
    assert r"package.module:Method & 1.53" in tex
    assert r"1.53 ($+$0.53 [$+$0.40, $+$0.80])" in tex
    assert r"gold $\uparrow$" in tex
    assert "| base | 1.00 | 1.00 | 0.200 |" in text.markdown(found).replace("\\", "")


def test_runs_on_other_prompts_are_not_compared() -> None:
    before = evaluation("before", vqa=[0.0, 1.0, 2.0])
    other = Results(
        name="after", prompts=["a", "b", "c"], groups=before.groups, files=before.files, metrics=before.metrics
    )
    with pytest.raises(DataError, match="same prompts"):
        changes(before, [before, other])


def test_seconds_are_those_of_all_processes(tmp_path: Path) -> None:
    """A run that was interrupted after 5 s, lost a process with its parent, and then took 20 s in the last one."""
    run = config.build({"output": tmp_path, "seed": 3})
    planned = runner.Planned("row", run, tmp_path / "base")
    assert outcome.read(planned).status == "open"
    log = tmp_path / "attempts.jsonl"
    ended = {"event": "end", "reason": "interrupted", "seconds": 5.0, "peak_memory_mb": 300}
    log.write_text(f'{{"event": "start"}}\n{json.dumps(ended)}\n')
    found = outcome.read(planned)
    assert (found.status, found.reason, found.machine) == ("failed", "interrupted", Machine(5.0, True, 300))
    for folder in ("step-000000", "step-000002", "step-000009"):  # the last of a longer run whose end was lost
        evaluation("x", vqa=[0.0, 1.0, 2.0]).save(tmp_path / "samples" / folder)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "passes": 4.0}\n{"step": 2, "passes": 4.0}\n')
    summary = {"health": {"ok": True, "message": ""}, "steps": 2, "seconds": 20.0}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with log.open("a") as file:
        file.write('{"event": "start"}\n')
    assert outcome.read(planned).machine == Machine(25.0, True, 300)  # the last ended by itself and gave its seconds
    with log.open("a") as file:
        file.write(f'{{"event": "start"}}\n{json.dumps(ended | {"seconds": 22.0, "peak_memory_mb": 400})}\n')
    found = outcome.read(planned)
    assert found.machine == Machine(25.0, False, 400)
    assert (found.status, found.steps, found.passes, found.samples) == ("done", 2, 8, "samples/step-000002")


def test_a_line_that_a_full_disk_has_cut_does_not_end_a_comparison(tmp_path: Path) -> None:
    planned = runner.Planned("row", config.build({"output": tmp_path}), tmp_path / "base")
    ended = json.dumps({"event": "end", "reason": "interrupted", "seconds": 5.0, "peak_memory_mb": 300})
    (tmp_path / "attempts.jsonl").write_text(f'{{"event": "start"}}\n{{"event": "e\n{{"event": "start"}}\n{ended}\n')
    assert outcome.read(planned).machine == Machine(5.0, False, 300)


def test_a_log_is_read_on_from_where_it_was_read(tmp_path: Path) -> None:
    log, path = leaderboard.Logged(tmp_path / "metrics.jsonl"), tmp_path / "metrics.jsonl"
    log.read_on()
    assert (log.steps, log.passes) == (0, 0)
    path.write_text('{"step": 1, "passes": 4}\n{"step": 2, "pas')
    log.read_on()
    assert (log.steps, log.passes) == (1, 4)
    with path.open("a") as file:
        file.write('ses": 2}\n{"step": 3, "passes": 1}\n')
    log.read_on()
    assert (log.steps, log.passes) == (3, 7)
    files.write(path, '{"step": 1, "passes": 4}\n')  # a run that goes on from its checkpoint
    log.read_on()
    assert (log.steps, log.passes) == (1, 4)


def test_as_good_as_the_best_of_another_base_is_nothing(tmp_path: Path) -> None:
    row = line("dense", 0.4, tmp_path)
    base, files = row.before, [f"{i:03d}-{k}.mp4" for i in range(3) for k in range(2)]
    assert base is not None
    more = {name: [value + k for value in values for k in range(2)] for name, values in base.metrics.items()}
    candidates = replace(base, groups=[0, 0, 1, 1, 2, 2], files=files, metrics=more)
    (own,) = baseline.with_equals([row], base, candidates, more["gold"], "gold")
    (other,) = baseline.with_equals([row], replace(base, name="other"), candidates, more["gold"], "gold")
    assert own.equal is not None
    assert other.equal is None


def test_a_command_leaves_the_board_to_one_that_added_to_it(
    killed: Path, tiny_wan: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two at work on one folder, of which the one that ends last knows fewer rows."""
    folder = Path(shutil.copytree(killed, tmp_path / "board"))
    listing = yaml.safe_load((folder / "compare.yaml").read_text())
    (folder / "results.json").write_text("another's")

    def checked_first(*arguments: Any) -> Any:
        found = entries.checked(*arguments)
        (folder / "compare.yaml").write_text(yaml.safe_dump({**listing, "seeds": [0, 1, 2]}))
        return found

    def added(*_: Any) -> None:
        """The other command begins when this one has."""
        (folder / "compare.yaml").write_text(yaml.safe_dump({**listing, "seeds": [0, 1, 2]}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "begin", added)
        main_ok(arguments(tiny_wan, pairs, folder))
    assert (folder / "results.json").read_text() == "another's"
    assert "rows or seeds were added meanwhile" in capsys.readouterr().out
    (folder / "compare.yaml").write_text(yaml.safe_dump(listing))
    with pytest.MonkeyPatch.context() as patch:  # or between this one's check and its beginning
        patch.setattr(compare, "checked", checked_first)
        code, said = fails(capsys, *arguments(tiny_wan, pairs, folder))
    assert (code, "was begun with seed 2, which this command leaves out" in said) == (2, True)


def test_a_process_that_was_left_behind_is_waited_for(tmp_path: Path) -> None:
    """Killed alone, a command leaves its training process, which holds the lock: its work is taken, not done twice."""
    planned = runner.Planned("row", config.build({"output": tmp_path}), tmp_path / "base")
    lines: list[str] = []

    def finish() -> None:
        while not lines:
            time.sleep(0.01)
        (tmp_path / "summary.json").write_text("{}")
        holder.close()

    holder = (tmp_path / runner.LOCK).open("a")
    fcntl.flock(holder, fcntl.LOCK_EX)
    thread = threading.Thread(target=finish, daemon=True)
    thread.start()
    assert not list(runner.turns([planned], lines.append))
    thread.join()
    assert "another process is at work here" in lines[0]
    assert not (tmp_path / "attempts.jsonl").exists()


def test_commands_on_one_folder_share_the_runs(tmp_path: Path) -> None:
    """What another one is at work on comes last, and what is finished not at all."""
    run = config.build({"output": tmp_path})
    rows = [runner.Planned(name, run.model_copy(update={"output": tmp_path / name}), tmp_path) for name in "abcd"]
    for one in rows[:3]:
        one.path.mkdir()
    (rows[1].path / "summary.json").write_text("{}")
    with (rows[0].path / runner.LOCK).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = runner.turns(rows, print)
        assert next(found)[0].row == "c"
        fcntl.flock(held, fcntl.LOCK_UN)  # it was broken off
        assert [one.row for one, _ in found] == ["a", "d"]


def test_a_run_is_taken_by_one_of_two_commands(tmp_path: Path) -> None:
    """A run that was found free is held from then on: two commands that begin together do not wait for one another."""
    run = config.build({"output": tmp_path})
    rows = [runner.Planned(name, run.model_copy(update={"output": tmp_path / name}), tmp_path) for name in "abc"]
    first, second = (runner.turns(rows, pytest.fail) for _ in range(2))
    assert [next(turn)[0].row for turn in (first, second, first)] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["compare.yaml", "results.json"])
def test_commands_that_are_at_one_place_together_leave_one_board(
    killed: Path, tiny_wan: Path, pairs: Path, tmp_path: Path, name: str
) -> None:
    """A file takes a while to reach the disk, and another command must not take its place in between."""
    folder = tmp_path / "board"
    shutil.copytree(killed, folder)
    (folder / "results.json").unlink()
    command = [str(word) for word in arguments(tiny_wan, pairs, folder)]
    both = [Fork(forked_runs.with_a_slow_file, Path(name).stem, command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], [process.errors for process in both]
    assert results(folder) == results(killed)


def test_a_run_is_a_process_of_its_own_and_what_ends_it_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is called, by a program in Python's place; all other runs of the quick tests are forks."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "vpo: $*"\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    run = config.build({"output": tmp_path / "run"})
    for one, lock in runner.turns([runner.Planned("row", run, tmp_path / "base")], print):
        runner.train(one, lock, lambda: None)
    first, last = (json.loads(line) for line in (tmp_path / "run/attempts.jsonl").read_text().splitlines())
    assert (first["event"], last["event"]) == ("start", "end")
    assert last["reason"] == f"-m vpo_kit train --resume --output {tmp_path / 'run'}"


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    runner.RunFolder(tmp_path).start(config.build({"output": tmp_path, "batch_size": 3}), resume=False)
    planned = runner.Planned("row", config.build({"output": tmp_path}), tmp_path / "base")
    with pytest.raises(ConfigError, match="batch_size differ"):
        runner.train(planned, 0, lambda: None)


def test_names_of_rows_are_parts_of_paths() -> None:
    assert Row("package.module:Class reward.name=../a b", "", {}).folder == "package.module-Class-reward.name=..-a-b"
