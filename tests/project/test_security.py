"""Nothing that the tool reads can run code, leave its folder, or speak in a page: with bombs planted everywhere.

That servers want their token is tested in test_remote.py and test_people.py, escaping in the pages of pair sets and of
comparisons in test_pair_tools.py and test_compare.py, paths in a listing of pairs in test_pair_tools.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.offline_run import make_set
from vpo_kit import config, models
from vpo_kit.clips import read_folder
from vpo_kit.config import Lora
from vpo_kit.errors import CheckpointError, VpoError
from vpo_kit.models.settings import Settings
from vpo_kit.pairing import store
from vpo_kit.prompts import read_prompts
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.parts.weights import read_state
from vpo_kit.training import checkpoints, initial
from vpo_kit.training.checkpoints import Checkpoint
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.video import write_video


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The file that a bomb would make; it must not be there when the test ends."""
    path = tmp_path / "exploded"
    yield path
    assert not path.exists(), "a pickle was run"


def charges(marker: Path) -> dict[str, bytes]:
    """The bomb in each form in which it may lie in a file."""
    found = {"plain": pickle.dumps(Bomb(marker))}
    for name, zipped in (("zip", True), ("legacy", False)):
        stream = io.BytesIO()
        content = {"state_dict": {"w": torch.ones(2)}, "bomb": Bomb(marker)}
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        found[name] = stream.getvalue()
    return found


def test_the_bombs_work(tmp_path: Path) -> None:
    marker = tmp_path / "exploded"
    for form, charge in charges(marker).items():
        if form == "plain":
            pickle.loads(charge)
        else:
            torch.load(io.BytesIO(charge), weights_only=False)
        assert marker.exists()
        marker.unlink()


FORMS = ("plain", "zip", "legacy")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_weights_of_judges(marker: Path, tmp_path: Path, form: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(charges(marker)[form])
    with pytest.raises(VpoError):
        read_state(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reward", ["vqa", "clip", "fastvqa", "dover", "viclip"])
def test_rewards(marker: Path, tmp_path: Path, form: str, reward: str) -> None:
    """The file that each reward is given by its setting ``weights``."""
    path = tmp_path / "weights.pt"
    path.write_bytes(charges(marker)[form])
    plans = rewards.plan(reward, {"weights": str(path)})
    with pytest.raises(VpoError):
        rewards.load(plans, torch.device("cpu"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reward", ["pickscore", "videoscore", "videoreward"])
def test_rewards_in_folders(marker: Path, tmp_path: Path, form: str, reward: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("pytorch_model.bin", "model.safetensors", "model.pth", "tokenizer.json", "config.json"):
        (folder / name).write_bytes(charges(marker)[form])
    (folder / "config.json").write_text('{"model_type": "clip"}')
    plans = rewards.plan(reward, {"weights": str(folder)})
    with pytest.raises(VpoError):
        rewards.load(plans, torch.device("cpu"))


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints(marker: Path, tmp_path: Path, form: str) -> None:
    """With a hash that fits, in each file in turn: the older checkpoint is used, and without one it is an error."""
    folder = tmp_path / "checkpoints"
    lora = {"a": torch.ones(2)}
    for step in (1, 2):
        checkpoints.save(
            folder,
            Checkpoint(
                step=step,
                policy=lora,
                reference=lora,
                method={"m": lora["a"]},
                optimiser={"state": {}},
                best={"b": lora["a"]},
            ),
            3,
        )
    newest = folder / "step-000002"
    names = [path.name for path in newest.iterdir()]
    assert {"optimiser.pt", "lora.safetensors", "reference.safetensors", "method.safetensors"} < set(names)
    shutil.copytree(newest, tmp_path / "sound")
    for name in names:
        shutil.rmtree(newest)
        shutil.copytree(tmp_path / "sound", newest)
        (newest / name).write_bytes(charges(marker)[form])
        if name != "state.json":
            state = json.loads((newest / "state.json").read_text())
            state["sha256"][name] = hashlib.sha256((newest / name).read_bytes()).hexdigest()
            (newest / "state.json").write_text(json.dumps(state))
        found = checkpoints.latest(folder)
        assert found is not None
        assert (found[0].step, len(found[1])) == (1, 1)
    shutil.rmtree(folder / "step-000001")
    with pytest.raises(CheckpointError, match="--overwrite"):
        checkpoints.latest(folder)


@pytest.mark.parametrize("form", FORMS)
def test_loras(marker: Path, tmp_path: Path, tiny_wan: Path, form: str) -> None:
    model = models.load(str(tiny_wan))
    for name in ("pytorch_lora_weights.safetensors", "lora.bin", "lora.pt", "lora.ckpt"):
        path = tmp_path / name
        path.write_bytes(charges(marker)[form])
        with pytest.raises(VpoError):
            initial.read(model, path)
    folder = tmp_path / "folder"  # the safetensors is damaged, and a pickle lies beside it
    folder.mkdir()
    for name in ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"):
        (folder / name).write_bytes(charges(marker)[form])
    with pytest.raises(VpoError):
        initial.read(model, folder)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_model_folders(marker: Path, tmp_path: Path, tiny_wan: Path, part: str) -> None:
    """A pickle beside the safetensors is not looked at; in their place it is refused."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_wan, folder)
    weights = next((folder / part).glob("*.safetensors"))
    charge = charges(marker)["zip"]
    for name in ("diffusion_pytorch_model.bin", "pytorch_model.bin", "model.pt", "flax_model.msgpack"):
        (folder / part / name).write_bytes(charge)
    for name in ("pipeline.py", f"{part}/modeling.py"):
        (folder / name).write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    models.load(str(folder))
    weights.write_bytes(charge)
    with pytest.raises(VpoError):
        models.load(str(folder))
    weights.unlink()
    with pytest.raises(VpoError):
        models.load(str(folder))


def test_pair_sets(marker: Path, tmp_path: Path) -> None:
    path = make_set(tmp_path / "set", shape=(2, 3, 2, 2), count=2)
    for charge in charges(marker).values():
        (path / "latents/0.safetensors").write_bytes(charge)
        with pytest.raises(VpoError):
            store.read_latents(path / "latents/0.safetensors")


TAGS = ("!!python/object/apply:pathlib.Path.touch [{}]", "!!python/object/apply:os.system ['touch {}']")


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_tags(marker: Path, tmp_path: Path, tag: str) -> None:
    """Recipes, ``--set`` and the facts of a set are plain data."""
    text = tag.format(marker)
    (tmp_path / "recipe.yaml").write_text(f"prompts: {text}\n")
    path = make_set(tmp_path / "set", shape=(2, 3, 2, 2), count=1)
    (path / "dataset.yaml").write_text(f"model: {text}\n")
    reads: list[Callable[[], object]] = [
        lambda: config.read_file(tmp_path / "recipe.yaml"),
        lambda: config.read_assignments([f"prompts={text}"]),
        lambda: store.read(path),
    ]
    for read in reads:
        with pytest.raises(VpoError):
            read()


def test_text_files(marker: Path, tmp_path: Path) -> None:
    """A pickle in place of text is not text."""
    for charge in charges(marker).values():
        path = tmp_path / "file"
        path.write_bytes(charge)
        for read in (read_prompts, config.read_file):
            with pytest.raises(VpoError):
                read(path)


def test_results(marker: Path, tmp_path: Path) -> None:
    from vpo_kit.evaluation.eval_folder import EvalFolder
    from vpo_kit.evaluation.features import kept
    from vpo_kit.evaluation.samples import Results

    for charge in charges(marker).values():
        for name in ("metrics.json", "settings.json", "features.safetensors"):
            (tmp_path / name).write_bytes(charge)
        reads: list[Callable[[], object]] = [
            lambda: Results.load(tmp_path),
            lambda: EvalFolder(tmp_path).begun({}),
            lambda: kept(tmp_path / "features.safetensors", lambda: torch.ones(1)),
        ]
        for read in reads:
            with pytest.raises(VpoError):
                read()


# -- paths


@pytest.mark.parametrize(
    "name", ["../outside.mp4", "a/../../outside.mp4", "{}/outside.mp4", "link.mp4", "out/outside.mp4"]
)
def test_a_listing_of_clips_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    """Not by its words, not by a link: the clip outside would read."""
    write_video(tmp_path / "outside.mp4", torch.rand(9, 3, 16, 16), 8)
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (folder / "out").symlink_to(tmp_path)
    write_video(folder / "own.mp4", torch.rand(9, 3, 16, 16), 8)
    rows = [{"file_name": name.format(tmp_path), "text": "a dog"}, {"file_name": "own.mp4", "text": "a cat"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_folder(folder, Settings(frames=9, height=16, width=16, fps=8, steps=1, guidance=1))
    assert [clip.path.name for clip in found.clips] == ["own.mp4"]
    assert "lies outside" in found.skipped[0]


@pytest.mark.parametrize("name", ["../../secret.mp4", "/etc/passwd", "a/b.mp4", "..", ""])
def test_videos_of_an_evaluation_are_in_its_folder(tmp_path: Path, name: str) -> None:
    """What a foreign ``metrics.json`` names would be linked from a page, and copied for VBench."""
    from vpo_kit.errors import DataError
    from vpo_kit.evaluation.samples import Results

    Results(name="base", prompts=["a"], groups=[0], files=[name], metrics={"vqa": [1.0]}).save(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        Results.load(tmp_path)


# -- pages


class Page(HTMLParser):
    """The tags of a page, and its text as a browser shows it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = """a dog</title></script><script>alert("evil-1")</script> "onmouseover='alert(2)' <img src=x onerror=evil-3>"""


def test_the_page_of_a_run_shows_prompts_as_text(tiny_wan: Path, tmp_path: Path) -> None:
    """A whole run on prompts, and in a folder, that want to be markup."""
    from vpo_kit.cli.train import train

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\nanother cat\n")
    held_out = tmp_path / "held_out.txt"
    held_out.write_text(f"{EVIL}\nanother dog\n")
    output = tmp_path / "<img src=x onerror=evil-4>"
    values = ["evaluation.num_prompts=2", f"evaluation.prompts={held_out}", "batch_size=2", "validation.share=0",
              "evaluation.judges=[vqa]", "lora.rank=2"]  # fmt: skip
    train("vader", model=str(tiny_wan), output=output, steps=1, prompts=prompts, set_=values)
    source = (output / "report.html").read_text()
    page = Page(source)
    data = source.split('id="data">')[1].split("</script>")[0]
    assert [EVIL, "000-0.mp4"] in json.loads(data)["clips"]
    assert "onerror=evil-4" in page.text
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") and "evil" in str(value) for name, value in attributes.items())
        assert (tag, attributes.get("src")) != ("img", "x")
    assert "<script>alert(" not in source
    card = (output / "lora" / "README.md").read_text()
    assert "<script>alert(" not in card


def test_lora_export_is_no_pickle(tiny_wan: Path, tmp_path: Path) -> None:
    model = models.load(str(tiny_wan))
    LoraPolicy(model, Lora(rank=2, alpha=2), seed=0).export(tmp_path / "lora")
    assert [path.suffix for path in (tmp_path / "lora").iterdir()] == [".safetensors"]
