"""What a batch holds is what the set says of just those pairs, member by member."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.support.offline_run import LABELS, make_set
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Motion, Scores
from vpo_kit.sampler import draw_noise
from vpo_kit.training.paired import Pairs

FRAMES = [(0, 1), (1, 5), (5, 9)]
"""Pixel frames of the latent ones; the set's three segments begin at 0, 3 and 6."""
ASKED = [5, 0, 4]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    path = make_set(tmp_path_factory.mktemp("sets") / "pairs")
    found = []
    for i, pair in enumerate(store.read(path).pairs):
        moved = Motion(first=[0.1 * i, 0.2 * i, 0.3 * i], second=[0.5, 0.5, 0.8])
        scores = Scores(first=[1.0] * 3, second=[0.0] * 3, first_clip=float(i), second_clip=-float(i))
        found.append(pair.model_copy(update={"motion": moved, "scores": scores if i != 1 else None}))
    return Pairs(path, found, FRAMES, weights=[0.1 * i for i in range(8)])


def test_members_keep_their_places(pairs: Pairs) -> None:
    found = pairs.tensors(ASKED)
    for row, i in enumerate(ASKED):
        first, second, source = draw_noise((8, 3, 4, 4), [10 * i, 10 * i + 1, 10 * i + 2])
        assert torch.equal(found["first"][row], first)
        assert torch.equal(found["second"][row], second)
        assert torch.equal(found["clip"][row], source)
    assert [pairs.prompts[i] for i in ASKED] == ["prompt 2", "prompt 0", "prompt 2"]


def test_labels_motion_scores_and_weights_are_their_own(pairs: Pairs) -> None:
    found = pairs.tensors(ASKED)
    assert found["label"].tolist() == [(sum(LABELS[i]) > 0) * 2 - 1 for i in ASKED]
    # frames 1 to 4 are two of the first segment and two of the second: a draw is a tie unless both are of one label
    middle = [[LABELS[i][0] if LABELS[i][0] == LABELS[i][1] else 0, LABELS[i][2]] for i in ASKED]
    assert found["labels"].tolist() == [[LABELS[i][0], *rest] for i, rest in zip(ASKED, middle, strict=True)]
    torch.testing.assert_close(found["motion"], torch.tensor([[0.2 * i, 0.6] for i in ASKED]))
    torch.testing.assert_close(found["weight"], torch.tensor([0.1 * i for i in ASKED]))
    scores = pairs.scores
    assert scores[ASKED].tolist() == [[float(i), -float(i)] for i in ASKED]
    assert [math.isnan(value) for value in scores[1].tolist()] == [True, True]


def test_without_a_source_the_clip_is_the_winner(tmp_path: Path) -> None:
    path = make_set(tmp_path / "pairs", count=2)
    rows = store.read(path).pairs
    for pair in rows:
        assert pair.latents is not None
        kept = store.read_latents(path / pair.latents)
        store.write_latents(path / pair.latents, {name: kept[name] for name in ("first", "second")})
    assert [pair.label for pair in rows] == [1, -1]
    found = Pairs(path, rows, FRAMES).tensors([0, 1])
    assert torch.equal(found["clip"], torch.stack([found["first"][0], found["second"][1]]))


def test_a_picture_of_a_pair_is_known_by_whose_it_is(tmp_path: Path) -> None:
    """Labelled the other way round, a pair without a source begins with its other member: a cache must see that."""
    path = make_set(tmp_path / "set", count=1)
    rows = store.read(path).pairs
    kept = store.read_latents(path / str(rows[0].latents))
    store.write_latents(path / str(rows[0].latents), {name: kept[name] for name in ("first", "second")})
    turned = rows[0].model_copy(update={"label": -1})
    found = [
        item.image
        for pair in (rows[0], turned)
        for item in Pairs(path, [pair], FRAMES, first_frame=lambda latent: latent[0, :3, 0]).inputs
    ]
    one, other = (picture for picture in found if picture is not None)
    assert one.key != other.key
    apart = rows[0].sha256.model_copy(update={"latents": None})  # a set that keeps no latents
    for label, of in ((1, f"first {apart.first}"), (-1, f"second {apart.second}")):
        pair = rows[0].model_copy(update={"label": label, "sha256": apart})
        (item,) = Pairs(path, [pair], FRAMES, first_frame=lambda latent: latent[0, :3, 0]).inputs
        assert item.image is not None
        assert item.image.key == of
    assert torch.equal(one.read(4, 4), kept["first"][:3, 0])
    assert torch.equal(other.read(4, 4), kept["second"][:3, 0])
