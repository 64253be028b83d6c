"""What a run learns from is read ahead, once, and freed again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.support.footage import grey
from vpo_kit import models
from vpo_kit.clips import Clip, read_folder
from vpo_kit.errors import DataError
from vpo_kit.models.cache import DiskCache
from vpo_kit.models.encoding import PromptCache
from vpo_kit.processes import Processes
from vpo_kit.training.data import ClipSource, Encoder, Prompts
from vpo_kit.training.stream import Stream


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
