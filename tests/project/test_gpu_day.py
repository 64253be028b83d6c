"""The day on a card, rehearsed on a processor, and what must hold when something goes wrong in it."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_day import estimates, page, parity, wheels, worker
from benchmarks.gpu_day import tests as gpu_tests
from benchmarks.gpu_day.__main__ import main, run
from benchmarks.gpu_day.cases import CASES, ONE_LAYER, TEXT
from benchmarks.gpu_day.crew import Part
from benchmarks.gpu_day.outcome import Outcome
from benchmarks.gpu_day.protocol import Options
from benchmarks.gpu_day.stages import stages, wanted
from tests.support.places import ROOT
from vpo_kit.models import memory
from vpo_kit.testing.families import FAMILIES

TROUBLE = """
import os, time

def cases(options):
    return {"first": 30, "crash": 30, "hang": 1, "wrong": 30, "last": 30}

made = []

def spent():
    return made == ["first"]

def run(case, options):
    made.append(case)
    if case == "crash":
        os._exit(7)
    if case == "hang":
        time.sleep(60)
    if case == "wrong":
        raise ValueError("not what was expected\\nand more")
    return {"case": case, "before": made[:-1]}
"""


def rows(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())["rows"]
    return found


def worked(module: str, options: Options, cases: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a worker says of `cases`, in this process, which has imported everything already."""
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{case}\n" for case in cases)))
    worker.main(module, options.dump(), write)
    os.close(write)
    with os.fdopen(read) as lines:
        said = [json.loads(line) for line in lines]
    assert set(cases) <= set(said[0]["cases"])
    return {one["case"]: one["row"] for one in said[1:]}


def test_one_family_and_one_real_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal of `make test`: the machine, one family's parity, one real architecture with one layer."""
    options = Options(True, tmp_path)
    found = worked("environment", options, ["machine", "rates"], monkeypatch)
    assert found["machine"]["versions"]["torch"] == version("torch")
    assert found["rates"]["bfloat16"] > 0
    (parity,) = worked("parity", options, ["wan2.1"], monkeypatch).values()
    assert "error" not in parity
    assert parity["differences"]["pipeline"] < 1e-4 < parity["differences"]["bfloat16"]
    name = "Wan 2.1 1.3B / dense / checkpointing, micro-batch 1"
    (step,) = worked("steps", options, [name], monkeypatch).values()
    assert step["seconds"] > 0
    assert step["finite"]


@pytest.mark.slow
def test_the_whole_rehearsal(tmp_path: Path) -> None:
    """Every part in processes of its own, published weights too; an output of it is no result."""
    torch.manual_seed(0)
    FAMILIES["wan2.1"].build().save_pretrained(tmp_path / "weights", safe_serialization=True)
    (tmp_path / "jobs.txt").write_text("echo '{\"steps\": 1}' > {job}/summary.json\n")
    given = ["--model", tmp_path / "weights", "--jobs", tmp_path / "jobs.txt", "--output", tmp_path / "day"]
    assert main(["--rehearse", "--minutes", "30", *map(str, given)]) == 0
    assert len(list((tmp_path / "day").iterdir())) == 8
    assert rows(tmp_path / "day", "parity").keys() == set(parity.REHEARSED)
    assert rows(tmp_path / "day", "steps").keys() == {case.name for case in CASES if not case.extra}
    (job,) = rows(tmp_path / "day", "jobs").values()
    assert job["summaries"] == {"summary.json": {"steps": 1}}
    assert page.collect_into(tmp_path / "day", "none", "0123456") == 2


@pytest.fixture(autouse=True)
def same_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rehearsal in this process takes a quicker compiler; the tests after this one get theirs back."""
    monkeypatch.setattr(memory, "BACKEND", memory.BACKEND)


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A part whose cases crash, hang and fail, where the workers find it."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "trouble.py").write_text(TROUBLE)
    shim = f"import benchmarks.gpu_day as day\nday.__path__.append({str(folder)!r})\n"
    (folder / "sitecustomize.py").write_text(shim)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    return "trouble"


def test_a_case_that_goes_wrong_costs_no_other(trouble: str, tmp_path: Path) -> None:
    outcome = Outcome(tmp_path / "out", 1.0)
    code = run([[Part(trouble, "trouble", 60)]], Options(True, tmp_path), outcome)
    found = rows(tmp_path / "out", "trouble")
    assert code == 1
    assert list(found) == ["first", "crash", "hang", "wrong", "last"]
    assert found["crash"]["error"] == "the process ended with code 7"
    assert found["hang"]["error"] == "stopped: it took too long"
    assert found["wrong"]["error"] == "ValueError: not what was expected"
    assert (found["last"]["case"], found["last"]["before"]) == (
        "last",
        ["wrong"],
    )  # that failed, and its process went on
    assert len(outcome.failed) == 3


def test_the_day_ends_when_it_must(trouble: str, tmp_path: Path) -> None:
    """Five seconds before the end everything is stopped, and what was not finished is said."""
    started = time.monotonic()
    outcome = Outcome(tmp_path / "out", 7 / 60)
    part = Part(trouble, "trouble", 60)
    assert run([[part], [part]], Options(True, tmp_path), outcome) == 1
    assert time.monotonic() - started < 30  # of a part that would take sixty
    assert any("not reached" in text or "the day is over" in text for text in outcome.failed)


def test_the_list_of_wheels_is_the_lock_less_what_the_card_brings() -> None:
    # some stand there twice, for an older Python and a newer one
    lock = set(re.findall(r"^([a-z0-9-]+)==([^ ]+) ", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    listed = wheels.listed()
    assert set(listed.items()) <= lock
    assert {"diffusers", "peft", "open-clip-torch", "imageio-ffmpeg", "pytest"} <= set(listed)
    assert not {"torch", "torchvision", "vpo-kit"} & set(listed)
    assert wheels.missing() == []


def test_a_wheel_that_was_not_brought_is_named_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wheels.txt").write_text("# said\nnowhere-to-be-found==1.0\npeft==0.1\n")
    monkeypatch.setattr(wheels, "LIST", tmp_path / "wheels.txt")
    assert main(["--rehearse", "--output", str(tmp_path / "day")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("not installed: nowhere-to-be-found==1.0; pip install --no-index"), (
        "of peft any version does"
    )
    assert not (tmp_path / "day").exists()


def test_timings_have_the_card_alone() -> None:
    """Beside the real architectures' steps runs only what is kept from the card."""
    plan = stages(480, xformers="somewhere", together=4, rehearse=False)
    (beside,) = [stage for stage in plan if stage[0].module == "steps"]
    assert [part.environment.get("GPU_DAY_WHERE") for part in beside[1:]] == ["processor"]
    names = [part.file for stage in plan for part in stage]
    assert set(names) <= set(page.FILES)
    assert len(set(names)) + 1 <= 8  # and the log
    (alone,) = wanted(plan, ["parity"], {})
    assert [part.module for part in alone] == ["parity"]
    assert all(part.module != "jobs" for stage in wanted(plan, [], {"jobs": False}) for part in stage)


def test_the_tests_that_need_a_card_are_found() -> None:
    """Wherever they lie: with no file named, pytest would look through all of them."""
    found = {Path(file).name for file in gpu_tests.files()}
    assert "test_on_gpu.py" in found
    assert "test_group_offload.py" in found
    assert "test_vqa.py" not in found


def test_every_case_has_an_estimate_of_its_own_settings() -> None:
    known = estimates.known()
    assert list(known) == [case.name for case in CASES]
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.model in TEXT and case.model in ONE_LAYER for case in CASES)


def test_measured_beside_estimated() -> None:
    estimate = {"peak": 20e9, "flops": 3e15, "shown": {"peak": 20.0, "PFLOP": 3.0}}
    row = {"seconds": 7.5, "allocated": 22e9, "reserved": 24e9}
    shown = page.beside(row, estimate, 8e14)["shown"]
    assert shown == {
        "seconds": 7.5, "peak": 22.0, "reserved": 24.0, "estimate": 20.0, "share": 0.5, "ratio": 1.1, "within": True,
    }  # fmt: skip
    assert not page.beside({**row, "allocated": 24e9}, estimate, 8e14)["shown"]["within"]
    assert page.beside({"left out": "out of memory: much"}, estimate, 8e14)["shown"] == {"estimate": 20.0}


def test_a_result_and_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the files of a day with a card, whatever of it is missing; and before one, that nothing was measured."""
    monkeypatch.setattr(page.facts, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", tmp_path / "gpu.md")
    monkeypatch.setattr(
        estimates, "known", lambda: {"model / dense / all": {"peak": 2e10, "flops": 3e15, "shown": {"peak": 20.0}}}
    )
    (tmp_path / "results" / "gpu").mkdir(parents=True)
    page.PAGE.write_text(f"before\n{page.BEGIN}\n{page.END}\nafter\n")
    page.fill()
    assert "| model / dense / all | not measured | | | 20.0 | |" in page.PAGE.read_text()
    day = tmp_path / "day"
    outcome = Outcome(day, 1.0)
    machine = {"card": "A card", "date": "2026-01-02", "versions": {"torch": "9.9"}, "driver": "1.2.3"}
    outcome.row("environment", "machine", machine)
    outcome.row("environment", "rates", {"bfloat16": 8e14})
    outcome.row("parity", "wan", {"differences": {}})
    outcome.row("parity", "ltx", {"error": "too far apart"})
    outcome.row("steps", "model / dense / all", {"seconds": 7.5, "allocated": 22 * 10**9, "reserved": 24 * 10**9})
    assert page.collect_into(day, "card", "") == 2  # of which commit?
    assert page.collect_into(day, "card", "0123456") == 0
    found = json.loads((tmp_path / "results" / "gpu" / "card.json").read_text())
    assert (found["commit"], found["date"], found["versions"]) == ("0123456", "2026-01-02", {"torch": "9.9"})
    text = page.PAGE.read_text()
    assert "| model / dense / all | 7.5 | 0.5 | 22.0 | 20.0 | 1.1 |" in text
    assert "1 of 2 tiny families; not: ltx" in text
    assert "not measured" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
