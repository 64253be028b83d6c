"""Power cuts at each write: what is on the disk then is gone on with, and ends as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file

from tests.conftest import PROMPTS
from tests.support.power import Cuts
from vpo_kit import compare, evaluate, files, make_pairs, models, train
from vpo_kit.comparison import runner
from vpo_kit.config import Lora
from vpo_kit.errors import VpoError
from vpo_kit.labelling.answers import FOLDER
from vpo_kit.training.lora import LoraPolicy

OWN = {
    "summary.json", "report.html", "results.json", "results.csv", "results.md", "results.tex", "attempts.jsonl",
    "config.yaml", ".lock",
}  # fmt: skip
"""Files in which times stand, or where they lie."""
Make = Callable[[Path], object]


@pytest.fixture
def made(tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Make]:
    """What is made and gone on with by the same call, in a folder that is given."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:3]))
    (tmp_path / "held.txt").write_text(PROMPTS[3])
    lora = tmp_path / "pytorch_lora_weights.safetensors"
    policy = LoraPolicy(models.load(str(tiny_wan)), Lora(rank=2, alpha=2), seed=0)
    policy.export(lora.parent)
    model = str(tiny_wan)
    evaluation = {"prompts": tmp_path / "held.txt", "num_prompts": 1, "judges": []}

    def run(folder: Path) -> object:
        return train(
            "online", model=model, reward="vqa", output=folder, steps=3, resume=True, quiet=True, seed=0, batch_size=1,
            prompts=tmp_path / "prompts.txt", evaluation=evaluation, selection={"strengths": []},
            sampling={"steps": 2}, checkpoints={"every": 1, "keep": 2}, lora={"rank": 2},
        )  # fmt: skip

    def pairs(folder: Path) -> object:
        settings = {"sampling": {"batch_size": 2, "steps": 1}}
        return make_pairs(
            folder, prompts=tmp_path / "prompts.txt", model=model, label="reward:vqa", quiet=True, **settings
        )

    def measured(folder: Path) -> object:
        asked = {"model": model, "prompts": tmp_path / "held.txt", "sampling": {"steps": 1, "batch_size": 1}}
        return evaluate(lora, folder, reward="vqa", quiet=True, **asked)

    def board(folder: Path) -> object:
        sizes = ["sampling.steps=1", "batch_size=1", "lora.rank=2", "evaluation.judges=[]", "evaluation.num_prompts=1"]
        names = [f"evaluation.prompts={tmp_path / 'held.txt'}", "selection.strengths=[]", "checkpoints.every=1"]
        return compare(
            folder, "online", prompts=tmp_path / "prompts.txt", model=model, seeds=1, budget="optimiser_steps=2",
            assignments=[*sizes, *names, "evaluation.best_of=0"], quiet=True,
        )  # fmt: skip

    monkeypatch.setattr(runner, "_process", here)
    monkeypatch.setattr(runner, "_ended", lambda process, wait=False: getrusage(RUSAGE_SELF))
    return {"run": run, "pairs": pairs, "evaluation": measured, "board": board}


@contextmanager
def here(path: Path, lock: int) -> Iterator[SimpleNamespace]:
    """A run of a comparison in this process, where its writes are seen."""
    train(config=path / "config.yaml", output=path, resume=True, quiet=True)
    yield SimpleNamespace(poll=lambda: 0, returncode=0)


def contents(folder: Path) -> dict[str, object]:
    """The bytes of all files; of tensors themselves, as their file names its metadata in no order. A board's base is
    measured and not trained to its end: what else its run has left does not count.
    """
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and FOLDER not in p.parts and p.name not in OWN]
    found = [path for path in found if path.relative_to(folder).parts[0] != "base"]
    return {path.relative_to(folder).as_posix(): _held(path) for path in found}


def _held(path: Path) -> object:
    if path.suffix == ".safetensors":
        with suppress(SafetensorError):
            return {name: (value.shape, value.numpy().tobytes()) for name, value in load_file(path).items()}
    return path.read_bytes()


def states(make: Make, tmp_path: Path) -> list[Path]:
    """What power cuts leave of `make`, which ends undisturbed in ``whole``."""
    cuts = Cuts(tmp_path / "whole", tmp_path / "cuts")
    with cuts.watched():
        make(tmp_path / "whole")
    return cuts.states


def wrong(make: Make, tmp_path: Path, found: Sequence[Path]) -> list[str]:
    """The states from which `make` does not end as it does undisturbed."""
    whole, lines = contents(tmp_path / "whole"), []
    for state in found:
        try:
            make(state)
        except VpoError as error:
            lines.append(f"{state.name}: {error}")
            continue
        now = contents(state)
        if other := sorted(name for name in now.keys() | whole.keys() if now.get(name) != whole.get(name)):
            lines.append(f"{state.name}: {other}")
    return lines


KINDS = ["pairs", "run", "evaluation", "board"]


@pytest.mark.parametrize(
    "kind", ["pairs", "run", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("evaluation", "board"))]
)
def test_some_cuts(made: dict[str, Make], tmp_path: Path, kind: str) -> None:
    found = states(made[kind], tmp_path)
    assert len(found) > 20
    assert wrong(made[kind], tmp_path, found[:: len(found) // 3]) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_cut(made: dict[str, Make], tmp_path: Path, kind: str) -> None:
    assert wrong(made[kind], tmp_path, states(made[kind], tmp_path)) == []


def test_what_is_not_synced_is_found(made: dict[str, Make], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a checkpoint gets its name before its files are on the disk, some run loses it or cannot be read."""
    monkeypatch.setattr(files, "_sync_all", lambda path: files.sync_folder(path.parent))
    found = states(made["run"], tmp_path)
    assert [state for state in found if (state / "config.yaml").is_file() and not (state / "config.yaml").read_text()]
