"""Runs of every method that break off inside a step and go on: nothing of their own state is lost or done twice."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support import known
from tests.support.brief_runs import PROMPTS, nothing, run_once
from tests.support.brief_runs import model as model
from tests.support.offline_run import make_set
from vpo_kit.errors import HealthError
from vpo_kit.methods.base import Batch, StepOutput
from vpo_kit.models.base import VideoModel
from vpo_kit.pairing import store
from vpo_kit.registry import METHODS
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.runs import train_briefly
from vpo_kit.training import checkpoints
from vpo_kit.training.paired import Pairs

STEPS = 6
BREAKS = {"nft": 4}
"""The steps, counted from 0, before which references move: of `nft` with a rollout, of the others before step 3."""
FRESH = {"num_candidates": 2, "updates_per_rollout": 2}
STATES: dict[str, dict[str, Any]] = {
    "online": {**FRESH, "num_draws": 1, "reference_update": "ema", "reference_decay": 0.5},
    "nft": {**FRESH, "old_growth": 0.5},
    "grpo": {**FRESH, "kl": 0.1, "reference_update": "ema", "reference_decay": 0.5, "clip": 0.1},
    "rwr": FRESH,
    "dense": {"fixed_draws": 3, "num_draws": 2, "beta": 20.0},
    "structural": {"reference_update": "ema", "reference_decay": 0.5, "beta": 20.0},
    "dpo": {"reference_update": "hard", "reference_every": 3, "beta": 20.0},
    "kto": {"reference_update": "ema", "reference_decay": 0.5, "beta": 20.0},
    "mapo": {},
    "sft": {},
    "instruct": {"anchor": 0.1},
    "draft": {},
    "alignprop": {"grad_steps": 2},
    "vader": {},
}
"""What makes each method keep something from step to step: a rollout, a reference that moves, errors that are kept."""

VALIDATED = {"dense", "structural", "dpo", "sft"}
"""Methods whose best weights on held-out items are kept too."""
KEEP = {"online", "nft", "grpo", "rwr", "dense", "structural", "dpo", "kto"}


def broken(kind: Any, at: int) -> Any:
    """The method, whose loss is once no number: when its step has done all that it does, before a weight moves."""

    class Broken(kind):  # type: ignore[misc]
        def step(self, batch: Batch) -> StepOutput:
            output: StepOutput = super().step(batch)
            if batch.step != at:
                return output
            parts = None if output.parts is None else (math.nan * part for part in output.parts)
            return replace(output, loss=None if output.loss is None else math.nan * output.loss, parts=parts)

    return Broken


class Runs:
    """Runs of one method on the model, each in a folder of its own."""

    def __init__(self, model: VideoModel, pairs: Path, root: Path, name: str) -> None:
        self._model, self._root, self._name = model, root, name
        found = store.read(pairs)
        fresh = METHODS.load(name).needs.data[0] == "prompts"
        self._data: Any = PROMPTS if fresh else Pairs(pairs, found.pairs, model.frame_map(9))

    def go(self, folder: str, kind: Any = None, **changes: Any) -> list[dict[str, float]]:
        values: dict[str, Any] = {
            "steps": STEPS, "batch_size": 2, "lora": {"rank": 4, "alpha": 8}, "seed": 1,
            "optimiser": {"lr": 5e-3, "ema": 0.9}, "checkpoints": {"every": 2, "keep": 9},
            "validation": {"every": 2, "share": 0.25 * (self._name in VALIDATED)},
            "early_stopping": {"metric": "heldout_loss", "patience": 9},
            "health": {"disable": ["margin_runaway", "winner_error", "motion_collapse", "no_learning"]},
        }  # fmt: skip
        method = {"name": self._name, **STATES[self._name]}
        reward = None if METHODS.load(self._name).needs.reward == "none" else Brightness()
        place = self._root / folder
        return train_briefly(self._model, self._data, place, reward, kind=kind, method=method, **{**values, **changes})

    def state(self, folder: str, step: int = STEPS) -> dict[str, torch.Tensor]:
        """All tensors of a checkpoint, by file and name."""
        place = self._root / folder / f"checkpoints/step-{step:06d}"
        return {f"{file.stem}/{k}": v for file in place.glob("*.safetensors") for k, v in load_file(file).items()}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "pairs")


def test_every_method_is_here() -> None:
    assert set(STATES) == {name for name, target in METHODS.targets().items() if target.startswith("vpo_kit.")}


@pytest.mark.parametrize("name", STATES)
def test_a_run_that_breaks_off_inside_a_step_ends_as_if_it_had_not(
    model: VideoModel, pairs: Path, tmp_path: Path, name: str
) -> None:
    """Before step 3 there is also a rollout that goes on."""
    at = BREAKS.get(name, 3)
    runs = Runs(model, pairs, tmp_path, name)
    whole = runs.go("whole")
    known.check(f"runs/{name}", {str(row["step"]): told(row) for row in whole})
    said: list[str] = []
    with pytest.raises(HealthError):
        runs.go("parts", broken(METHODS.load(name), at), on_notice=said.append)
    assert f"step {at + 1} failed: the state after step {at} is saved, go on with --resume" in said
    kept = runs.state("parts", at)
    parts = runs.go("parts")
    # errors of the reference that the broken step has taken are kept, and need no pass again
    saved = whole[at].pop("passes") - parts[at].pop("passes")
    assert (saved > 0) == (name == "dense")
    assert parts == whole
    one, other = runs.state("whole"), runs.state("parts")
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    moved = [float((one[key] - kept[key]).abs().max()) for key in one if key.startswith(("lora/", "average/"))]
    assert max(moved) > 0
    assert any(key.startswith("method/") for key in kept) == (name in KEEP), "of the method's own state"
    assert any(key.startswith("best/") for key in one) == (name in VALIDATED)


def told(row: dict[str, float]) -> dict[str, float]:
    """A line of a log without what hangs on the machine."""
    return {key: value for key, value in row.items() if key not in {"step", "seconds", "memory_gb"}}


@pytest.fixture
def steps(model: VideoModel, tmp_path: Path) -> Path:
    """A run of three steps with a checkpoint of each, of which two are kept."""
    limits = {"checkpoints": {"every": 1, "keep": 2}}
    run_once(model, tmp_path / "run", 3, limits=limits)
    return tmp_path / "run"


def test_the_newest_checkpoints_are_kept(steps: Path) -> None:
    assert sorted(path.name for path in (steps / "checkpoints").iterdir()) == ["step-000002", "step-000003"]
    found = checkpoints.latest(steps / "checkpoints")
    assert found is not None
    assert (found[0].step, found[1]) == (3, [])


def test_lines_of_the_log_that_no_checkpoint_knows_are_made_again(model: VideoModel, steps: Path) -> None:
    log = steps / "metrics.jsonl"
    lines = log.read_text().splitlines()
    later = [json.dumps({**json.loads(lines[-1]), "step": step, "loss": 99.0}) for step in (4, 5)]
    log.write_text("\n".join([*lines, *later]) + "\n")
    history = run_once(model, steps, 4, limits={"checkpoints": {"every": 1, "keep": 2}})
    assert log.read_text().splitlines()[:3] == lines
    assert [row["step"] for row in history] == [1, 2, 3, 4]
    assert json.loads(log.read_text().splitlines()[3]) == history[3]
    assert history[3]["loss"] != 99


def test_a_run_goes_on_with_the_seconds_that_it_has_spent(model: VideoModel, tmp_path: Path) -> None:
    folder, limits = tmp_path / "run", {"max_seconds": 1000.0}
    run_once(model, folder, 2, limits=limits)
    state = folder / "checkpoints/step-000002/state.json"
    known = json.loads(state.read_text())
    assert 0 < known["seconds"] < 1000
    shares: list[float] = []

    def watch(_: object, share: float) -> None:
        shares.append(share)

    state.write_text(json.dumps({**known, "seconds": 900.0}))
    run_once(model, folder, 4, every=100, limits=limits, watch=(watch, nothing))
    assert 0.9 < shares[0] < 1
    state.write_text(json.dumps({**known, "seconds": 1000.0}))
    shutil.rmtree(folder / "checkpoints/step-000004")
    assert len(run_once(model, folder, 9, limits=limits)) == 2


def test_the_optimiser_sees_the_gradient_no_longer_than_the_limit(model: VideoModel, tmp_path: Path) -> None:
    """Its first average is what is left of one step's gradient; what is logged is how long that was before."""
    for limit in (1e-5, 1e5):
        optimiser = {"lr": 1e-3, "max_grad_norm": limit, "betas": [0.75, 0.9]}
        (row,) = run_once(model, tmp_path / f"{limit:g}", 1, limits={"optimiser": optimiser})
        found = checkpoints.latest(tmp_path / f"{limit:g}/checkpoints")
        assert found is not None
        averages = [state["exp_avg"].flatten() for state in found[0].optimiser["state"].values()]
        assert 1e-5 < row["grad_norm"] < 1e5
        assert float(torch.cat(averages).norm()) == pytest.approx(0.25 * min(limit, row["grad_norm"]), rel=1e-3)


def test_each_step_has_the_rate_of_its_place_in_the_run(model: VideoModel, tmp_path: Path) -> None:
    """A warm-up of three steps begins at a quarter of the rate."""
    limits = {"optimiser": {"lr": 1e-3, "warmup_steps": 3}}
    for step, rate in ((1, 0.25e-3), (2, 0.5e-3), (5, 1e-3)):
        run_once(model, tmp_path / "run", step, limits=limits)
        found = checkpoints.latest(tmp_path / "run/checkpoints")
        assert found is not None
        assert [group["lr"] for group in found[0].optimiser["param_groups"]] == pytest.approx([rate])
