"""Foreign sets, imported and trained on by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import foreign
from tests.support.places import ROOT
from vpo_kit.cli import main

SHARED = ROOT.parent / "shared/data"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def import_set(source: Path, name: str, output: Path, *more: object) -> int:
    return run("pair", "import", source, "--format", name, "--output", output, *foreign.OPTIONS.get(name, []), *more)


def train(source: Path, model: Path, output: Path, *more: str) -> int:
    small = ["batch_size=2", "evaluation.num_prompts=0", "validation.share=0", *more]
    options = [part for text in small for part in ("--set", text)]
    return run("train", "--method", "dpo", "--model", model, "--pairs", source, "--output", output, "--steps", 2,
               *options)  # fmt: skip
