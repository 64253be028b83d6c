"""What a run says at its end of the words that its held-out videos show."""

from __future__ import annotations

import pytest

from vpo_kit import config
from vpo_kit.evaluation.statistics import Paired
from vpo_kit.library.closing import lost_words
from vpo_kit.training import recipe


@pytest.mark.parametrize("off", [[], ["text_lost"]])
def test_words_that_held_out_videos_lose_are_a_warning(off: list[str]) -> None:
    said: list[str] = []
    run = recipe.check(config.build({"health": {"disable": off}}))

    def ended(difference: float, high: float) -> dict[str, str]:
        after, low = 0.98 + difference, 2 * difference - high
        change = Paired(before=0.98, after=after, difference=difference, low=low, high=high, win_rate=0.3, count=48)
        return lost_words(run, {"text_accuracy": change}, said.append)

    assert ended(-0.05, high=0.01) == {}
    assert lost_words(run, {}, said.append) == {}
    assert not said
    found = ended(-0.25, high=-0.2)
    assert list(found) == ([] if off else ["text_lost"])
    assert len(said) == (not off)
    if found:
        assert "on held-out prompts: right words of the captions have fallen from 98.0% to 73.0%" in said[0]
