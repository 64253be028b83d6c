"""What is done to pictures before they are what people see: the right colours, shapes and lines; or one notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.footage import ffmpeg, grey, write
from vpo_kit.video import Extent, Window, read_video, read_window, scan
from vpo_kit.video import ffmpeg as program

STRONG = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]
COLOURS = np.array([*STRONG, (128, 128, 128), (16, 16, 16), (230, 180, 150), (60, 90, 40)], np.uint8)
BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""From a screen's primaries (BT.709), ITU-R BT.2087."""
LUMA = np.array([0.2627, 0.6780, 0.0593])


def bars() -> NDArray[np.uint8]:
    """``[H, W, 3]``: a bar of 16 pixels for each colour."""
    return np.broadcast_to(COLOURS.repeat(16, 0), (32, 16 * len(COLOURS), 3)).copy()


def notice(path: Path) -> str | None:
    """What the scan says of it, which must be what reading says."""
    (found,) = scan([path])
    assert isinstance(found, Extent)
    assert found.notice == read_video(path).notice
    return found.notice


class TestHighRange:
    def nits(self, colours: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Light of a screen whose white is 203 nits, in BT.2020's primaries."""
        return 203 * (colours / 255.0) ** 2.4 @ BT2020.T

    def pq(self, nits: NDArray[np.float64]) -> NDArray[np.float64]:
        """SMPTE ST 2084."""
        y = (nits / 10000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)

    def hlg(self, nits: NDArray[np.float64]) -> NDArray[np.float64]:
        """ITU-R BT.2100, for a screen of 1000 nits."""
        light = nits / 1000
        scene = light * (light @ LUMA)[..., None] ** (-0.2 / 1.2)
        return np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )

    def make(self, path: Path, signal: NDArray[np.float64], transfer: str) -> Path:
        """Three frames of 10 bits, without loss."""
        y = signal @ LUMA
        planes = np.stack(
            [64 + 876 * y, 512 + 896 * (signal[..., 2] - y) / 1.8814, 512 + 896 * (signal[..., 0] - y) / 1.4746]
        )
        raw = planes.round().astype("<u2").tobytes() * 3
        tags = f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc:range=tv"
        given = ["-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", f"{16 * len(COLOURS)}x32", "-r", "8", "-i", "-"]
        ffmpeg(*given, "-vf", tags, "-c:v", "ffv1", path, stdin=raw)
        return path

    @pytest.mark.parametrize(("transfer", "name", "most"), [("smpte2084", "PQ", 6), ("arib-std-b67", "HLG", 40)])
    def test_a_screens_colours_come_back(self, transfer: str, name: str, most: int, tmp_path: Path) -> None:
        """zscale takes HLG channel by channel, so that strong colours come out stronger still."""
        signal = (self.pq if name == "PQ" else self.hlg)(self.nits(bars()))
        path = self.make(tmp_path / "a.mkv", signal, transfer)
        wanted = COLOURS.astype(float)
        for frames in (read_video(path).frames, read_window(path, Window(0, 3, 8), 32, 128)):
            found = 255 * frames[1, :, 16, 8::16].T.numpy()
            off = np.abs(found - wanted).max(1)
            assert off.max() <= most
            assert off[4:6].max() <= 2, "greys"
            assert off[6:].max() <= 10, "a face and a leaf"
        assert notice(path) == f"tone-mapped from HDR ({name})"

    def test_highlights_are_pressed_together_and_do_not_clip(self, tmp_path: Path) -> None:
        nits = np.array([203.0, 300, 500, 1000]).repeat(32)[None, :, None] * np.ones((32, 1, 3))
        found = read_video(self.make(tmp_path / "a.mkv", self.pq(nits), "smpte2084")).frames[0, 0, 16, 16::32]
        assert float(found[0]) > 0.93
        assert (found.diff() > 0.002).all()

    def test_without_the_filters_there_is_a_notice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.make(tmp_path / "a.mkv", self.pq(self.nits(bars())), "smpte2084")
        monkeypatch.setattr(program, "has", lambda part: part != "zscale")
        assert notice(path) == "HDR (PQ) without tone mapping, which this ffmpeg cannot do"
        assert len(read_video(path).frames) == 3

    def test_and_also_where_they_fail(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from vpo_kit.video import treatment

        path = self.make(tmp_path / "a.mkv", self.pq(self.nits(bars())), "smpte2084")
        monkeypatch.setattr(treatment, "_tone_mapping", lambda look: ["zscale=t=nothing"])
        found = read_video(path)
        assert len(found.frames) == 3
        assert found.notice == "HDR (PQ) without tone mapping, which this ffmpeg cannot do"


class TestShape:
    def test_pixels_become_square(self, tmp_path: Path) -> None:
        """A circle that was squeezed to half of its width."""
        y, x = np.mgrid[-16:16, -16:16] + 0.5
        pixels = (
            np.where((2 * x) ** 2 + y**2 < 144, 255, 0).astype(np.uint8)[None, :, :, None].repeat(3, 3).repeat(5, 0)
        )
        path = write(tmp_path / "a.mp4", pixels, chain="setsar=2/1")
        found = read_video(path)
        assert found.size == (32, 64)
        bright = found.frames[0, 0] > 0.5
        wide, high = int(bright.any(0).sum()), int(bright.any(1).sum())
        assert abs(wide - high) <= 2
        assert notice(path) == "its pixels of 2:1 made square"
        window = read_window(path, Window(0, 5, 8), 32, 32)
        assert abs(int((window[0, 0] > 0.5).any(0).sum()) - high) <= 2
        tall = read_video(write(tmp_path / "b.mp4", pixels, chain="setsar=1/2"))
        assert tall.size == (64, 32)

    def test_a_turned_film_stands_upright(self, tmp_path: Path) -> None:
        pixels = np.zeros((5, 32, 48, 3), np.uint8)
        pixels[:, :16] = 255
        write(tmp_path / "a.mp4", pixels)
        path = tmp_path / "b.mp4"
        ffmpeg("-display_rotation", "90", "-i", tmp_path / "a.mp4", "-c", "copy", path)
        found = read_video(path)
        assert found.size == (48, 32)
        left, right = float(found.frames[0, :, 24, 4].mean()), float(found.frames[0, :, 24, 28].mean())
        assert (left > 0.9, right < 0.1) == (True, True)  # a quarter turn to the left
        assert notice(path) == "rotated"


class TestLines:
    def make(self, path: Path) -> Path:
        """A bar that moves 4 pixels from one half picture to the next, 8 whole pictures a second."""
        pixels = np.zeros((34, 32, 160, 3), np.uint8)
        for i in range(34):
            pixels[i, :, 4 * i : 4 * i + 16] = 255
        coding = ["-c:v", "libx264", "-flags", "+ilme+ildct", "-pix_fmt", "yuv420p", "-crf", "4"]
        return write(path, pixels, *coding, fps=16, chain="interlace=scan=tff:lowpass=off,setfield=tff")

    def combs(self, frames: torch.Tensor) -> float:
        """How much more neighbouring lines differ than those that are two apart."""
        lines = frames.mean(1)[2:-2]
        return float(lines.diff(dim=1).abs().mean() - (lines[:, 2:] - lines[:, :-2]).abs().mean())

    def test_combs_are_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.make(tmp_path / "a.mp4")
        found = read_video(path)
        assert (len(found.frames), found.fps) == (17, 8)
        assert notice(path) == "deinterlaced"
        monkeypatch.setattr(program, "has", lambda part: part != "bwdif")
        left = read_video(path)
        assert notice(path) == "interlaced and left so: this ffmpeg has no bwdif"
        assert self.combs(left.frames) > 0.02
        assert self.combs(found.frames) < 0.2 * self.combs(left.frames)

    def test_a_film_of_whole_pictures_is_left_alone(self, tmp_path: Path) -> None:
        assert notice(grey(tmp_path / "a.mp4", 5)) is None


class TestAlpha:
    HALF = "format={kind},geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='if(lt(X,16),0,{most})'"

    def make(self, path: Path) -> Path:
        """White, transparent on the left."""
        pixels = np.full((5, 32, 32, 3), 255, np.uint8)
        if path.suffix == ".gif":
            palette = ",split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse"
            given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x32", "-r", "8", "-i", "-"]
            chain = self.HALF.format(kind="rgba", most=255) + palette
            ffmpeg(*given, "-vf", chain, path, stdin=pixels.tobytes())
            return path
        coding = {
            ".webm": ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-b:v", "1M"],
            ".mov": ["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"],
        }[path.suffix]
        return write(path, pixels, *coding, chain=self.HALF.format(kind="rgba", most=255))

    @pytest.mark.parametrize("name", ["a.webm", "a.mov", "a.gif"])
    def test_what_is_transparent_is_black(self, name: str, tmp_path: Path) -> None:
        path = self.make(tmp_path / name)
        found = read_video(path)
        for frames in (found.frames, read_window(path, Window(0, 5, 8), 32, 32)):
            assert float(frames[..., :14].max()) < 0.06
            assert float(frames[..., 18:].min()) > 0.94
        assert found.notice == "transparent parts are black"
        (known,) = scan([path])
        assert isinstance(known, Extent)
        assert known.notice == (None if name == "a.gif" else found.notice)  # a gif's alpha is mostly unused

    def test_a_gif_that_uses_no_alpha_is_left_alone(self, tmp_path: Path) -> None:
        assert notice(grey(tmp_path / "a.gif", 5, fps=10)) is None

    def test_without_the_decoder_there_is_a_notice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.make(tmp_path / "a.webm")
        monkeypatch.setattr(program, "has", lambda part: part != "libvpx-vp9")
        assert notice(path) == "its transparency is not seen: this ffmpeg has no libvpx-vp9"


def test_all_at_once(tmp_path: Path) -> None:
    """Interlaced, of pixels that are not square, and turned."""
    path = TestLines().make(tmp_path / "a.mp4")
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=4/3", tmp_path / "b.mp4")
    ffmpeg("-display_rotation", "180", "-i", tmp_path / "b.mp4", "-c", "copy", tmp_path / "c.mp4")
    assert notice(tmp_path / "c.mp4") == "rotated; deinterlaced; its pixels of 4:3 made square"
    assert read_video(tmp_path / "c.mp4").size == (32, 213)
