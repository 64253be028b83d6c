"""A judge of the embedded world on another model: what trains, labels or measures with it says so in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import main_ok
from tests.support.offline_run import make_set
from vpo_kit import label
from vpo_kit.comparison.plan import Given
from vpo_kit.folders import EMBEDDED, is_embedded
from vpo_kit.library.display import terminal
from vpo_kit.library.entries import CompareRequest, checked
from vpo_kit.rewards import loading


@pytest.mark.parametrize(
    ("model", "reward", "named"),
    [
        ("sprites", "vqa", ""),
        ("{tiny}", "technical", ""),
        ("{tiny}", "vqa", "vqa: a judge of"),
        ("{tiny}", "vqa:0.5+technical:0.5", "vqa: a judge of"),
        ("{tiny}", "vqa:0.5+gold:0.5", "vqa, gold: judges of"),
        ("owner/name", "vqa", "vqa: a judge of"),
    ],
)
def test_a_judge_of_another_world_is_named(tiny_wan: Path, model: str, reward: str, named: str) -> None:
    place = model.format(tiny=tiny_wan)
    found = loading.foreign(loading.plan(reward, {}), place)
    assert [line.startswith(f"warning: {named}") for line in found] == [True] * bool(named)
    assert all(place in line and "docs/judges.md" in line and "\n" not in line for line in found)


def test_labels_say_so_too(tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every label of a set on a published model by the default judge would be noise, and nobody would know."""
    for name, model, doubted in (("own", "sprites", False), ("other", str(tiny_wan), True)):
        label(make_set(tmp_path / name, model=model), "reward:vqa")
        assert ("warning: vqa: a judge of the embedded model's world" in capsys.readouterr().out) == doubted


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([], "vqa, gold: judges of"),  # the defaults
        (["evaluation.judges=[natural]"], ""),
        (["evaluation.judges=[gold]", "evaluation.num_prompts=0"], ""),  # nobody is asked
        (["evaluation.judges=[natural]", "selection.strengths=[1]", "selection.reward=vqa"], "vqa: a judge of"),
    ],
)
def test_so_does_training_of_whoever_looks_on(
    tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], named: str
) -> None:
    """A run on a published model is reported, and its board ranked, by judges that nobody has named."""
    prompts, heldout, validation = tmp_path / "prompts.txt", tmp_path / "heldout.txt", tmp_path / "validation.txt"
    prompts.write_text("a cat\n")
    heldout.write_text("a dog\n")
    validation.write_text("a bird\n")
    own = [f"evaluation.prompts={heldout}", f"selection.prompts={validation}", *settings]
    shared = ["--model", tiny_wan, "--prompts", prompts, *(part for one in own for part in ("--set", one))]
    main_ok(["train", "--method", "online", "--reward", "technical", *shared, "--dry-run"])
    told = [line for line in capsys.readouterr().out.splitlines() if "means little" in line]
    assert [line.startswith(f"# warning: {named}") for line in told] == [True] * bool(named)
    if named:
        request = CompareRequest(
            methods="online,nft", output=tmp_path / "board", given=Given(prompts=prompts),
            model=str(tiny_wan), reward="technical", assignments=own,
        )  # fmt: skip
        checked(request, terminal())
        told = [line for line in capsys.readouterr().out.splitlines() if "means little" in line]
        assert [line.startswith(f"warning: {named}") for line in told] == [True]


def test_the_embedded_model_is_known_by_name_and_by_folder() -> None:
    assert is_embedded("sprites")
    assert is_embedded(str(EMBEDDED["sprites"]))
    assert not is_embedded("owner/name")
