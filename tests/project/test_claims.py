"""A claim's verdict follows from its interval and from the effect that was written down before its run."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import facts
from benchmarks.claims import compared, design, matrix, memory, page, pilot, scores, sets
from benchmarks.claims.boards import Boards
from benchmarks.claims.design import Claim, Comparison, Design, Kind, Verdict, verdict
from benchmarks.claims.scores import WaitingError
from benchmarks.speed.jobs import Bench
from tests.support.places import ROOT
from vpo_kit import files
from vpo_kit.comparison.layout import Components, Layout
from vpo_kit.evaluation.samples import Results
from vpo_kit.methods.base import Batch
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Pair
from vpo_kit.testing.pairs import pair_row


@pytest.mark.parametrize(
    ("kind", "low", "high", "told"),
    [
        ("more", 0.01, 0.12, "found"),
        ("more", 0.01, 0.04, "found, less than matters"),
        ("more", -0.02, 0.04, "excluded"),
        ("more", -0.02, 0.05, "open"),
        ("more", -0.2, 0.2, "open"),
        ("keeps", -0.04, 0.2, "found"),
        ("keeps", -0.05, 0.2, "open"),
        ("keeps", -0.2, -0.06, "excluded"),
        ("same", -0.04, 0.04, "found"),
        ("same", -0.04, 0.06, "open"),
        ("same", 0.06, 0.2, "excluded"),
        ("same", -0.2, -0.06, "excluded"),
    ],
)
def test_a_verdict_follows_from_interval_and_effect(kind: Kind, low: float, high: float, told: Verdict) -> None:
    assert verdict(kind, low, high, 0.05) == told


def test_every_claim_is_of_rows_that_boards_have() -> None:
    planned = design.read()
    assert len(planned.claims) >= 20
    for claim in (claim for claim in planned.claims.values() if claim.board not in planned.beside):
        for row in (claim.one, claim.other):
            board, _, name = row.rpartition("/")
            words = planned.boards[board or claim.board].arguments
            methods = words[words.index("--methods") + 1].split(",")
            varied = [words[i + 1] for i, word in enumerate(words) if word == "--vary"]
            method, *settings = name.split(" ")
            assert method in (*methods, "base"), claim.name
            assert len(settings) == (0 if method == "base" else len(varied)), claim.name
            for setting, values in zip(settings, varied, strict=False):
                field, _, value = setting.partition("=")
                assert values.startswith(f"{field}="), claim.name
                assert value in values.partition("=")[2].split(","), claim.name


def test_the_boards_of_a_claim_have_the_same_noises_and_seeds() -> None:
    planned = design.read()
    for claim in (claim for claim in planned.claims.values() if claim.board not in planned.beside):
        boards = {row.rpartition("/")[0] or claim.board for row in (claim.one, claim.other)}
        assert len({planned.layout(board) for board in boards}) == 1, claim.name


def test_before_a_claim_is_decided_power_rests_on_the_pilot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    shutil.copy(facts.RESULTS / f"{pilot.RESULT}.json", tmp_path / "claims")
    monkeypatch.setattr(facts, "RESULTS", tmp_path)
    assert design.known() == pilot.known()


def test_the_page_has_every_claim_as_it_is_written() -> None:
    text = design.PAGE.read_text(encoding="utf-8")
    planned = design.read()
    for line in design.table(planned, {}, {}).splitlines()[2:]:
        assert line.removesuffix(" |  |") in text
    assert all(
        f"| {name} | {one.what} | {one.hours:g} |" in text
        for name, one in (*planned.boards.items(), *planned.beside.items())
    )


def test_a_result_is_younger_than_the_design_it_names() -> None:
    whole = ["git", "rev-parse", "--is-shallow-repository"]
    if subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() != "false":
        pytest.skip("not a git clone with its whole history, which says what came first")
    every = [json.loads(path.read_text()) for path in sorted((facts.RESULTS / "claims").glob("*.json"))]
    for found in (one for one in every if "design" in one):  # those of version 0.1.0 had none
        order = ["git", "merge-base", "--is-ancestor", found["design"], found["commit"]]
        assert subprocess.run(order, cwd=ROOT, check=False).returncode == 0, found["command"]
        shown = ["git", "show", f"{found['design']}:{design.FILE.relative_to(ROOT)}"]
        text = subprocess.run(shown, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        before, now = yaml.safe_load(text)["claims"], yaml.safe_load(design.FILE.read_text(encoding="utf-8"))["claims"]
        for name in found["claims"]:
            assert before.get(name) == now[name] or now[name].get("afterwards"), f"{name} was changed after its run"


def test_verdicts_follow_from_the_scores_that_are_kept_and_from_the_design(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer draws, so the ends of intervals are those of the results nearly; the differences are the same."""
    monkeypatch.setattr(compared, "RESAMPLES", 4000)
    planned = design.read()
    boards = Boards(work=Path("nowhere"), design=planned)
    for path in sorted((facts.RESULTS / "claims").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if "design" not in found:
            continue
        for name, claim in found["claims"].items():
            assert claim["verdict"] == verdict(claim["kind"], claim["low"], claim["high"], claim["effect"])
            if path.stem in planned.boards:
                again, width = compared.decided(planned.claims[name], boards), claim["high"] - claim["low"]
                assert again["effect"] == pytest.approx(claim["effect"])
                assert again["difference"] == pytest.approx(claim["difference"], abs=1e-4)
                assert [again["low"], again["high"]] == pytest.approx([claim["low"], claim["high"]], abs=0.1 * width)


def test_power_stands_where_variances_are_known() -> None:
    calm = Components(prompt=0.001, noise=0.0, seed=0.0, rest=0.01)
    lines = design.table(design.read(), {"gold": calm}, {"motion": 0.01}).splitlines()
    shown = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in lines[2:]}
    assert float(shown["dense over structural"]) > 0.9
    assert not shown["a third of the labels is enough"]
    assert not shown["vanilla loses motion"]  # no variance of motion is known


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boards:
    """Two boards that were run, of a row each, and a claim that sets one against the other."""
    monkeypatch.setattr(facts, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(compared, "RESAMPLES", 4000)
    size = Layout(prompts=24, noises=1, seeds=3)
    claim = Claim(name="c", source="", board="near", one="a", other="far/b", metric="gold", kind="more", effect=0.05)
    planned = {name: Comparison(what=name, arguments=["--methods", "dpo"], hours=1.0) for name in ("near", "far")}
    made = Boards(work=tmp_path, design=Design(size=size, boards=planned, beside={}, claims={"c": claim}, commit="0"))
    chance = random.Random(0)
    base = [chance.gauss(0, 1) for _ in range(size.prompts)]
    lucky = [score + chance.gauss(0, 1) for score in base for _ in range(8)]
    groups = [place for place in range(size.prompts) for _ in range(8)]
    scores.keep_candidates(_results(lucky, groups).prompts, groups, {"gold": lucky})
    for board, row, gain in (("near", "a", 0.3), ("far", "b", 0.1)):
        folder = made.folder(board)
        for seed in range(size.seeds):
            samples = folder / "runs" / f"{row}-{seed}" / "samples"
            _measured(samples / "step-000000", base)
            _measured(samples / "step-000009", [score + gain + chance.gauss(0, 0.02) for score in base])
        _told(folder, row, ["done", "stopped", "done"])
        scores.Scores.measured(folder).keep(board)
    return made


def test_a_claim_is_decided_from_what_was_kept_of_both_boards(boards: Boards) -> None:
    """Wherever they were run: no folder of theirs is needed."""
    claim = boards.design.claims["c"]
    shutil.rmtree(boards.folder("far"))
    found = compared.decided(claim, boards)
    assert found["verdict"] == "found"
    assert found["difference"] == pytest.approx(0.2, abs=0.02)
    _kept("far").unlink()
    with pytest.raises(WaitingError, match="the board far has not been run"):
        compared.decided(claim, boards)


@pytest.mark.parametrize("status", ["failed", "open"])
def test_a_run_that_has_not_ended_is_not_a_model_that_has_learned_nothing(boards: Boards, status: str) -> None:
    """The measurement of its base lies in its folder, and is the newest there."""
    folder = boards.folder("far")
    shutil.rmtree(folder / "runs/b-1/samples/step-000009")
    _told(folder, "b", ["done", status, "done"])
    _kept("far").unlink()
    scores.Scores.measured(folder).keep("far")
    with pytest.raises(WaitingError, match="b, seed 1, has not ended"):
        compared.decided(boards.design.claims["c"], boards)
    assert compared.decided(replace(boards.design.claims["c"], other="base"), boards)["verdict"] == "found"


def test_a_board_that_is_begun_anew_takes_nothing_away_from_what_was_kept(boards: Boards) -> None:
    _told(boards.folder("far"), "b", ["open", "open", "done"])
    scores.Scores.measured(boards.folder("far")).keep("far")
    assert compared.decided(boards.design.claims["c"], boards)["verdict"] == "found"


def test_runs_of_an_earlier_recipe_do_not_stand_in_for_one_that_failed(boards: Boards) -> None:
    folder = boards.folder("far")
    told = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    told["rows"][0]["settings"] = {"lr": 2}
    told["rows"][0]["runs"][1]["status"] = "failed"
    (folder / "results.json").write_text(json.dumps(told), encoding="utf-8")
    scores.Scores.measured(folder).keep("far")
    with pytest.raises(WaitingError, match="b, seed 1, has not ended"):
        compared.decided(boards.design.claims["c"], boards)


def test_boards_that_did_not_measure_the_same_base_are_not_set_against_each_other(boards: Boards) -> None:
    """As after a judge was trained anew: the same prompts and noises, other figures."""
    path = _kept("far")
    told = json.loads(path.read_text(encoding="utf-8"))
    for found in [told["base"], *told["rows"]["b"].values()]:
        found["gold"] = [value + 1 for value in found["gold"]]
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(WaitingError, match="near and far did not measure the same base"):
        compared.decided(boards.design.claims["c"], boards)


def test_what_the_untrained_model_would_be_told_stands_beside_what_is_kept(boards: Boards) -> None:
    claim = boards.design.claims["c"]
    keeps = compared.decided(replace(claim, kind="keeps"), boards)
    assert keeps["verdict"] == "found"
    assert keeps["untrained"]["difference"] == pytest.approx(-0.1, abs=0.02)
    assert "untrained" not in compared.decided(claim, boards)
    assert "untrained" not in compared.decided(replace(claim, kind="keeps", other="base"), boards)


def test_a_board_of_so_many_seconds_needs_a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1.4, 0.0, 0.0))
    compared._check_quiet(["--budget", "optimiser_steps=48"])
    with pytest.raises(SystemExit, match="the machine is busy"):
        compared._check_quiet(["--budget", "seconds=600"])


def test_a_page_without_a_section_is_refused_before_a_board_is_run() -> None:
    every = design.read()
    for name in every.boards:
        if every.of(name):
            page.check(name)
    with pytest.raises(SystemExit, match="no section for elsewhere"):
        page.check("elsewhere")
    with pytest.raises(ValueError, match="has no marks"):
        page.fill("elsewhere", "words")


def test_a_claim_waits_for_the_base_s_candidates(boards: Boards) -> None:
    (facts.RESULTS / "claims" / "scores" / "candidates.json").unlink()
    with pytest.raises(WaitingError, match=r"python -m benchmarks\.claims judges"):
        compared.decided(boards.design.claims["c"], boards)


def test_a_board_is_kept_and_its_claims_wait_for_the_other_board(
    boards: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is run first: nothing of its hours is lost, and what waits is decided without another run."""
    far = boards.scores("far")
    _kept("far").unlink()
    runs = []
    monkeypatch.setattr(compared, "vpo", lambda *words: runs.append(words))
    monkeypatch.setattr(compared, "_check_order", lambda _: None)
    monkeypatch.setattr(page, "PAGE", facts.RESULTS / "claims" / "README.md")
    files.write(page.PAGE, "# Claims\n" + page._mark("near") + page.END)
    compared.run("near", boards)
    result = facts.RESULTS / "claims" / "near.json"
    told = json.loads(result.read_text())
    assert (told["claims"], list(told["waiting"])) == ({}, ["c"])
    assert "waits: the board far has not been run" in page.PAGE.read_text()
    far.keep("far")
    compared.settle(boards)
    told = json.loads(result.read_text())
    assert (told["claims"]["c"]["verdict"], told["waiting"], len(runs)) == ("found", {}, 1)
    assert "| c | `a` | `far/b` | gold | **+0." in page.PAGE.read_text()
    assert design.known()[0].keys() == {"gold"}


def _kept(board: str) -> Path:
    return facts.RESULTS / "claims" / "scores" / f"{board}.json"


def _told(folder: Path, row: str, statuses: list[str]) -> None:
    """``results.json`` of a row and of the base's best of eight, which is no run of training."""
    change = {"before": 0.0, "difference": 0.1, "low": 0.0, "high": 0.2, "spread": 1.0, "by_seed": {"0": 0.1}}
    runs = [{"seed": seed, "status": status} for seed, status in enumerate(statuses)]
    rows = [
        {
            "name": row,
            "samples": 1,
            "runs": runs,
            "changes": dict.fromkeys(compared.SHOWN, change),
            "passes": 9,
            "settings": {"lr": 1},
        },
        {"name": "best of 8 by vqa", "samples": 8, "runs": [{"seed": 0, "status": "done"}], "changes": {}, "passes": 0},
    ]
    (folder / "results.json").write_text(json.dumps({"rows": rows}))


def _measured(folder: Path, scores: list[float]) -> None:
    _results(scores, list(range(len(scores)))).save(folder)


def _results(scores: list[float], groups: list[int]) -> Results:
    prompts = [f"prompt {i}" for i in sorted(set(groups))]
    names = [f"{i:03d}-0.mp4" for i in range(len(groups))]
    return Results(name="r", prompts=prompts, groups=groups, files=names, metrics={"gold": scores})


def test_labels_of_two_noisy_orders() -> None:
    pair = Pair.model_construct(labels=[1, -1, 0] * 400, label=0)
    (found,) = sets.in_both_orders(0.25)([pair])
    both = list(zip(found.labels or [], pair.labels or [], strict=True))
    assert all(after == 0 for after, before in both if before == 0)
    known = [after * before for after, before in both if before]
    assert known.count(1) / len(known) == pytest.approx(0.75**2, abs=0.05)
    assert known.count(-1) / len(known) == pytest.approx(0.25**2, abs=0.03)


def test_a_row_of_the_matrix_says_what_it_was_trained_on() -> None:
    planned = design.read()
    for board in matrix.BOARDS:
        words = planned.boards[board].arguments
        field, _, values = words[words.index("--vary") + 1].partition("=")
        judges = [
            matrix.trained({"name": f"online {field}={value}", "method": "online", "changes": {}})["judge"]
            for value in values.split(",")
        ]
        assert judges == ["vqa", "technical", "mixture", "image"]


def test_memory_is_measured_of_the_videos_and_steps_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Batch] = []
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of a process of its own
    monkeypatch.setattr(Bench, "peak", lambda _, __, batch: seen.append(batch) or 0.0)
    memory._alone("online, 4 candidates", {"frames": 33, "steps": 2})
    assert [(batch.settings.frames, batch.settings.steps) for batch in seen] == [(33, 2)]


def test_a_board_s_sets_are_those_that_it_names() -> None:
    boards = Boards(work=Path(), design=design.read())
    names = {board: sets.named(boards.arguments(board)) for board in boards.design.boards}
    assert names["pairs"] == ["guided", "independent"]
    assert sorted(names["labels"]) == ["flip40", "half", "third", "vlm"]
    assert names["duets"] == ["duets-guided", "duets-independent"]
    assert names["online"] == []
    assert names["matrix-labels"] == ["guided", "guided-technical", "guided-mixture", "guided-image"]


def test_sets_are_made_once_and_after_what_they_are_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []

    def vpo(work: Path, *words: str) -> None:
        said.append(words)
        if words[0] == "clips":
            files.write(work / words[words.index("--output") + 1] / "metadata.jsonl", '{"text": "a"}\n' * 48)

    monkeypatch.setattr(sets, "vpo", vpo)
    sets.make(tmp_path, ["duets-guided", "duets-independent"], 48)
    assert [words[0] for words in said] == ["clips", "pair", "pair"]
    assert all(words[words.index("--model") + 1] == "duets" for words in said)
    assert said[0][-2:] == ("--count", "48")
    assert "duets-prompts.txt" in said[2]
    assert (tmp_path / "duets-prompts.txt").read_text() == "a\n"


def test_a_set_whose_labelling_was_killed_between_its_two_files_is_labelled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its facts say who labels it, and its pairs whose labels they still have."""
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(sets, "vpo", lambda work, *words: said.append(words))
    files.write(tmp_path / "guided" / "metadata.jsonl", "")
    pairs = [pair_row("a", labels=[1] * 4, label=1, labeller="reward:vqa")]
    store.write(tmp_path / "guided-technical", {"labels": {"labeller": "reward:technical"}}, pairs)
    sets._derived(tmp_path, "guided-technical")
    assert said == [("label", "guided-technical", "--with", "reward:technical")]
    store.write(tmp_path / "guided-technical", {}, [pairs[0].model_copy(update={"labeller": "reward:technical"})])
    sets._derived(tmp_path, "guided-technical")
    assert len(said) == 1


def test_a_brief_board_is_set_against_brief_ones_alone(boards: Boards) -> None:
    """What was measured at full size has other prompts."""
    shutil.rmtree(boards.folder("far"))
    with pytest.raises(WaitingError, match="far has not been run there"):
        replace(boards, brief=True).scores("far")


def test_a_board_of_another_model_needs_no_candidates(boards: Boards) -> None:
    """Those that are known are of one model: the luck of another's noises stays in its interval."""
    (facts.RESULTS / "claims" / "scores" / "candidates.json").unlink()
    other = {name: replace(one, model="duets") for name, one in boards.design.boards.items()}
    there = replace(boards, design=replace(boards.design, boards=other))
    assert compared.decided(there.design.claims["c"], there)["verdict"] == "found"


def test_clips_are_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process left is no set, and a set of another size is not taken for the one that is asked for."""

    def killed(work: Path, *words: str) -> None:
        files.write(work / words[words.index("--output") + 1] / "00000.mp4", "")
        raise subprocess.CalledProcessError(-9, words)

    monkeypatch.setattr(sets, "vpo", killed)
    with pytest.raises(subprocess.CalledProcessError):
        sets.make(tmp_path, ["clips"], 48)
    assert not (tmp_path / "clips").exists()
    files.write(tmp_path / "clips" / "metadata.jsonl", "{}\n" * 3)
    with pytest.raises(SystemExit, match="has 3 clips, not 48"):
        sets.make(tmp_path, ["guided"], 48)


def test_curves_have_the_steps_at_which_something_was_measured(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 0.5}, {"step": 10, "held": 0.2}, {"step": 20, "held": 0.3}]
    files.write(tmp_path / "runs/a-0/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert compared._curves(tmp_path, ["held"]) == {"held, a-0": [(10, 0.2), (20, 0.3)]}
