"""The example plugin, installed as a user installs it: it is listed and trains, with no edit to this package."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from tests.support.places import ROOT
from vpo_kit.errors import ConfigError
from vpo_kit.registry import REWARDS

EXAMPLE = ROOT / "examples" / "reward_plugin"
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]


def installers() -> list[list[str]]:
    """Ways to install into a folder, with this environment's build backend and without network."""
    backend = importlib.util.find_spec("setuptools") is not None
    found = []
    if backend and importlib.util.find_spec("pip") is not None:
        found.append([sys.executable, "-m", "pip", "install", *OFFLINE])
    beside = Path(sys.executable).with_name("uv")
    if backend and (uv := shutil.which("uv") or (str(beside) if beside.is_file() else None)):
        found.append([uv, "pip", "install", "--offline", "--python", sys.executable, *OFFLINE])
    if backend and (pip := shutil.which("pip")):  # of another environment
        found.append([pip, "--python", sys.executable, "install", *OFFLINE])
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Variables under which Python sees the plugin as installed."""
    ways = installers()
    if not ways:
        pytest.skip("neither uv nor pip is there, or no setuptools to build with: nothing can install a package")
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")  # building leaves files behind
    said = []
    for way in ways:
        command = [*way, "--target", str(folder / "site"), str(folder / "source")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode == 0:
            break
        said.append(f"{way[0]}: {done.stderr}")
    else:
        pytest.fail("\n".join(said))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)]), "COLUMNS": "200"}


SEVERAL = """
import json, sys
from vpo_kit.cli import main
for arguments in json.loads(sys.argv[1]):
    try: main(arguments)
    except SystemExit as end: print("exit code", end.code, flush=True)
"""


def test_it_is_listed_and_trains(environment: Mapping[str, str], tiny_wan: Path, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", ["evaluation.num_prompts=0", "batch_size=1", "method.num_candidates=2"]
    settings += ["sampling.steps=2", "reward.target=0.3"]
    train = ["train", "--method", "online", "--reward", "colourfulness", "--steps", "1"]
    train += ["--model", str(tiny_wan), "--output", str(run)]
    train += [part for setting in settings for part in ("--set", setting)]
    wrong = [*train, "--set", "reward.targt=1"]
    commands = json.dumps([["rewards"], wrong, train])
    code = [sys.executable, "-c", SEVERAL, commands]  # one process: most of its time is imports
    done = subprocess.run(code, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert "colourfulness" in done.stdout.partition("exit code 0")[0], done.stderr
    assert "unknown setting reward.targt (did you mean 'target'?)" in done.stderr
    assert done.stdout.count("exit code 0") == 2, done.stderr
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert -0.5 < row["reward_mean"] < 0
    assert (run / "lora" / "pytorch_lora_weights.safetensors").is_file()


def test_it_is_not_there_without_being_installed() -> None:
    if "colourfulness" in {point.name for point in entry_points(group="vpo_kit.rewards")}:
        pytest.skip("the example is installed in this environment")
    with pytest.raises(ConfigError, match="unknown reward 'colourfulness'"):
        REWARDS.check("colourfulness")


def test_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    module = importlib.import_module("vpo_colourfulness")
    grey = torch.rand(1, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 3, -1, -1)
    found = module.Colourfulness()(grey, fps=8, segments=[(0, 1)])
    torch.testing.assert_close(found.score, torch.tensor([-0.4]), atol=1e-3, rtol=0)
    red = torch.zeros(1, 2, 3, 8, 8)
    red[:, :, 0, :, :4] = 1  # half of it red: var(rg) = 1/4, var(yb) = 1/16, means 1/2 and 1/4
    reward = module.Colourfulness(module.Config(target=0))
    unbiased = 64 / 63
    expected = (unbiased * (1 / 4 + 1 / 16)) ** 0.5 + 0.3 * (1 / 4 + 1 / 16) ** 0.5
    torch.testing.assert_close(reward(red, fps=8).score, torch.tensor([-expected]), atol=1e-5, rtol=0)


def test_the_entry_point_names_the_class() -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    (target,) = project["entry-points"]["vpo_kit.rewards"].values()
    module, _, name = target.partition(":")
    assert f"class {name}(" in (EXAMPLE / f"{module}.py").read_text()
