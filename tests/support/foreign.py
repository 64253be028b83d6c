"""Tiny sets in every foreign layout, of the same four clips: written by hand from the sets' own descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.support.kept_videos import write_once

PROMPTS = ("a red circle moves to the left", "a blue square stands still")


def clips(folder: Path, names: tuple[str, ...] = ("0.mp4", "1.mp4", "2.mp4", "3.mp4")) -> None:
    """Clips that get louder; the odd ones are longer, faster and larger than the even ones."""
    generator = torch.Generator().manual_seed(0)
    for i, name in enumerate(names):
        frames, size, fps = ((12, 32, 8), (20, 48, 16))[i % 2]
        noise = torch.rand(frames, 3, size, size, generator=generator)
        write_once(folder / name, 0.5 + 0.15 * (i + 1) * (noise - 0.5), fps)


def _csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    import csv

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def _parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def _videogen(folder: Path) -> Path:
    clips(folder)
    rows = [
        {"path_A": "0.mp4", "path_B": "./1.mp4", "A_model": "x", "B_model": "y", "prompt": PROMPTS[0], "VQ": "A",
         "MQ": "same", "TA": "B", "Overall": "A", "fps_A": 8.0, "num_frames_A": 12.0},
        {"path_A": "2.mp4", "path_B": "3.mp4", "A_model": "x", "B_model": "y", "prompt": PROMPTS[1], "VQ": "B",
         "MQ": "B", "TA": "", "Overall": "same", "fps_A": 8.0, "num_frames_A": 12.0},
    ]  # fmt: skip
    return _csv(folder / "set.csv", rows)


def _genai_bench(folder: Path) -> Path:
    clips(folder)
    rows = [
        {"prompt": PROMPTS[0], "left_model": "x", "right_model": "y", "left_video": "0.mp4", "right_video": "1.mp4",
         "vote_type": "leftvote"},
        {"prompt": PROMPTS[1], "left_model": "x", "right_model": "y", "left_video": "https://host/a/2.mp4",
         "right_video": "3.mp4", "vote_type": "bothbad_vote"},
    ]  # fmt: skip
    return _parquet(folder / "set.parquet", rows)


def _visionreward(folder: Path) -> Path:
    clips(folder)
    rows = [
        {"internal_id": 1, "prompt": PROMPTS[0], "standard_answer": "video1", "video1_path": "0.mp4",
         "video2_path": "1.mp4"},
        {"internal_id": 2, "prompt": PROMPTS[1], "standard_answer": "tie", "video1_path": "2.mp4",
         "video2_path": "3.mp4"},
    ]  # fmt: skip
    return _json(folder / "set.json", rows)


def _mj_bench(folder: Path) -> Path:
    clips(folder)
    rows = [
        {"caption": PROMPTS[0], "video_0_path": "0.mp4", "video_1_path": "1.mp4", "discard": False,
         "category_preference": {"alignment": "Video 2 better", "safety": "Same"},
         "overall_preference": "Video 1 better"},
        {"caption": PROMPTS[1], "video_0_path": "2.mp4", "video_1_path": "3.mp4", "discard": False,
         "category_preference": {}, "overall_preference": "Same"},
    ]  # fmt: skip
    return _json(folder / "set.json", rows)


def _uve(folder: Path) -> Path:
    clips(folder)
    return _json(folder / "set.json", {
        "a": {"video_a": "0.mp4", "video_b": "1.mp4", "prompt": PROMPTS[0], "preference": "A is better",
              "aspect": "dynamics"},
        "b": {"video_a": "2.mp4", "video_b": "3.mp4", "prompt": None, "preference": "same quality",
              "aspect": "dynamics"},
    })  # fmt: skip


def _rapidata(folder: Path) -> Path:
    clips(folder, ("Videos/0.mp4", "Videos/1.mp4", "Videos/2.mp4", "Videos/3.mp4"))
    rows = [
        {"prompt": PROMPTS[i], "file_name1": f"{2 * i}.mp4", "file_name2": f"{2 * i + 1}.mp4",
         "weighted_results1_Preference": (0.8, 0.5)[i], "weighted_results2_Preference": (0.2, 0.5)[i],
         "weighted_results1_Coherence": 0.4, "weighted_results2_Coherence": 0.6}
        for i in range(2)
    ]  # fmt: skip
    return _parquet(folder / "set.parquet", rows)


def _videodpo(folder: Path) -> Path:
    names = ("winvideos/000000.mp4", "losevideos/000000.mp4", "winvideos/000001.mp4", "losevideos/000001.mp4")
    clips(folder, names)
    rows = [{"video1": 2 * i, "video2": 2 * i + 1, "frame_caption": PROMPTS[i], "score": 0.5} for i in range(2)]
    return _json(folder / "pair.json", rows)


def _pairs(folder: Path) -> Path:
    clips(folder)
    rows = [
        {"prompt": PROMPTS[0], "first": "0.mp4", "second": "1.mp4", "verdict": "first"},
        {"prompt": PROMPTS[1], "first": "2.mp4", "second": "3.mp4", "verdict": "Tie"},
    ]
    return _csv(folder / "set.csv", rows)


def _folder(folder: Path) -> Path:
    clips(folder)
    rows = [
        {"caption": PROMPTS[0], "left": "0.mp4", "right": "1.mp4", "quality": "L"},
        {"caption": PROMPTS[1], "left": "2.mp4", "right": "3.mp4", "quality": "equal"},
    ]
    (folder / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "set.jsonl"


def _genai_bench_video(folder: Path) -> Path:
    clips(folder, ("x/p.mp4", "y/p.mp4", "x/q.mp4", "y/q.mp4"))
    return _json(folder / "genai_video.json", {
        "p": {"prompt": PROMPTS[0], "models": {"x": [5, 4, 4], "y": [2, 3, 1]}},
        "q": {"prompt": PROMPTS[1], "models": {"x": [3, 3, 3], "y": [3, 2, 4]}},
    })  # fmt: skip


def _videofeedback(folder: Path) -> Path:
    clips(folder, ("videos/100.mp4", "videos/101.mp4", "videos/102.mp4", "videos/103.mp4"))
    rows = [
        {"id": str(100 + i), "images": ["a.jpg"], "text prompt": PROMPTS[i // 2], "video link": "https://host/x.mp4",
         "visual quality": 4 - 2 * (i % 2) if i < 2 else 3, "temporal consistency": 2, "dynamic degree": 1 + i,
         "text-to-video alignment": 3, "factual consistency": 1, "conversations": [{"from": "human"}]}
        for i in range(4)
    ]  # fmt: skip
    return _json(folder / "set.json", rows)


def _fetv(folder: Path) -> Path:
    clips(folder)
    rows = [
        {"file_name": f"{i}.mp4", "prompt": PROMPTS[i // 2], "model": "xy"[i % 2],
         "static_quality": (4.33, 2.0, 3.0, 3.0)[i], "temporal_quality": 3.0}
        for i in range(4)
    ]  # fmt: skip
    return _csv(folder / "ratings.csv", rows)


def _mos(folder: Path) -> Path:
    """KoNViD and LSVQ: no line of names, and no prompts."""
    clips(folder)
    (folder / "set.csv").write_text("".join(f"{i}.mp4, 0, 0, {4.5 - i}\n" for i in range(4)))
    return folder / "set.csv"


def _t2vqa(folder: Path) -> Path:
    clips(folder)
    lines = [f"{i}.mp4|{PROMPTS[i // 2]}, really|{(72.5, 40, 50, 50)[i]}\n" for i in range(4)]
    (folder / "info.txt").write_text("".join(lines))
    return folder / "info.txt"


PAIRS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "videogen-rewardbench": (_videogen, "Overall"), "genai-bench": (_genai_bench, "vote_type"),
    "visionreward": (_visionreward, "standard_answer"), "mj-bench-video": (_mj_bench, "overall_preference"),
    "uve": (_uve, "dynamics"), "rapidata": (_rapidata, "Preference"), "pairs": (_pairs, "verdict"),
    "folder": (_folder, "quality"),
}  # fmt: skip
"""Each with a dimension in which the first pair's first clip is better, and the second pair is a tie."""
ONE_SIDED: dict[str, tuple[Callable[[Path], Path], str]] = {"videodpo": (_videodpo, "verdict")}
"""The first clip is better in both pairs."""
RATED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "genai-bench-video": (_genai_bench_video, "rating"), "videofeedback": (_videofeedback, "visual quality"),
    "fetv": (_fetv, "static_quality"), "t2vqa-db": (_t2vqa, "mos"),
}  # fmt: skip
"""Each with a dimension in which the first two clips say what the pairs above say, and so do the last two."""
UNPROMPTED: dict[str, tuple[Callable[[Path], Path], str]] = {"mos": (_mos, "mos")}

OPTIONS: dict[str, list[str]] = {
    "uve": ["--word", "tie=same quality,same bad"],
    "folder": [
        "--column", "prompt=caption", "--column", "first=left", "--column", "second=right", "--column",
        "verdict=quality", "--word", "first=L", "--word", "second=R", "--word", "tie=equal",
    ],
}  # fmt: skip
