"""Files as they come: every kind and every damage gives the right frames at the right times, or one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.footage import VP9, ffmpeg, grey, levels, piped, same_greys, with_sound, write
from vpo_kit.errors import DataError
from vpo_kit.sprites import world
from vpo_kit.video import Extent, Window, read_video, read_window, scan, write_video
from vpo_kit.video import ffmpeg as program

Make = Callable[[Path], Path]


def copied(path: Path, *options: str, before: tuple[str, ...] = (), count: int = 17, fps: float = 8) -> Path:
    ffmpeg(*before, "-i", grey(path.with_name("whole.mp4"), count, fps=fps), "-c", "copy", *options, path)
    return path


def renamed(folder: Path, name: str) -> Path:
    return grey(folder / "a.mp4", 17).rename(folder / name)


EVEN: dict[str, tuple[Make, int, float]] = {
    "mp4": (lambda p: grey(p / "a.mp4", 49, fps=24), 49, 24),
    "television": (lambda p: grey(p / "a.mp4", 48, fps="24000/1001"), 48, 24000 / 1001),
    "m4v": (lambda p: grey(p / "a.m4v", 17), 17, 8),
    "mov": (lambda p: grey(p / "a.mov", 17), 17, 8),
    "webm": (lambda p: grey(p / "a.webm", 45, *VP9, fps=30), 45, 30),
    "avi": (lambda p: grey(p / "a.avi", 50, "-c:v", "mpeg4", "-bf", "2", "-q:v", "1", fps=25), 50, 25),
    "avi with h264": (lambda p: grey(p / "a.avi", 50, fps=25), 50, 25),
    "gif": (lambda p: grey(p / "a.gif", 20, fps=10), 20, 10),
    "gif of 30 a second": (lambda p: grey(p / "a.gif", 45, fps=30), 45, 30),
    "webm without duration": (lambda p: piped(p / "b.webm", grey(p / "a.webm", 45, *VP9, fps=30), "webm"), 45, 30),
    "mkv without duration": (lambda p: piped(p / "b.mkv", grey(p / "a.mp4", 17), "matroska"), 17, 8),
    "mkv that starts at 5 s": (lambda p: copied(p / "b.mkv", "-copyts", before=("-itsoffset", "5")), 17, 8),
    "20 s of sound": (lambda p: with_sound(p / "b.mp4", grey(p / "a.mp4", 17), 20), 17, 8),
    "sound 3 s earlier": (lambda p: with_sound(p / "b.mp4", grey(p / "a.mp4", 17), 9, "-itsoffset", "3"), 17, 8),
    "fragments": (lambda p: copied(p / "b.mp4", "-movflags", "+frag_keyframe+empty_moov"), 17, 8),
    "another suffix": (lambda p: grey(p / "a.mp4", 17).rename(p / "a.avi"), 17, 8),
    "a colon": (lambda p: renamed(p, "a: b.mp4"), 17, 8),
    "a dash": (lambda p: renamed(p, "-i.mp4"), 17, 8),
    "a pattern": (lambda p: renamed(p, "%03d[1]*.mp4"), 17, 8),
}
"""A maker of a file, how many frames it has, and how many a second."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a kind, made when it is first asked for."""
    files: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in files:
            files[kind] = EVEN[kind][0](tmp_path_factory.mktemp("kind"))
        return files[kind]

    return make


class TestEven:
    @pytest.mark.parametrize("kind", EVEN)
    def test_every_frame_once_at_its_rate(
        self, kind: str, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, (_, count, fps) = made(kind), EVEN[kind]
        monkeypatch.chdir(path.parent)  # a relative name may begin with what looks like a protocol or an option
        for given in (path, Path(path.name)):
            found = read_video(given)
            assert (len(found.times), found.fps, found.notice) == (count, fps, None)
            assert found.duration == pytest.approx(count / fps)
            assert found.times == pytest.approx([i / fps for i in range(count)], abs=0.006)
            assert same_greys(found.frames, levels(count))

    @pytest.mark.parametrize("kind", EVEN)
    def test_nothing_is_decoded_to_know_it(self, kind: str, made: Callable[[str], Path]) -> None:
        _, count, fps = EVEN[kind]
        (found,) = scan([made(kind)])
        assert isinstance(found, Extent)
        assert (found.frames, found.fps, found.even, found.notice) == (count, fps, True, None)
        assert found.duration == pytest.approx(count / fps)

    def test_our_own_videos_are_their_bytes(self, tmp_path: Path) -> None:
        """Labels of sets that were made before hang on them."""
        for i, clip in enumerate(world.training_clips(3, 0)):
            path = tmp_path / f"{i}.mp4"
            write_video(path, torch.from_numpy(clip.video), world.FPS)
            raw = np.frombuffer(ffmpeg("-i", path, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"), np.uint8)
            plain = torch.from_numpy(raw.reshape(17, 64, 64, 3).copy()).permute(0, 3, 1, 2).float() / 255
            found = read_video(path)
            assert torch.equal(found.frames, plain)
            assert found.frames.stride() == plain.stride()
            assert (found.fps, found.size) == (8.0, (64, 64))

    def test_a_name_with_a_colon_can_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_video(Path("a:b.mp4"), torch.zeros(3, 3, 16, 16), 8)
        assert len(read_video(Path("a:b.mp4")).frames) == 3


UNEVEN = [i / 30 for i in range(60)] + [2 + i / 10 for i in range(20)] + [4 + i / 30 for i in range(60)]
"""Six seconds."""
DELAYS = [0, 0.1, 0.3, 0.4, 0.5, 1.0, 1.1, 1.2, 1.4, 1.6, 1.7, 1.8]
"""With a last frame of a tenth of a second: 1.9 s."""


def truth(times: list[float], wanted: list[float]) -> list[int]:
    """The grey that is seen at each of the `wanted` times, where the frames come at `times`."""
    greys = levels(len(times))
    return [greys[max(i for i, time in enumerate(times) if time <= at + 1e-3)] for at in wanted]


class TestUneven:
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
    def test_six_seconds_stay_six_seconds(self, name: str, tmp_path: Path) -> None:
        path = grey(tmp_path / name, len(UNEVEN), *(VP9 if name.endswith("webm") else ()), fps=30, times=UNEVEN)
        found = read_video(path)
        assert found.times == pytest.approx(UNEVEN, abs=1e-3)
        assert found.duration == pytest.approx(6, abs=2e-3)
        assert found.fps == pytest.approx(30, abs=0.02)
        assert len(found.frames) == 180
        assert same_greys(found.frames, truth(UNEVEN, [k / 30 for k in range(180)]))
        assert found.notice == "variable frame rate: 140 frames are given out as 180 at 30 a second"

    def test_a_gif_stays_as_long_as_its_delays(self, tmp_path: Path) -> None:
        path = grey(tmp_path / "a.gif", len(DELAYS), fps=10, times=DELAYS)
        found = read_video(path)
        assert (found.duration, found.fps) == (pytest.approx(1.9), pytest.approx(10))
        assert found.times == pytest.approx(DELAYS)
        assert same_greys(found.frames, truth(DELAYS, [k / 10 for k in range(19)]))
        (known,) = scan([path])
        assert isinstance(known, Extent)
        assert (known.duration, known.even) == (found.duration, False)

    @pytest.mark.parametrize("start", [0.0, 1.5, 2.25, 3.875])
    def test_windows_hold_what_is_seen_at_their_times(self, start: float, tmp_path: Path) -> None:
        path = grey(tmp_path / "a.mp4", len(UNEVEN), fps=30, times=UNEVEN)
        for origin in (None, 0.0):
            found = read_window(path, Window(start, 17, 8, origin), 16, 16)
            assert same_greys(found, truth(UNEVEN, [start + k / 8 for k in range(17)]))


class TestWindows:
    @pytest.mark.parametrize("kind", EVEN)
    def test_all_of_them_as_the_film_is(self, kind: str, made: Callable[[str], Path]) -> None:
        """As many as follow each other in the picture, whatever else is in the file; each with its own frames."""
        path, (_, count, fps) = made(kind), EVEN[kind]
        (known,) = scan([path])
        assert isinstance(known, Extent)
        number, rate = known.windows(5, 8)
        assert number == int(np.ceil(round(count / fps * 8, 6))) // 5
        frames = [int(k / rate * fps + 1e-6) for k in range(5 * number)]
        for origin in (None, known.origin):
            parts = [read_window(path, Window(i * 5 / rate, 5, rate, origin), 16, 24) for i in range(number)]
            assert same_greys(torch.cat(parts), [levels(count)[i] for i in frames])

    def test_49_frames_at_24_hold_17_at_8(self, tmp_path: Path) -> None:
        path = grey(tmp_path / "a.mp4", 49, fps=24)
        (known,) = scan([path])
        assert isinstance(known, Extent)
        assert known.windows(17, 8) == (1, 8)
        assert same_greys(read_window(path, Window(0, 17, 8), 16, 16), levels(49)[::3])
        with pytest.raises(DataError, match=r"a.mp4 ends after 17 of 18 frames from 0.00 s on"):
            read_window(path, Window(0, 18, 8), 16, 16)

    def test_a_film_at_24_has_no_frame_twice(self, tmp_path: Path) -> None:
        path = grey(tmp_path / "a.mp4", 48, fps="24000/1001")
        (known,) = scan([path])
        assert isinstance(known, Extent)
        number, rate = known.windows(24, 24)
        assert (number, rate) == (2, 24000 / 1001)
        assert same_greys(read_window(path, Window(24 / rate, 24, rate, 0.0), 16, 16), levels(48)[24:])

    def test_far_into_a_film_it_is_not_decoded_from_its_start(self, tmp_path: Path) -> None:
        path = grey(tmp_path / "a.mp4", 240, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "4", "-g", "12")
        window = Window(20.0, 9, 8, 0.0)
        found = read_window(path, window, 16, 16)
        assert same_greys(found, levels(240)[160:169])
        assert torch.equal(found, read_window(path, Window(20.0, 9, 8), 16, 16))
        seen = []

        def count(decoded: object) -> None:
            seen.extend(decoded)  # type: ignore[call-overload]

        from vpo_kit.video.decoding import decode
        from vpo_kit.video.reading import seek

        decode(path, count, seek=seek(window))
        assert 80 < len(seen) < 110

    def test_behind_the_end_there_is_nothing(self, tmp_path: Path) -> None:
        path = grey(tmp_path / "a.mp4", 40)
        for start, count in ((4.75, 2), (60.0, 0)):
            for origin in (None, 0.0):
                with pytest.raises(DataError, match=f"ends after {count} of 5 frames from {start:.2f} s on"):
                    read_window(path, Window(start, 5, 8, origin), 16, 16)

    def test_a_wrong_origin_is_no_wrong_frame(self, tmp_path: Path) -> None:
        """Where decoding begins behind the window, it begins again at the file's start."""
        path = grey(tmp_path / "a.mp4", 80)
        assert same_greys(read_window(path, Window(2.0, 9, 8, -5.0), 16, 16), levels(80)[16:25])

    def test_a_cut_begins_where_it_was_cut(self, tmp_path: Path) -> None:
        """Frames before it are in the file for the decoder alone."""
        path = copied(tmp_path / "b.mp4", before=("-ss", "0.9"), count=49, fps=24)
        found = read_video(path)
        assert (len(found.frames), found.fps) == (27, 24)
        assert same_greys(found.frames, levels(49)[22:])
        (known,) = scan([path])
        assert isinstance(known, Extent)
        assert known.frames == 27

    def test_size_and_place(self, tmp_path: Path) -> None:
        """Resized to cover, and the middle is kept."""
        pixels = np.zeros((9, 32, 64, 3), np.uint8)
        pixels[:, :, 16:48] = 255
        found = read_window(write(tmp_path / "a.mp4", pixels), Window(0, 9, 8), 16, 16)
        assert found.shape == (9, 3, 16, 16)
        assert float(found.min()) > 0.9


class TestDamage:
    def test_a_file_that_was_cut_off(self, tmp_path: Path) -> None:
        """Its index stands before its pictures and tells of all 60."""
        coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "4", "-bf", "0", "-g", "6"]
        whole = grey(tmp_path / "a.mp4", 60, *coding, "-movflags", "+faststart", fps=30, size=(64, 64))
        data = whole.read_bytes()
        start = data.index(b"mdat")
        path = tmp_path / "b.mp4"
        path.write_bytes(data[: start + (len(data) - start) // 2])
        found, (known,) = read_video(path), scan([path])
        assert isinstance(known, Extent)
        count = len(found.times)
        assert 15 < count < 45
        assert same_greys(found.frames[:-1], levels(60)[: count - 1])
        assert (known.frames, known.duration) == (count, found.duration)
        assert found.notice is not None
        assert found.notice.startswith("damaged: ")
        assert str(known.notice).startswith("damaged: ")
        number, rate = known.windows(4, 15)
        assert number == int(np.ceil(round(count / 2, 6))) // 4
        read_window(path, Window((number - 1) * 4 / rate, 4, rate, known.origin), 16, 16)

    def test_times_that_begin_again(self, tmp_path: Path) -> None:
        """Two streams written one behind the other."""
        parts = [grey(tmp_path / f"{i}.ts", 8, "-c:v", "mpeg2video", "-q:v", "1", fps=25) for i in range(2)]
        path = tmp_path / "a.mp4"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        found, (known,) = read_video(path), scan([path])
        assert isinstance(known, Extent)
        assert (len(found.frames), found.fps) == (16, 25)
        assert same_greys(found.frames, 2 * levels(8))
        assert (known.frames, known.duration) == (16, found.duration)
        assert "times jump" in str(found.notice)
        assert "times jump" in str(known.notice)
        assert same_greys(read_window(path, Window(0.32, 8, 25, 0.0), 16, 16), levels(8))

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "cannot be decoded as a video: .+"),
            (b"not a video", "cannot be decoded as a video: .+"),
            (b"GIF89a", "cannot be decoded as a video: .+"),
        ],
    )
    def test_what_is_none(self, content: bytes, reason: str, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        path.write_bytes(content)
        for read in (read_video, lambda path: read_window(path, Window(0, 5, 8), 16, 16)):
            with pytest.raises(DataError, match=f"^{path} {reason}$") as caught:
                read(path)
            assert "\n" not in str(caught.value)
        (known,) = scan([path])
        assert isinstance(known, str)
        assert f"{path} {known}" == str(caught.value)

    def test_a_name_that_cannot_be_one(self) -> None:
        with pytest.raises(DataError, match="cannot be decoded as a video: embedded null byte"):
            read_video(Path("a\0b.mp4"))

    def test_sound_alone(self, tmp_path: Path) -> None:
        ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "a.mp4")
        with pytest.raises(DataError, match=r"a.mp4 cannot be decoded as a video: there is no video in it$"):
            read_video(tmp_path / "a.mp4")
        assert scan([tmp_path / "a.mp4"]) == ["cannot be decoded as a video: there is no video in it"]

    def test_a_cover_picture_is_no_video(self, tmp_path: Path) -> None:
        ffmpeg("-f", "lavfi", "-i", "color=red:s=16x16", "-frames:v", "1", tmp_path / "c.jpg")
        inputs = ["-i", tmp_path / "c.jpg", "-i", grey(tmp_path / "a.mp4", 9)]
        ffmpeg(*inputs, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic", tmp_path / "b.mp4")
        assert same_greys(read_video(tmp_path / "b.mp4").frames, levels(9))
        (known,) = scan([tmp_path / "b.mp4"])
        assert isinstance(known, Extent)
        assert known.frames == 9

    def test_no_other_file_is_opened(self, tmp_path: Path) -> None:
        """A playlist by the name of a video."""
        grey(tmp_path / "secret.mp4", 9)
        for text in ("ffconcat version 1.0\nfile secret.mp4\n", "#EXTM3U\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"):
            (tmp_path / "a.mp4").write_text(text)
            with pytest.raises(DataError, match="cannot be decoded"):
                read_video(tmp_path / "a.mp4")
            assert isinstance(scan([tmp_path / "a.mp4"])[0], str)

    def test_bad_files_do_not_spoil_their_batch(self, tmp_path: Path) -> None:
        paths = []
        for i in range(9):
            path = tmp_path / f"{i}.mp4"
            if i % 4 == 1:
                path.write_bytes(b"no video")
            else:
                grey(path, i + 2)
            paths.append(path)
        found = scan(paths)
        assert [isinstance(known, str) for known in found] == [i % 4 == 1 for i in range(9)]
        assert [known.frames for known in found if isinstance(known, Extent)] == [2, 4, 5, 6, 8, 9, 10]
        assert scan([]) == []

    def test_a_few_bytes_do_not_fill_the_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = grey(tmp_path / "a.gif", 5, fps=10)
        data = bytearray(path.read_bytes())
        data[6:10] = b"\xff\xff\xff\xff"
        (tmp_path / "b.gif").write_bytes(data)
        with pytest.raises(DataError, match=r"b.gif cannot be decoded as a video: "):
            read_video(tmp_path / "b.gif")
        monkeypatch.setattr("vpo_kit.video.reading.MEMORY", 6 * 4 * 32 * 32 * 3)
        with pytest.raises(DataError, match=r"a.gif is too long to be read whole: .* hold 5 frames of 32 x 32 pixels"):
            read_video(path)
        held = grey(tmp_path / "c.gif", 4, fps=10, times=[0, 0.1, 0.2, 5])
        with pytest.raises(DataError, match=r"c.gif is too long to be read whole"):
            read_video(held)

    def test_ffmpeg_is_gone_when_half_a_video_is_enough(self, tmp_path: Path) -> None:
        path = grey(tmp_path / "a.mp4", 240)
        with program.Decoding(*program.source(path), "-map", "0:V:0", "-vf", program.WATCH) as run:
            next(iter(run))
        assert run._process.returncode is not None
        assert not run._listener.is_alive()
