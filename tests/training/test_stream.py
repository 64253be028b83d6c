"""The order of a source's items: every one once in each pass, in an order of its own, shared without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.kept_videos import write_once
from vpo_kit import models
from vpo_kit.clips import Clip, read_folder
from vpo_kit.config import Validation
from vpo_kit.errors import DataError
from vpo_kit.inputs import Shade
from vpo_kit.methods.base import Batch
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.settings import Settings, Size
from vpo_kit.processes import Processes
from vpo_kit.registry import METHODS
from vpo_kit.training.data import ClipSource, Encoder, Prompts
from vpo_kit.training.recipe import complete
from vpo_kit.training.run import wanted
from vpo_kit.training.stream import Stream, split

SETTINGS = Settings(frames=9, height=32, width=32, fps=8, steps=4, guidance=4.0)
ITEMS = [3, 0, 5, 6, 2, 9, 8]
"""Of ten, those that are trained on."""


def part(rank: int, count: int) -> Processes:
    found = Processes()
    found.rank, found.count = rank, count
    return found


@pytest.fixture(scope="module")
def encode(tiny_wan: Path) -> PromptCache:
    return PromptCache(models.load(str(tiny_wan)))


def stream(encode: PromptCache, size: int, seed: int = 0, processes: Processes | None = None) -> Stream:
    source = Prompts([f"a circle, number {number}" for number in range(10)])
    return Stream(source, ITEMS, size, seed, encode, processes or Processes(), SETTINGS)


def visited(encode: PromptCache, seed: int = 0) -> list[list[int]]:
    """Three passes over the items, in batches that do not divide them."""
    made = stream(encode, 3, seed)
    every = [index for number in range(7) for index in made.batch(number, number).indices]
    return [every[start : start + 7] for start in (0, 7, 14)]


def test_each_pass_is_over_every_item_in_an_order_of_its_own(encode: PromptCache) -> None:
    passes = visited(encode)
    assert [sorted(one) for one in passes] == [sorted(ITEMS)] * 3
    assert len({tuple(one) for one in passes}) == 3
    assert visited(encode) == passes
    assert not {tuple(one) for one in passes} & {tuple(one) for one in visited(encode, seed=1)}


def test_a_batch_says_where_its_items_stand(encode: PromptCache) -> None:
    made = stream(encode, 3)
    batch = made.batch(2, 5)
    assert (batch.step, batch.positions, batch.visits) == (5, [0, 1, 2], [0, 1, 1])  # items 6, 7 and 8 of passes of 7
    assert list(batch.prompts) == [made.item(index, 0).prompts[0] for index in batch.indices]
    for name, value in encode(batch.prompts).tensors.items():
        assert torch.equal(batch.conditions.tensors[name], value)
    assert made.names(batch.indices) == ", ".join(str(index + 1) for index in batch.indices)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_a_batch_and_the_held_out_items(encode: PromptCache, count: int) -> None:
    """Every position once; of the held-out items each process gets as many batches, and each item counts once."""
    whole = stream(encode, 4).batch(1, 1)
    parts = [stream(encode, 4, processes=part(rank, count)) for rank in range(count)]
    taken = dict[int, int]()
    for one in parts:
        batch = one.batch(1, 1)
        taken |= dict(zip(batch.positions, batch.indices, strict=True))
    assert [taken[position] for position in range(4)] == list(whole.indices)
    orders = [list(one.in_order()) for one in parts]
    assert len({len(order) for order in orders}) == 1
    counted: Sequence[int] = [i for order in orders for batch in order if not batch.filler for i in batch.indices]
    assert sorted(counted) == sorted(ITEMS)


WIDE, TALL = Size(9, 32, 64), Size(5, 64, 32)


def shaped(encode: PromptCache, size: int, processes: Processes | None = None) -> Stream:
    """Of the seven items three are wide, as all below 5 are, and four tall."""
    source = Prompts([f"number {number}" for number in range(10)], [WIDE if n < 5 else TALL for n in range(10)])
    return Stream(source, ITEMS, size, 0, encode, processes or Processes(), SETTINGS)


def test_a_batch_has_one_shape_and_every_item_its_turn(encode: PromptCache) -> None:
    """Batches of both shapes by turns, as often as there are items of each; a shape's passes leave none out."""
    made = shaped(encode, 2)
    batches = [made.batch(number, number) for number in range(14)]
    for batch in batches:
        assert {WIDE if index < 5 else TALL for index in batch.indices} == {batch.settings.size}
        assert (batch.settings.fps, batch.settings.steps) == (SETTINGS.fps, SETTINGS.steps)
    wide = [batch.settings.size == WIDE for batch in batches]
    assert wide.count(True) == 6
    assert all(abs(sum(wide[:n]) - n * 3 / 7) <= 1 for n in range(1, 14))
    for size, count in ((WIDE, 3), (TALL, 4)):
        seen = [index for batch in batches if batch.settings.size == size for index in batch.indices]
        own = sorted(index for index in ITEMS if (index < 5) == (size == WIDE))
        assert [sorted(seen[start : start + count]) for start in range(0, len(seen), count)] == [own] * 4
        visits = [visit for batch in batches if batch.settings.size == size for visit in batch.visits]
        assert visits == [place // count for place in range(len(visits))]
    again = shaped(encode, 2).batch(9, 9)  # as after a resume, with nothing asked for before
    assert (again.indices, again.visits) == (batches[9].indices, batches[9].visits)


def test_processes_share_batches_of_one_shape(encode: PromptCache) -> None:
    whole, parts = shaped(encode, 4), [shaped(encode, 4, part(rank, 2)) for rank in range(2)]
    for number in range(5):
        batches = [one.batch(number, number) for one in parts]
        assert len({batch.settings.size for batch in batches}) == 1
        taken = {p: i for batch in batches for p, i in zip(batch.positions, batch.indices, strict=True)}
        assert [taken[position] for position in range(4)] == list(whole.batch(number, number).indices)
    orders = [list(one.in_order()) for one in parts]
    first, second = ([batch.settings.size for batch in order] for order in orders)
    assert first == second
    counted = [i for order in orders for batch in order if not batch.filler for i in batch.indices]
    assert sorted(counted) == sorted(ITEMS)


def test_items_of_one_shape_come_as_without_shapes(encode: PromptCache) -> None:
    source = Prompts([f"number {number}" for number in range(10)], [WIDE] * 10)
    one = Stream(source, ITEMS, 3, 0, encode, Processes(), SETTINGS)
    plain = stream(encode, 3)
    assert [one.batch(n, n).indices for n in range(9)] == [plain.batch(n, n).indices for n in range(9)]


@pytest.fixture
def clips(tiny_wan: Path, tmp_path: Path) -> tuple[list[Clip], Encoder]:
    for i in range(5):
        write_once(tmp_path / f"{i}.mp4", Shade(i).read(32, 32).expand(12, -1, -1, -1), 8)
        (tmp_path / f"{i}.txt").write_text(f"prompt {i}")
    return read_folder(tmp_path, SETTINGS).clips, Encoder(models.load(str(tiny_wan)))


def test_a_clip_that_is_gone_is_left_out_and_named_once(clips: tuple[list[Clip], Encoder], encode: PromptCache) -> None:
    """Another one stands in its place, in a run that goes on the same one; where most are gone that is an error."""
    found, encoder = clips
    said: list[str] = []

    def batches(first: int) -> list[Batch]:
        made = Stream(ClipSource(found, encoder), range(5), 2, 0, encode, Processes(), SETTINGS, said.append)
        return [made.batch(number, number) for number in range(first, 8)]

    whole = [tuple(batch.indices) for batch in batches(0)]
    found[3].path.unlink()
    missing = batches(0)
    assert [tuple(4 if i == 3 else i for i in indices) for indices in whole] == [tuple(b.indices) for b in missing]
    assert all(list(batch.prompts) == [f"prompt {i}" for i in batch.indices] for batch in missing)
    assert [tuple(batch.indices) for batch in batches(5)] == [tuple(batch.indices) for batch in missing[5:]]
    assert [line.count("3.mp4") for line in said] == [1, 1], said  # by each of the two streams
    assert "1 of 5 items cannot be read any more" in said[0]
    for clip in found[:2]:
        clip.path.unlink()
    with pytest.raises(DataError, match="3 of 5 items cannot be read any more"):
        batches(0)


@pytest.mark.parametrize(("updates", "count"), [(1, 16), (4, 4)])
def test_a_run_encodes_the_prompts_of_the_batches_that_it_draws(
    encode: PromptCache, tiny_wan: Path, tmp_path: Path, updates: int, count: int
) -> None:
    """Eight steps of two prompts; a rollout that is gone on with four times asks for a quarter of them."""
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    recipe = complete({
        "method": {"name": "online", "updates_per_rollout": updates}, "reward": "technical", "model": str(tiny_wan),
        "prompts": str(tmp_path / "prompts.txt"), "steps": 8, "batch_size": 2, "evaluation": {"num_prompts": 0},
        "selection": {"strengths": []},
    })  # fmt: skip
    source = Prompts([f"number {number}" for number in range(40)])
    found = wanted(recipe, source, SETTINGS, encode, Processes())
    assert len(found) == len({item for item, _ in found}) == count


def test_a_run_encodes_what_it_holds_out_too(encode: PromptCache, tiny_wan: Path) -> None:
    """The text encoder is gone when the first validation comes."""
    dpo = METHODS.load("dpo")
    recipe = complete({"model": str(tiny_wan), "steps": 8, "batch_size": 2, "evaluation": {"num_prompts": 0}})
    source = Prompts([f"number {number}" for number in range(40)])
    for share in (0.0, 0.25):
        run = recipe.run.model_copy(update={"validation": Validation(share=share, every=2)})
        whole = replace(recipe, run=run, method=dpo, method_config=dpo.Config())
        found = {item for item, _ in wanted(whole, source, SETTINGS, encode, Processes())}
        held = {source.prompts[i] for i in split(source, share, run.seed).held}
        assert (len(held), len(found - held)) == (40 * share, 16)
        assert held <= found
