"""Labels of several sources in one set: whose they are is said, and one of them can be chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.offline_run import make_set
from vpo_kit.cli import main
from vpo_kit.errors import DataError
from vpo_kit.labelling.people.by_people import describe, unanswered
from vpo_kit.labelling.people.finish import Finished
from vpo_kit.pairing import store
from vpo_kit.pairing.imported import relabelled
from vpo_kit.pairing.origins import by_labeller, of_labeller
from vpo_kit.pairing.store import PairSet
from vpo_kit.training.paired import Pairs


@pytest.fixture
def mixed(tmp_path: Path) -> PairSet:
    """Of eight pairs two are people's, and one has no label."""
    found = store.read(make_set(tmp_path / "pairs", model="sprites"))
    pairs = [
        pair.model_copy(update={"labeller": "people"}) if i < 2
        else pair.model_copy(update={"labeller": None, "label": None, "labels": None, "scores": None}) if i == 2
        else pair.model_copy(update={"labeller": "vqa"})
        for i, pair in enumerate(found.pairs)
    ]  # fmt: skip
    store.write(found.path, found.facts, pairs)
    return store.read(found.path)


def test_all_are_counted(mixed: PairSet) -> None:
    assert by_labeller(mixed.pairs) == "5 by vqa, 2 by people"
    assert by_labeller([mixed.pairs[2]]) == ""
    assert of_labeller(mixed, None) is mixed


def test_tables_and_cards_count_them(mixed: PairSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["pair", "inspect", mixed.path],
        ["pair", "export", mixed.path, "--format", "hub", "--output", tmp_path / "hub"],
    ):
        with pytest.raises(SystemExit):
            main([str(argument) for argument in arguments])
    assert "5 by vqa, 2 by people" in capsys.readouterr().out
    assert "- labels: 5 by vqa, 2 by people" in (tmp_path / "hub/README.md").read_text()


def test_what_a_finish_leaves_is_said_as_it_is(mixed: PairSet) -> None:
    """The page's dialog, before the labels are written, and the line afterwards."""
    some = "Pairs that are not answered in all segments"
    assert unanswered(mixed, drop=False) == f"{some} keep the labels that they have (by people, vqa)."
    assert unanswered(mixed, drop=True) == f"{some} have no labels then."
    assert unanswered(replace(mixed, pairs=[mixed.pairs[2]]), drop=False) == f"{some} have no labels then."
    done = Finished(pairs=85, labelled=2, partly=0, annotators=1, stale=0, others="83 by vqa")
    assert describe(mixed.path, done).endswith(
        "keep the labels they had (83 by vqa): --set data.labeller=people trains on people's alone"
    )
    for drop, others in ((True, ""), (False, "")):
        assert describe(mixed.path, replace(done, others=others), drop=drop).endswith("in part, have no labels")


def test_one_is_chosen(mixed: PairSet) -> None:
    assert [pair.id for pair in of_labeller(mixed, "people").pairs] == ["p0", "p1"]


def test_one_that_is_not_there(mixed: PairSet) -> None:
    with pytest.raises(DataError, match=r"nothing labelled by 'gold' .*its labels are 5 by vqa, 2 by people"):
        of_labeller(mixed, "gold")
    with pytest.raises(DataError, match="it has no labels"):
        of_labeller(replace(mixed, pairs=[mixed.pairs[2]]), "gold")


def test_a_verdict_in_a_dimension_holds_for_every_segment(mixed: PairSet) -> None:
    """People may be asked of whole clips in a set of one's own, whose pairs have several segments."""
    judged = [pair.model_copy(update={"judged": {"motion": -1 if i else None}}) for i, pair in enumerate(mixed.pairs)]
    found = relabelled(replace(mixed, pairs=judged), "motion")
    assert [pair.labels for pair in found.pairs] == [None, *[[-1, -1, -1]] * 7]
    labels = Pairs(found.path, found.pairs, [(0, 1), (1, 5), (5, 9)]).tensors([0, 1])["labels"]
    assert labels.tolist() == [[0, 0, 0], [-1, -1, -1]]


def test_train_asks_before_a_model_is_loaded(
    mixed: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vpo_kit.models.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(SystemExit) as end:
        main(["train", "--method", "dense", "--pairs", str(mixed.path), "--set", "data.labeller=peple",
              "--output", str(tmp_path / "run")])  # fmt: skip
    assert end.value.code == 1
    assert "did you mean 'people'?" in capsys.readouterr().err
