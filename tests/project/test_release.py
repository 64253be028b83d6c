"""What is released: everything the package reads is in the wheel, and the wheel runs where the repository is not."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.places import ROOT
from vpo_kit import __version__

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DATA = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "vpo_kit").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)
READ = [
    "catalogue.json", "defaults.yaml", "sprites/pipeline/model_index.json", "sprites/pipeline/vpo.json",
    "sprites/pipeline/recipe.yaml", "sprites/pipeline/prompts/train.txt", "rewards/vqa.safetensors",
    "rewards/gold.json", "rewards/natural.safetensors", "evaluation/report.html.j2", "evaluation/players.js",
    "pages/base.css", "pages/rows.js", "judged/disagreement.js",
    "comparison/page.html.j2", "pairing/page.html.j2", "labelling/people/page.html",
]  # fmt: skip
"""One of each kind of file that the code reads."""


def test_the_build_leaves_nothing_of_the_package_out() -> None:
    """The whole folder is the wheel's, and the builder leaves out only what version control ignores."""
    assert {f"vpo_kit/{name}" for name in READ} <= set(DATA)
    targets = PYPROJECT["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"] == {"packages": ["vpo_kit"]}
    assert {"vpo_kit", "README.md", "LICENSE", "CHANGELOG.md"} <= set(targets["sdist"]["include"])
    assert set(targets["sdist"]) == {"include"}
    ignored = [line.strip() for line in (ROOT / ".gitignore").read_text().splitlines() if line.strip()]
    for pattern in ignored:
        # with a slash before its end it is of the root, else of every folder
        of_root = "/" in pattern.rstrip("/")
        for name in DATA:
            parts = name.split("/")
            places = ["/".join(parts[: i + 1]) for i in range(len(parts))] if of_root else parts
            assert not any(fnmatch.fnmatch(place, pattern.strip("/")) for place in places), (
                f"{pattern!r} ignores {name}"
            )


def test_the_version_and_the_change_log_belong_together() -> None:
    assert PYPROJECT["project"]["version"] == __version__
    log = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## {re.escape(__version__)}\b", log, re.MULTILINE)


def test_the_workflow_runs_what_make_check_runs() -> None:
    text = (ROOT / ".github/workflows/check.yml").read_text()
    found = yaml.safe_load(text)
    steps = found["jobs"]["check"]["steps"]
    assert "make check" in [step.get("run") for step in steps]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    assert "secrets" not in text
    assert found["permissions"] == {"contents": "read"}
    oldest = found["jobs"]["check"]["strategy"]["matrix"]["python"][0]
    assert PYPROJECT["project"]["requires-python"] == f">={oldest}"
    assert re.search(r"^check:.*\btest\b", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed (group dev)")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_wheel_and_source_hold_the_same_package(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("vpo_kit/")}
    assert names == set(DATA)
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert set(DATA) | {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} <= inside


@pytest.mark.slow
def test_the_wheel_runs_by_itself(built: Path, tmp_path: Path) -> None:
    """Installed into a folder of its own, from a folder in which there is nothing else."""
    uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
    if uv is None:
        pytest.skip("uv is not installed (group dev)")
    (wheel,) = built.glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [uv, "pip", "install", "--offline", "--no-deps", "--python", sys.executable, "--target", site, wheel]
    subprocess.run(list(map(str, install)), check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}

    def vpo(*arguments: str) -> str:
        command = [sys.executable, str(site / "bin" / "vpo"), *arguments]
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [sys.executable, "-c", "import vpo_kit; print(vpo_kit.__file__)"]
    place = subprocess.run(where, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(place.strip()).is_relative_to(site)
    assert __version__ in vpo("--version")
    assert "online" in vpo("methods")
    assert "model: sprites" in vpo("train", "--dry-run")
    small = ["evaluation.num_prompts=2", "evaluation.best_of=0", "batch_size=2", "method.num_candidates=2"]
    sets = [part for text in small for part in ("--set", text)]
    vpo("train", "--steps", "1", "--output", "run", *sets)
    assert json.loads((elsewhere / "run" / "summary.json").read_text())["steps"] == 1
    assert (elsewhere / "run" / "lora" / "pytorch_lora_weights.safetensors").is_file()
