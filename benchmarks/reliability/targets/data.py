"""What is learned from: pair sets and folders of clips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.reliability.targets.stage import Read, Stage


def pair_set(folder: Path) -> Read:
    """Pair sets: listing, facts and latents, with and without a hash that fits, as training reads them."""
    from tests.support.offline_run import make_set
    from vpo_kit.pairing import check, store
    from vpo_kit.pairing.usable import usable
    from vpo_kit.training.paired import Pairs

    shape = (2, 3, 2, 2)
    sound = make_set(folder / "set", shape=shape, count=4)

    def read(stage: Stage) -> None:
        path = stage.copy(sound)
        _damage_set(stage, path)
        found = store.read(path)
        check.pairs(found)
        check.strays(found)
        kept = usable(found, shape, lambda pair: bool(pair.label), lambda _: None)
        pairs = Pairs(path, kept, [(0, 1), (1, 5), (5, 9)])
        tensors = pairs.tensors(range(len(kept)))
        assert tensors["first"].shape == (len(kept), *shape)

    return read


def pair_tools(folder: Path) -> Read:
    """``vpo pair merge``, ``split``, ``export``, ``inspect``, ``check`` on damaged sets: what they write is whole."""
    from tests.support.offline_run import make_set
    from vpo_kit.cli import pair_check, pair_export, pair_inspect, pair_merge, pair_split
    from vpo_kit.pairing import store

    sound, other = (make_set(folder / name, shape=(2, 3, 2, 2), count=4) for name in ("set", "other"))
    pairs = store.read(other)
    store.write(
        other, pairs.facts, [pair.model_copy(update={"prompt": f"other {pair.prompt}"}) for pair in pairs.pairs]
    )

    def read(stage: Stage) -> None:
        path, output = stage.copy(sound), stage.folder / "output"
        _damage_set(stage, path)
        runs: list[Callable[[], None]] = [
            lambda: pair_merge.pair_merge([path, other], output),
            lambda: pair_split.pair_split(path, output, 0.5),
            lambda: pair_export.pair_export(path, output / "pairs.table", stage.rng.choice(["trl", "csv"])),
            lambda: pair_inspect.pair_inspect(path, output / "page.html", 10),
            lambda: pair_check.pair_check(path),
        ]
        try:
            stage.rng.choice(runs)()
        finally:
            assert not [name for name in stage.folder.rglob("*.part*") if name.parent.name != ".parts"]
            for listing in output.rglob("metadata.jsonl"):
                assert not store.read(listing.parent).broken

    return read


def _damage_set(stage: Stage, path: Path) -> None:
    rng = stage.rng
    target = rng.choice(["metadata.jsonl", "metadata.jsonl", "metadata.jsonl", "dataset.yaml", "latents/1.safetensors"])
    (path / target).write_bytes(stage.damage((path / target).read_bytes(), json_too=target.endswith("jsonl")))
    if target.startswith("latents") and rng.random() < 0.8:  # as if it had been made so
        listing = path / "metadata.jsonl"
        rows = [json.loads(line) for line in listing.read_text().splitlines()]
        rows[1]["sha256"]["latents"] = hashlib.sha256((path / target).read_bytes()).hexdigest()
        listing.write_text("".join(json.dumps(row) + "\n" for row in rows))


def video_file(folder: Path) -> Read:
    """Videos of six kinds: read whole, looked through, and cut into windows."""
    from tests.support.footage import VP9, grey, piped
    from vpo_kit.errors import DataError
    from vpo_kit.video import Window, read_video, read_window, scan

    folder.mkdir(exist_ok=True)
    coding = {".mp4": [], ".mov": ["-movflags", "+faststart"], ".mkv": [], ".avi": [], ".webm": VP9, ".gif": []}
    files = [grey(folder / f"a{suffix}", 12, *options, fps=10) for suffix, options in coding.items()]
    files.append(piped(folder / "b.mkv", files[0], "matroska"))
    seeds = {path.suffix: path.read_bytes() for path in files}

    def read(stage: Stage) -> None:
        suffix = stage.rng.choice(list(seeds))
        path = stage.file(f"a{suffix}", stage.damage(seeds[suffix]))
        (known,) = scan([path])
        found = read_video(path)
        assert len(found.frames) >= 1
        assert found.fps > 0
        assert abs(len(found.frames) / found.fps - found.duration) < 1e-6 * found.duration
        if isinstance(known, str):
            raise AssertionError(f"is read and not looked through: {known}")
        count, fps = known.windows(5, 8)
        for i in range(min(count, 2)):
            try:
                window = read_window(path, Window(i * 5 / fps, 5, fps, known.origin), 16, 16)
                assert window.shape == (5, 3, 16, 16)
            except DataError:
                assert not stage.sound

    return read


def clip_listing(folder: Path) -> Read:
    """Listings and captions of folders of clips."""
    from vpo_kit.clips import read_folder
    from vpo_kit.models.settings import Settings
    from vpo_kit.video import write_video

    write_video(folder / "clips" / "a.mp4", torch.rand(9, 3, 16, 16), 8)
    seeds = {
        "metadata.jsonl": b'{"file_name": "a.mp4", "text": "a dog"}\n{"file_name": "b.mp4", "text": "a cat"}\n',
        "metadata.csv": b"file_name,text\na.mp4,a dog\nb.mp4,a cat\n",
        "a.txt": b"a dog",
        "a.mp4": (folder / "clips" / "a.mp4").read_bytes(),
    }

    def read(stage: Stage) -> None:
        path = stage.copy(folder / "clips")
        name = stage.rng.choice([*seeds, "metadata.jsonl", "metadata.csv"])
        (path / name).write_bytes(stage.damage(seeds[name], json_too=name.endswith("jsonl")))
        if name == "a.mp4":
            (path / "a.txt").write_text("a dog")
        settings = Settings(frames=9, height=16, width=16, fps=8, steps=1, guidance=1)
        found = read_folder(path, settings, max_windows=2)
        for clip in found.clips:
            assert clip.path.resolve().is_relative_to(path.resolve())
            clip.read()

    return read
