"""Which weights held-out data liked best, and a metric that nobody logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.offline_member import model as model
from tests.support.offline_run import make_set, run
from vpo_kit.config import EarlyStopping
from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel
from vpo_kit.training.stopping import Best


def weights(step: int) -> dict[str, torch.Tensor]:
    return {"lora": torch.tensor(float(step))}


@pytest.mark.parametrize("greater", [False, True])
def test_it_follows_its_metric_and_waits(greater: bool) -> None:
    best = Best(EarlyStopping(metric="value", patience=2, greater_is_better=greater))
    rows = list[dict[str, float]]()
    for step, value in enumerate([3.0, 1.0, 2.0, 4.0, 5.0], 1):
        rows.append({"step": step, "value": -value if greater else value})
        best.update(rows, weights(step))
        assert best.stop == (step >= 4)
    assert (best.step, float(best.policy["lora"])) == (2, 2)


def test_a_row_may_lack_what_an_earlier_one_had() -> None:
    """As an accuracy does that is a mean over labels, in a step without one."""
    best = Best(EarlyStopping(metric="value", patience=1))
    rows = [{"step": 1.0, "value": 2.0}, {"step": 2.0}]
    best.update(rows, weights(2))
    assert (best.stop, best.step) == (False, 0)
    best.update([*rows, {"step": 3.0, "value": 1.0}], weights(3))
    assert best.step == 3


def test_a_metric_that_no_row_has_is_refused() -> None:
    rows = [{"step": 1.0, "loss": 0.7}, {"step": 2.0, "loss": 0.7, "heldout_loss": 0.7, "heldout_accuracy": 0.5}]
    with pytest.raises(ConfigError) as caught:
        Best(EarlyStopping(metric="heldout_los", patience=1)).update(rows, {})
    assert str(caught.value) == (
        "early_stopping.metric: no row of the log has 'heldout_los' (did you mean 'heldout_loss'?)"
    )
    with pytest.raises(ConfigError, match=r"\(known: heldout_accuracy, heldout_loss, loss, step\)$"):
        Best(EarlyStopping(metric="fvd", patience=1)).update(rows, {})
    Best(EarlyStopping(metric="fvd", patience=0)).update(rows, {})  # off


def test_a_run_ends_at_the_first_validation_without_it(model: VideoModel, tmp_path: Path) -> None:
    pairs = make_set(tmp_path / "pairs")
    with pytest.raises(ConfigError, match="no row of the log has 'heldout_accuracy'"):
        run(model, pairs, tmp_path / "run", 9, "sft", early_stopping={"metric": "heldout_accuracy", "patience": 1})
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1  # of steps before the validation
