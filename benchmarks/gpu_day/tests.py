"""The project's own tests that need a card."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu_day.crew import ROOT
from benchmarks.gpu_day.protocol import Options

TOGETHER = 6
NAME = "pytest -m gpu"


def cases(options: Options) -> dict[str, float]:
    return {NAME: 150.0}


def run(case: str, options: Options) -> dict[str, Any]:
    """Each test's outcome; in a rehearsal no more than that they can be collected."""
    report = options.scratch / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider", "-q"]
    how = ["--collect-only"] if options.rehearse else ["-n", str(TOGETHER), f"--junitxml={report}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "" if options.rehearse else "0"}
    done = subprocess.run(
        [*command, *how, *files()], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    print(done.stdout[-20000:], done.stderr[-5000:])
    failed = {"error": _last(done.stdout)} if done.returncode else {}
    if options.rehearse:
        return {"collected": done.stdout.count("::"), **failed}
    found = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []
    outcomes = {f"{one.get('classname')}::{one.get('name')}": _outcome(one) for one in found}
    counts = Counter(one.partition(":")[0] for one in outcomes.values())
    return {**counts, "tests": outcomes, **failed}


def files() -> list[str]:
    """The test files that have such tests: others may need packages that are not there."""
    every = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in every if "pytest.mark.gpu" in file.read_text(encoding="utf-8")]


def _outcome(case: ElementTree.Element) -> str:
    for kind, word in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            return f"{word}: {found.get('message', '')[:300]}"
    return "passed"


def _last(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
