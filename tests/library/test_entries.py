"""What a comparison's runs share."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.support.offline_run import make_set
from vpo_kit.comparison.plan import Given
from vpo_kit.library.entries import CompareRequest, checked
from vpo_kit.pairing import store

LEARNING = (
    "selection.strengths=[0.5]",
    "samples.every=5",
    "micro_batch_size=2",
    "gradient_checkpointing=true",
    "lora.rank=4",
)


def test_a_budget_of_labels_counts_those_that_are_read(tiny_wan: Path, tmp_path: Path) -> None:
    """Of a dimension the verdicts in it, of a labeller its own: rows of one budget have as many."""
    path = make_set(tmp_path / "pairs", model=str(tiny_wan))
    found = store.read(path)
    pairs = [
        pair.model_copy(update={"labeller": "people" if i % 2 else "vqa", "judged": {"motion": 1 if i > 2 else None}})
        for i, pair in enumerate(found.pairs)
    ]
    store.write(path, found.facts, pairs)

    held = tmp_path / "held.txt"
    held.write_text("a cat\n")
    shared = [f"evaluation.prompts={held}", "evaluation.judges=[natural]", "selection.strengths=[]"]

    def chosen(*settings: str) -> tuple[list[str], Path | None]:
        request = CompareRequest(
            methods="dense", output=tmp_path / "board", model=str(tiny_wan), given=Given(pairs=path),
            budget="labelled_segments=6", assignments=[*shared, *settings],
        )  # fmt: skip
        ((entry,), _) = checked(request, Console(quiet=True))
        assert entry.part is not None
        assert (entry.labels, entry.part[1]) == (6, [pair for pair in pairs if pair in entry.part[1]])
        return [pair.id for pair in entry.part[1]], entry.recipe.run.pairs

    found_by = [chosen(), chosen("data.labeller=people"), chosen("data.dimension=motion")]
    assert [ids for ids, _ in found_by] == [["p0", "p1"], ["p1", "p3"], ["p3", "p4"]]
    assert len({place for _, place in found_by}) == 3


@pytest.mark.parametrize(
    ("settings", "bases"), [(LEARNING, 1), (("sampling.guidance=2",), 2), (("dtype=bfloat16",), 2)]
)
def test_a_base_is_measured_again_only_where_it_would_be_another(
    tmp_path: Path, settings: tuple[str, ...], bases: int
) -> None:
    own = [f"nft:{setting}" for setting in settings]
    request = CompareRequest(methods="nft,rwr", output=tmp_path / "board", reward="vqa", assignments=own)
    _, planned = checked(request, Console(quiet=True))
    assert len({one.base for runs in planned for one in runs}) == bases
