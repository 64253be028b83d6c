"""Each kind of part is added as one file and one line, with no edit to this package, and used by the command line."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from vpo_kit import links
from vpo_kit.cli import main
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.metrics import about, known, ordered
from vpo_kit.registry import CHOICES, LINKS, METHODS, METRICS, MODELS, REWARDS


@dataclass(frozen=True)
class Part:
    """A file, and the line of its package's entry points that names what is in it."""

    group: str
    line: str
    code: str

    @property
    def file(self) -> str:
        return f"{self.line.partition('= ')[2].partition(':')[0]}.py"


PARTS = {
    "link": Part("vpo_kit.links", "squared_hinge = vpo_squared_hinge:SQUARED_HINGE", """
from torch.nn.functional import relu
from vpo_kit.links import Link

SQUARED_HINGE = Link(lambda z, _: relu(2 - z).pow(2))
"""),
    "reward": Part("vpo_kit.rewards", "warmth = vpo_warmth:Warmth", """
from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec

class Warmth(Reward):
    spec = RewardSpec(
        name="warmth", licence="none", source="closed form", scale="-1 to 1", differentiable=True, per_segment=False,
        needs_prompt=False,
    )

    def forward(self, video, prompts=None, *, fps, segments=None):
        return RewardOutput((video[:, :, 0] - video[:, :, 2]).flatten(1).mean(1))
"""),
    "metric": Part("vpo_kit.metrics", "redness = vpo_redness:Redness", """
from vpo_kit.measures import Metric

class Redness:
    metrics = (
        Metric(name="redness", group="pictures", direction="neutral", unit="0 to 1", about="mean of the red channel"),
    )

    def __call__(self, video, prompts, fps):
        return {"redness": video[:, :, 0].flatten(1).mean(1).tolist()}
"""),
    "choice of pairs": Part("vpo_kit.choices", "neighbours = vpo_neighbours:neighbours", """
asked = []

def neighbours(scores, num_pairs):
    asked.append(tuple(scores.shape))
    order = scores.sort(dim=1, descending=True, stable=True).indices
    return order[:, :num_pairs], order[:, 1 : num_pairs + 1]
"""),
    "method with a choice of its own": Part("vpo_kit.methods", "ladder = vpo_ladder:Ladder", """
from pydantic import Field
from vpo_kit.methods.online import Online, OnlineConfig

class LadderConfig(OnlineConfig):
    pairs: str = Field("neighbours", description="each against the next")

class Ladder(Online):
    summary = "each candidate against the next one below it"
    Config = LadderConfig
"""),
    "model family": Part("vpo_kit.models", "WanVideoToVideoPipeline = vpo_restyle:Restyle", """
from vpo_kit.models.wan import WanModel

class Restyle(WanModel):
    times_source = "as Wan's"
"""),
}  # fmt: skip


def add(site: Path, part: Part) -> list[str]:
    """Write one file and one line as an installed package has them; what was touched."""
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    (site / part.file).write_text(part.code)
    listing = site / "additions-1.0.dist-info" / "entry_points.txt"
    with listing.open("a") as lines:
        lines.write(f"[{part.group}]\n{part.line}\n")
    return sorted(path.name for path in site.rglob("*") if path.is_file() and before.get(path) != path.read_bytes())


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, list[str]]]:
    """Files that were touched, by part; Python sees them as installed."""
    site = tmp_path_factory.mktemp("additions")
    (site / "additions-1.0.dist-info").mkdir()
    (site / "additions-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: additions\nVersion: 1.0\n")
    touched = {name: add(site, part) for name, part in PARTS.items()}
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(site))
        known.cache_clear()
        yield touched
    known.cache_clear()
    links.named.cache_clear()


@pytest.fixture(scope="module")
def model(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Wan model, as of another pipeline class."""
    folder = tmp_path_factory.mktemp("family") / "restyle"
    shutil.copytree(tiny_wan, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "WanVideoToVideoPipeline"}))
    return folder


@pytest.fixture(scope="module")
def run(added: Mapping[str, list[str]], model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is made of nothing but these parts."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = [
        "method.link=squared_hinge", "method.num_candidates=2", "method.num_draws=1", "evaluation.metrics=[redness]",
        "evaluation.judges=[]", "evaluation.num_prompts=1", "batch_size=1", "sampling.steps=1", "lora.rank=2",
    ]  # fmt: skip
    command = ["train", "--method", "ladder", "--reward", "warmth", "--model", str(model), "--steps", "1"]
    ok([*command, "--output", str(folder), *(part for setting in settings for part in ("--set", setting))])
    return folder


def ok(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (0, None)


@pytest.mark.parametrize("name", PARTS)
def test_one_file_and_one_line(added: Mapping[str, list[str]], name: str) -> None:
    print(f"{name}: {', '.join(added[name])}")
    assert added[name] == sorted(["entry_points.txt", PARTS[name].file])
    registry = {one.group: one for one in (LINKS, REWARDS, METRICS, CHOICES, METHODS, MODELS)}[PARTS[name].group]
    assert registry.load(PARTS[name].line.partition(" =")[0]) is not None


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        path.read_text().splitlines()[0] if path.suffix == ".jsonl" else path.read_text()
    )
    return found


def test_the_run_is_made_of_them(run: Path, model: Path) -> None:
    summary, row = read(run / "summary.json"), read(run / "metrics.jsonl")
    assert (summary["method"], summary["reward"], summary["model"]) == ("ladder", "warmth", str(model))
    assert row["loss"] == pytest.approx(4)  # the link's own value where policy and reference are the same
    assert row["gradient_factor"] == pytest.approx(4)
    assert -1 < row["reward_mean"] < 1
    assert importlib.import_module("vpo_neighbours").asked.count((1, 2)) >= 1
    assert 0 < summary["before"]["redness"] < 1
    assert summary["changes"]["redness"] | {"direction": "neutral", "unit": "0 to 1"} == summary["changes"]["redness"]
    assert "redness" in (run / "report.html").read_text()


def test_a_metric_is_listed_in_its_place(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert about("redness").group == "pictures"
    assert ordered(["text_accuracy", "redness", "motion", "warmth"]) == ["warmth", "motion", "redness", "text_accuracy"]
    ok(["metrics"])
    shown = capsys.readouterr().out
    assert "redness  metric of the package additions 1.0" in shown
    assert "warp_error" in shown


def test_what_is_no_metric_is_refused(added: Mapping[str, list[str]]) -> None:
    from vpo_kit.evaluation import measuring

    with pytest.raises(ConfigError, match="metric 'vpo_neighbours:neighbours' must be a class with `metrics`"):
        measuring.load(["vpo_neighbours:neighbours"])
    with pytest.raises(ConfigError, match=r"unknown metric 'rednes'.*did you mean 'redness'"):
        measuring.load(["rednes"])
    video = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = measuring.measure(video, ["", ""], [], 8, measuring.load(["redness"]))
    assert list(found) == ["motion", "redness"]
    assert found["redness"] == pytest.approx(video[:, :, 0].flatten(1).mean(1).tolist())
