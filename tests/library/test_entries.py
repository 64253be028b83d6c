"""What a comparison's runs share."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from vpo_kit.library.entries import CompareRequest, checked

LEARNING = (
    "selection.strengths=[0.5]",
    "samples.every=5",
    "micro_batch_size=2",
    "gradient_checkpointing=true",
    "lora.rank=4",
)


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
