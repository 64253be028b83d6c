"""The embedded model's demo on the card and on the processor: the same recipe, its seconds and its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.gpu_day.crew import ROOT
from benchmarks.gpu_day.protocol import Options

THREADS = 4
WHERE = {"card": {}, "processor": {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(THREADS)}}
QUICK = (
    "batch_size=1", "evaluation.num_prompts=1", "sampling.steps=2", "method.num_candidates=6",
    "selection.num_prompts=1", "selection.strengths=[0.6, 1.0]",
)  # fmt: skip
SMALL = ["--steps", "1", *(part for text in QUICK for part in ("--set", text))]


def cases(options: Options) -> dict[str, float]:
    """The processor's run is a part of its own, beside others that leave the processor alone."""
    return {os.environ.get("GPU_DAY_WHERE", "card"): 400.0}


def run(case: str, options: Options) -> dict[str, Any]:
    """The run's summary: its table before and after, its changes with their intervals, its seconds."""
    folder = options.scratch / "demo" / case
    command = [
        sys.executable, "-m", "vpo_kit", "train", "--method", "online", "--reward", "vqa", "--output", str(folder),
        *(SMALL if options.rehearse else []),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **WHERE[case]}, check=False)
    if done.returncode:
        raise RuntimeError(f"vpo train ended with code {done.returncode}")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    keep = ("method", "reward", "steps", "seconds", "before", "after", "changes", "health")
    threads = {"threads": THREADS} if case == "processor" else {}
    return {**threads, **{key: summary[key] for key in keep if key in summary}}
