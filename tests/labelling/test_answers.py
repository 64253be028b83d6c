"""One store of all answers: what older versions kept is in it whole, and no kill or second process harms it."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from torch import Tensor

from tests.support.places import DATA
from vpo_kit.errors import DataError, OutputError
from vpo_kit.labelling import older
from vpo_kit.labelling.answers import FILE, FOLDER, PEOPLE, SCORES, VLM, Store, labelling
from vpo_kit.labelling.by_scores import label
from vpo_kit.labelling.keys import score_key
from vpo_kit.labelling.older import opened
from vpo_kit.labelling.people.answers import PeopleAnswers
from vpo_kit.labelling.people.questions import Survey
from vpo_kit.labelling.vlm.answers import ModelAnswers
from vpo_kit.pairing import store as sets
from vpo_kit.pairing.records import Pair, Scores
from vpo_kit.pairing.settings import Labelling
from vpo_kit.processes import Processes

OLD = DATA / "v0.2.0" / "answers"
"""Written by version 0.2's own writers: 5 answers of two people and an undo, 2 of a model and a line that a kill cut
short, and 2 of 3 pairs scored when a labelling was stopped."""
OLD_FILES = [".people/answers.sqlite", ".people/token", ".cache/vlm.jsonl", ".labels/settings.json"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "set"))


class Mean:
    """The scorer that was stopped, which counts what it scores now."""

    name = "reward:mean"

    def __init__(self) -> None:
        self.scored: list[str] = []

    def __call__(self, first: Tensor, second: Tensor, pair: Pair) -> Scores:
        self.scored.append(pair.id)
        one, other = float(first.mean()), float(second.mean())
        return Scores(first=[one] * 2, second=[other] * 2, first_clip=one, second_clip=other)


def score(folder: Path, scorer: Mean) -> bytes:
    settings = Labelling(segment_seconds=0.25, tie_margin=0.0)
    label(sets.read(folder), scorer, settings, Processes(), lambda: None, {})
    return (folder / "metadata.jsonl").read_bytes() + (folder / "dataset.yaml").read_bytes()


def kept(store: Store) -> dict[str, list[object]]:
    return {kind: [(row.key, row.content) for row in store.rows(kind)] for kind in (PEOPLE, VLM, SCORES)}


def test_files_of_the_version_before_are_taken_over_whole(old: Path) -> None:
    contents = {name: (old / name).read_bytes() for name in OLD_FILES}
    said: list[str] = []
    with closing(opened(old, say=said.append)) as store:
        everything = kept(store)
        models = ModelAnswers(store)
    assert said == [
        f"{old}: taken over from files of an older version: 6 answers of people, 2 answers of models, 2 scores; "
        f"the files lie in .answers/before; 1 that cannot be read stay there"
    ]
    assert not any((old / name).exists() for name in (".people", ".cache", ".labels"))
    places = ["before/people-answers.sqlite", "token", "before/cache-vlm.jsonl", "before/labels/settings.json"]
    assert [(old / FOLDER / place).read_bytes() for place in places] == list(contents.values())
    with closing(PeopleAnswers(old, create=False)) as answers:
        settings = answers.settle({"segment_seconds": 0.25, "seed": 3})
        survey = Survey(sets.read(old), settings)
        asked = survey.questions
        given = [(a.key, a.annotator, a.question, a.choice, a.swapped, a.seconds) for a in answers.all()]
        assert given == [
            ("k1", "ann", asked["000000"][0], 1, False, 1.5), ("k2", "ann", asked["000000"][1], -1, True, 2.5),
            ("k3", "ann", asked["000000"][1], 0, True, 3.5), ("k6", "bob", asked["000001"][1], -1, False, 5.5),
        ]  # fmt: skip
        assert [a.key for a in answers.current()] == ["k1", "k3", "k6"]
        assert answers.gold() == {asked["000002"][0]: 1}
        undone = answers.undo("k5", "bob", survey.known)  # the same request, sent again
        assert undone is not None
        assert undone.key == "k4"
        assert answers.undo("k7", "bob", survey.known) == answers.undo("k7", "bob", survey.known) is not None
    assert "key0" in models
    assert "key1" in models
    assert models.get("key1", pytest.fail).evidence == "seen 1 \u2028"
    with closing(opened(old, say=said.append)) as store:
        assert len(said) == 1
        assert kept(store)[VLM] == everything[VLM]


def test_a_labelling_that_the_version_before_was_stopped_in_goes_on(old: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(OLD, tmp_path / "plain", ignore=lambda *_: [".people", ".cache", ".labels"]))
    whole, rest = Mean(), Mean()
    assert score(old, rest) == score(plain, whole)
    assert (whole.scored, rest.scored) == (["000000", "000001", "000002"], ["000002"])
    with closing(opened(old)) as store:
        assert store.rows(SCORES) == []
        assert len(store.rows(PEOPLE)) == 6  # those of others stay


def test_scores_are_known_by_what_they_were_made_of(old: Path) -> None:
    one, other, _ = sets.read(old).pairs
    again = one.model_copy(update={"id": "elsewhere", "labels": None})
    assert score_key(again) == score_key(one)
    changed = [other, one.model_copy(update={"prompt": "x"}), one.model_copy(update={"segments": [(0, 4)]}),
               one.model_copy(update={"fps": 4.0})]  # fmt: skip
    assert len({score_key(pair) for pair in [one, *changed]}) == 5


class Cut(BaseException):
    pass


@pytest.mark.parametrize("where", ["_models", "_scores", "_move"])
def test_a_kill_in_the_middle_of_taking_over_loses_nothing(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before all is read nothing is there, and before all is moved everything is: the next one ends the same."""
    plain = Path(shutil.copytree(OLD, tmp_path / "plain"))
    with closing(opened(plain)) as store:
        expected = kept(store)

    def cut(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(older, where, cut)
        with pytest.raises(Cut):
            opened(old)
    with closing(Store(old)) as store:
        assert kept(store) == (expected if where == "_move" else {PEOPLE: [], VLM: [], SCORES: []})
    assert all((old / name).exists() for name in OLD_FILES)
    with closing(opened(old)) as store:
        assert kept(store) == expected
    assert sorted(path.name for path in (old / FOLDER).iterdir()) == [FILE, "before", "token"]


def test_several_may_take_over_at_once(old: Path) -> None:
    said: list[str] = []
    failed: list[BaseException] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        try:
            opened(old, say=said.append).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, len(said)) == ([], 1)
    with closing(opened(old)) as store:
        assert [len(rows) for rows in kept(store).values()] == [6, 2, 2]


WRITER = """
import sys, itertools
from pathlib import Path
from vpo_kit.labelling.answers import Store
store = Store(Path(sys.argv[1]))
for number in itertools.count():
    store.add("own", str(number), {"number": number})
    print(number, flush=True)
"""


def test_what_was_added_is_there_after_a_kill(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        last = [line for line in process.stdout if line.endswith("\n")]
    count = int(last[-1]) + 1 if last else 20
    with closing(Store(tmp_path)) as store:
        found = [(row.key, row.content) for row in store.rows("own")]
    assert len(found) in (count, count + 1)
    assert found == [(str(number), {"number": number}) for number in range(len(found))]


def test_a_second_process_that_labels_is_refused(old: Path) -> None:
    with labelling(old), pytest.raises(OutputError, match=r"is being labelled by another process: wait until it ends"):
        score(old, Mean())
    score(old, Mean())


def test_a_key_is_kept_once_and_an_error_undoes_all(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        assert store.add("own", "a", {"x": 1})
        assert not store.add("own", "a", {"x": 2})
        assert store.add("other", "a", {"x": 3})
        with suppress(Cut), store.writing():
            store.add("own", "b", {})
            store.forget("other")
            store.note("own", "fact", {"y": 1})
            raise Cut
        assert [(row.key, row.content) for row in store.rows("own")] == [("a", {"x": 1})]
        assert ([row.content for row in store.rows("other")], store.noted("own", "fact")) == ([{"x": 3}], None)
        store.note("own", "fact", {"y": 1})
        store.note("own", "fact", {"y": 2})
        assert store.noted("own", "fact") == {"y": 2}
        store.forget("own")
        assert (store.rows("own"), store.noted("own", "fact"), len(store.rows("other"))) == ([], None, 1)


@contextmanager
def changed(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as file:
        yield file
        file.commit()


@pytest.mark.parametrize("name", [".people/answers.sqlite", ".answers/answers.sqlite"])
def test_what_is_no_file_of_answers_is_left_alone(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir()
    file.write_bytes(b"a text, and not a short one" * 100)
    with pytest.raises(DataError, match=r"is damaged or no file of answers"):
        opened(tmp_path)
    assert file.read_bytes() == b"a text, and not a short one" * 100
    file.unlink()
    with changed(file) as other:
        other.execute("CREATE TABLE answers (x)")
    with pytest.raises(DataError, match=r"holds something else than answers"):
        opened(tmp_path)
    assert file.is_file()


@pytest.mark.parametrize("content", ["no json", "[1]", '{"annotator": "a"}', "[" * 100_000])
def test_a_damaged_row_is_one_line(tmp_path: Path, content: str) -> None:
    with closing(Store(tmp_path)) as store:
        for kind in (PEOPLE, VLM):
            store.add(kind, "k", {})
    with changed(tmp_path / FOLDER / FILE) as file:
        file.execute("UPDATE answers SET content = ?", (content,))
    with closing(opened(tmp_path)) as store, pytest.raises(DataError, match="is damaged or no file of answers"):
        ModelAnswers(store)
    with closing(PeopleAnswers(tmp_path, create=False)) as answers, pytest.raises(DataError, match="damaged"):
        answers.all()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot use"):
        Store(tmp_path / "file")
    with pytest.raises(DataError, match=r"answers\.sqlite is missing: nobody has answered"):
        opened(tmp_path, create=False)
    assert not (tmp_path / FOLDER).exists()
