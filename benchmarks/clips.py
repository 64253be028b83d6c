"""What it takes to begin with a folder of clips, and to read one: ``python -m benchmarks.clips``; table of docs/performance.md.

Folders of 100, 1,000 and 10,000 clips (hard links of 24 files of six kinds) are read in a process of its own each: for
the first time, again, when every file has another time (each is hashed), and when one in a hundred is new. Beside it
one ffmpeg for each clip, as it was done before. Then a clip is read, beside the bare run of ffmpeg. Files are in the
memory of the system, so the disk is not measured. Writes ``benchmarks/results/clips.json``.
"""  # noqa: E501

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch

from benchmarks import facts
from benchmarks.speed.timing import ROOT, apart, memory, ratio, seconds

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- table: python -m benchmarks.clips -->", "<!-- end of table -->"
COUNTS = (100, 1000, 10_000)
SAMPLE = 300
"""Clips that are opened one by one."""
KINDS = {
    ".mp4": ["-c:v", "libx264", "-pix_fmt", "yuv420p"],
    ".m4v": ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart"],
    ".webm": ["-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-b:v", "600k", "-cpu-used", "8"],
    ".mkv": ["-c:v", "libx264", "-pix_fmt", "yuv420p"],
    ".avi": ["-c:v", "mpeg4", "-b:v", "900k"],
    ".gif": [],
}
SHAPE = {"frames": 48, "fps": 24, "width": 384, "height": 224}


def make(folder: Path) -> list[Path]:
    """Four clips of each kind, with sound where the kind has it."""
    files = []
    for suffix, coding in KINDS.items():
        for i in range(4):
            path = folder / f"{suffix[1:]}{i}{suffix}"
            noisy = "noise=alls=8:allf=t" if suffix != ".gif" else "null"
            picture = f"testsrc2=s={SHAPE['width']}x{SHAPE['height']}:r={SHAPE['fps']}:d=2,hue=h={90 * i},{noisy}"
            sound = ["-f", "lavfi", "-i", "sine=d=2.5"] if suffix in (".mp4", ".mkv") else []
            _ffmpeg("-f", "lavfi", "-i", picture, *sound, *coding, str(path))
            files.append(path)
    return files


def spread(files: list[Path], folder: Path, count: int, first: int = 0) -> None:
    """`count` links of the files in a folder, and a caption for each that is there."""
    folder.mkdir(exist_ok=True)
    for i in range(first, first + count):
        source = files[i % len(files)]
        os.link(source, folder / f"{i:06d}{source.suffix}")
    names = sorted(path.name for path in folder.iterdir() if path.suffix in KINDS)
    rows = (json.dumps({"file_name": name, "text": "a test picture"}) for name in names)
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")


def look(folder: Path) -> dict[str, Any]:
    """One start, in this process: what it took, and what came of it."""
    from vpo_kit.clips import read_folder
    from vpo_kit.models.settings import Settings

    before, began = memory(reset=True), (_processor(), time.perf_counter())
    found = read_folder(folder, Settings(frames=16, height=64, width=64, fps=8, steps=1, guidance=1))
    assert not found.skipped
    return {
        "processor_s": round(_processor() - began[0], 2),
        "wall_s": round(time.perf_counter() - began[1], 2),
        "memory_mb": round(memory() - before, 1),
        "clips": len(found.clips),
    }


def one_by_one(files: list[Path]) -> float:
    """Processor seconds of a clip where each is opened by an ffmpeg of its own."""
    began = _processor()
    for i in range(SAMPLE):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(files[i % len(files)])]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return (_processor() - began) / SAMPLE


def reading(path: Path) -> dict[str, float]:
    """A whole clip as a tensor, beside one plain run of ffmpeg whose pixels become the same tensor."""
    from vpo_kit.video import read_video

    shape = read_video(path).frames.permute(0, 2, 3, 1).shape

    def plain() -> torch.Tensor:
        raw = np.frombuffer(_ffmpeg("-i", str(path), "-pix_fmt", "rgb24", "-f", "rawvideo", "-"), np.uint8)
        return torch.from_numpy(raw.reshape(shape).copy()).permute(0, 3, 1, 2).float() / 255

    if path.suffix != ".gif":  # whose first frame may be white in one and black in the other
        assert torch.equal(plain(), read_video(path).frames)
    began, took = _processor, {"ours": list[float](), "plain": list[float]()}
    for _ in range(15):
        for name, read in (("ours", lambda: read_video(path)), ("plain", plain)):
            before = began()
            read()
            took[name].append(began() - before)
    return {**{f"{name}_s": seconds(values) for name, values in took.items()}, "ratio": ratio(*took.values())}


def starts(files: list[Path], place: Path, count: int) -> dict[str, dict[str, Any]]:
    """The four kinds of start of a folder of `count` clips."""
    folder = place / str(count)
    spread(files, folder, count)

    def start() -> dict[str, Any]:
        return apart("clips", "look", str(folder), thrifty=False)

    found = {"first": start(), "again": start()}
    for file in files:  # links share their time
        os.utime(file)
    found["touched"] = start()
    new = max(1, count // 100)
    spread(files, folder, new, first=count)
    found["one in a hundred is new"] = start()
    found["one ffmpeg for each"] = {"processor_s": round(count * one_by_one(files), 1), "of": SAMPLE}
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vpo-clips-") as name:
        place = Path(name)
        os.environ["VPO_CACHE"] = str(place / "cache")
        (place / "files").mkdir()
        files = make(place / "files")
        found: dict[str, Any] = {
            "command": "python -m benchmarks.clips",
            "shape": SHAPE,
            "mean_kb": round(sum(file.stat().st_size for file in files) / len(files) / 1000, 1),
            "starts": {count: starts(files, place, count) for count in COUNTS},
            "reading": {file.name: reading(file) for file in files[::4]},
        }
    facts.write("clips", found)
    facts.fill(PAGE, BEGIN, END, table(found))


def table(found: dict[str, Any]) -> str:
    lines = ["", "| clips | start | processor | wall | memory |", "|---|---|---|---|---|"]
    for count, kinds in found["starts"].items():
        for name, row in kinds.items():
            rest = f"{row['wall_s']:.2f} s | {row['memory_mb']:.1f} MB" if "wall_s" in row else "|"
            lines.append(f"| {count} | {name} | {row['processor_s']:.2f} s | {rest} |")
    lines += ["", "| a whole clip as a tensor | read | one plain run of ffmpeg | ratio |", "|---|---|---|---|"]
    for name, row in found["reading"].items():
        lines.append(
            f"| {Path(name).suffix[1:]} | {row['ours_s']:.4f} s | {row['plain_s']:.4f} s | {row['ratio']:.3f} |"
        )
    return "\n".join([*lines, ""])


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _ffmpeg(*arguments: str) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout


if __name__ == "__main__":
    if sys.argv[1:2] == ["look"]:
        print(json.dumps(look(Path(sys.argv[2]))))
    else:
        main()
