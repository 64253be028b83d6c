"""What a batch holds is what the set says of just those pairs, member by member."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.support.footage import grey
from tests.support.offline_run import LABELS, make_set
from vpo_kit import models
from vpo_kit.clips import Clip, read_folder
from vpo_kit.errors import DataError
from vpo_kit.models.cache import DiskCache
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.pairing.store import Motion, Scores
from vpo_kit.processes import Processes
from vpo_kit.sampler import draw_noise
from vpo_kit.training.data import ClipSource, Encoder, Pairs, Prompts
from vpo_kit.training.stream import Stream

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


class TestReadingAhead:
    @pytest.fixture
    def source(self, tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipSource:
        """Four clips; `reads` counts how often each was read, and `gate` holds the reading threads back."""
        model = models.load(str(tiny_wan))
        for i in range(4):
            grey(tmp_path / f"{i}.mp4", 9 + i)
            (tmp_path / f"{i}.txt").write_text(f"a clip, number {i}")
        found = read_folder(tmp_path, model.settings.changed(frames=9, height=32, width=32)).clips
        self.reads, self.gate, plain = Counter[str](), threading.Event(), Clip.read

        def read(clip: Clip) -> torch.Tensor:
            if threading.current_thread() is not threading.main_thread():
                assert self.gate.wait(20)
            self.reads[clip.path.name] += 1
            return plain(clip)

        self.encoder, self.clips = Encoder(model), found
        self.expected = [self.encoder(clip) for clip in found]
        monkeypatch.setattr(Clip, "read", read)
        return ClipSource(found, self.encoder)

    def test_it_goes_on_beside_what_is_done_meanwhile(self, source: ClipSource) -> None:
        """Being told waits for nothing; what was read is what is encoded, each once."""
        source.ahead([2, 0])
        assert not self.reads
        self.gate.set()
        found = source.tensors([2, 0])["clip"]
        assert torch.equal(found, torch.stack([self.expected[2], self.expected[0]]))
        source.ahead([2, 0])  # they are kept
        source.tensors([0, 2, 1])
        assert self.reads == {"0.mp4": 1, "1.mp4": 1, "2.mp4": 1}

    def test_what_was_begun_for_others_is_let_go(self, source: ClipSource) -> None:
        source.ahead([0, 1])
        source.ahead([1, 3])
        assert sorted(source._reading) == [1, 3]
        self.gate.set()
        assert torch.equal(source.tensors([0, 3])["clip"], torch.stack([self.expected[0], self.expected[3]]))

    def test_what_lies_on_disk_is_not_read(self, source: ClipSource, tmp_path: Path) -> None:
        self.gate.set()
        encoder = Encoder(self.encoder._model, DiskCache(tmp_path / "cache", print))
        for clip in self.clips[:2]:
            encoder(clip)
        self.reads.clear()
        stored = ClipSource(self.clips, encoder)
        stored.ahead([0, 1, 2])
        stored.tensors([0, 1, 2])
        assert self.reads == {"2.mp4": 1}

    def test_a_file_that_is_gone_is_said_when_it_is_asked_for(self, source: ClipSource) -> None:
        self.gate.set()
        self.clips[1].path.unlink()
        source.ahead([0, 1])
        with pytest.raises(DataError):
            source.tensors([0, 1])
        assert torch.equal(source.tensors([0])["clip"][0], self.expected[0])

    def test_a_stream_tells_what_comes_next(self, tiny_wan: Path) -> None:
        told: list[list[int]] = []

        class Told(Prompts):
            def ahead(self, indices: Sequence[int]) -> None:
                told.append(list(indices))

        model = models.load(str(tiny_wan))
        source = Told([f"number {i}" for i in range(5)])
        made = Stream(source, range(5), 2, 0, PromptCache(model), Processes(), model.settings)
        came = [list(made.batch(number, number).indices) for number in range(6)]
        assert told[:5] == came[1:]
