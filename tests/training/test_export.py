"""Exports: read by diffusers alone they give the run's own output, and a copy that does not is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.commands import fails, main_ok
from vpo_kit import config, models
from vpo_kit.config import Lora
from vpo_kit.errors import ModelError, OutputError
from vpo_kit.folders import EMBEDDED
from vpo_kit.library import export as exporting
from vpo_kit.models.base import VideoModel
from vpo_kit.testing.families import FAMILIES
from vpo_kit.training import export
from vpo_kit.training.comfyui import convert
from vpo_kit.training.export import probe
from vpo_kit.training.lora import WEIGHTS_NAME, LoraPolicy

FORMATS = ["diffusers", "comfyui", "merged"]
RANK, ALPHA = 2, 3.0  # a scale that is no power of two


@dataclass(frozen=True)
class Made:
    """A run folder of one family, as `vpo train` leaves it: settings and a LoRA that does something."""

    run: Path
    model: Path
    output: Tensor
    state: dict[str, Tensor]


def make(root: Path, model: Path, by: float = 0.05, **settings: Any) -> Made:
    loaded = models.load(str(model))
    policy = LoraPolicy(loaded, Lora(rank=RANK, alpha=ALPHA, **settings), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    root.mkdir()
    policy.export(root / "lora")
    (root / "lora" / "README.md").write_text("a card")
    (root / "config.yaml").write_text(config.dump(config.build({"model": str(model)})))
    return Made(root, model, probe(loaded), policy.state())


@pytest.fixture(scope="module")
def made(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Runs of some families, each made once."""
    root, known = tmp_path_factory.mktemp("exports"), dict[str, Made]()

    def get(name: str) -> Made:
        if name not in known:
            folder = tiny_wan
            if name != "wan":
                torch.manual_seed(0)
                folder = root / f"{name}-model"
                FAMILIES[name].build().save_pretrained(folder, safe_serialization=True)
            known[name] = make(root / name, folder)
        return known[name]

    return get


def in_diffusers(made: Made, folder: Path | None = None) -> VideoModel:
    """Diffusers' own pipeline, freshly loaded, behind our adapter: only what `probe` needs of ours."""
    index = json.loads((made.model / "model_index.json").read_text())
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(folder or made.model)
    return type(models.load(str(made.model)))(pipeline, None, "plain")


def nothing_left(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.name != "run"]


@pytest.mark.parametrize("family", ["wan", "wan2.1-i2v", "ltx", "ltx-i2v"])
def test_comfyui_file_in_diffusers_alone(made: Callable[[str], Made], family: str, tmp_path: Path) -> None:
    """Alpha included: the file has none, and diffusers and ComfyUI then apply it at scale 1."""
    run = made(family)
    exporting.export(run.run, "comfyui", tmp_path / "own.safetensors", None, None)
    state = load_file(tmp_path / "own.safetensors")
    assert all(key.startswith("diffusion_model.") and key.endswith(".weight") for key in state)
    assert len(state) == len(run.state)
    plain = in_diffusers(run)
    base = probe(plain)
    plain.pipeline.load_lora_weights(str(tmp_path), weight_name="own.safetensors")
    torch.testing.assert_close(probe(plain), run.output, atol=1e-5, rtol=1e-5)
    assert float((run.output - base).abs().max()) > 1e-2


def test_comfyui_names_of_wan(tmp_path: Path) -> None:
    """The names in the published weights, written out, for every layer of a block that can carry a LoRA."""
    names = {"ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2"}
    for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn")):
        for layer in "qkv":
            names[f"{ours}.to_{layer}"] = f"{theirs}.{layer}"
        names[f"{ours}.to_out.0"] = f"{theirs}.o"
    state = {f"blocks.11.{name}.lora_{f}.weight": torch.randn(3, 3) for name in names for f in "AB"}
    found = convert("WanPipeline", state, 1.5)
    assert len(found) == len(state) == 20
    for ours, theirs in names.items():
        down, up = (found[f"diffusion_model.blocks.11.{theirs}.lora_{f}.weight"] for f in "AB")
        expected = 1.5 * state[f"blocks.11.{ours}.lora_B.weight"] @ state[f"blocks.11.{ours}.lora_A.weight"]
        torch.testing.assert_close(up @ down, expected)
    with pytest.raises(ModelError, match=r"layer proj_out of WanPipeline has no known name in ComfyUI"):
        convert("WanPipeline", {"proj_out.lora_A.weight": torch.ones(1, 1)}, 1.0)


def test_every_layer_of_a_block_goes_to_comfyui(tiny_wan: Path, tmp_path: Path) -> None:
    run = make(tmp_path / "run", tiny_wan, targets=["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"])
    exporting.export(run.run, "comfyui", tmp_path / "own.safetensors", None, None)
    plain = in_diffusers(run)
    plain.pipeline.load_lora_weights(str(tmp_path), weight_name="own.safetensors")
    torch.testing.assert_close(probe(plain), run.output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["wan", "ltx", "modelscope"])
def test_merged_folder_in_diffusers_alone(made: Callable[[str], Made], family: str, tmp_path: Path) -> None:
    run, folder = made(family), tmp_path / "merged"
    exporting.export(run.run, "merged", folder, None, None)
    torch.testing.assert_close(probe(in_diffusers(run, folder)), run.output, atol=1e-5, rtol=1e-5)
    assert not list(folder.rglob("*.bin"))
    network = models.load(str(folder)).network_name
    files = [path.relative_to(run.model) for path in run.model.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    changed = [path for path in files if (folder / path).read_bytes() != (run.model / path).read_bytes()]
    assert changed == [Path(network) / "diffusion_pytorch_model.safetensors"]  # to the byte


def test_merged_folder_gives_the_same_video(made: Callable[[str], Made], tmp_path: Path) -> None:
    """Through the pipeline's own ``__call__``, against the pipeline with the LoRA beside the weights."""
    run = made("wan")
    exporting.export(run.run, "merged", tmp_path / "merged", None, None)
    beside = diffusers.WanPipeline.from_pretrained(run.model)
    beside.load_lora_weights(str(run.run / "lora"))
    videos = []
    for pipeline in (beside, diffusers.WanPipeline.from_pretrained(tmp_path / "merged")):
        pipeline.set_progress_bar_config(disable=True)
        noise = torch.randn(1, 8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        videos.append(
            pipeline(
                "a red circle", negative_prompt="", latents=noise, num_inference_steps=2, output_type="pt",
                num_frames=9, height=32, width=32, max_sequence_length=16,
            ).frames
        )  # fmt: skip
    assert float((videos[0] - videos[1]).abs().max()) < 1e-4


def test_diffusers_folder(made: Callable[[str], Made], tmp_path: Path) -> None:
    run = made("wan")
    exporting.export(run.run / "lora", "diffusers", tmp_path / "own", str(run.model), None)
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["README.md", WEIGHTS_NAME]
    plain = in_diffusers(run)
    plain.pipeline.load_lora_weights(str(tmp_path / "own"))
    torch.testing.assert_close(probe(plain), run.output, atol=1e-5, rtol=1e-5)


def halve(file: Path) -> None:
    """One layer's B factor, or one weight of the network that carries the LoRA."""
    state = load_file(file)
    key = sorted(key for key in state if "attn2" in key or "cross_attn" in key if "lora_A" not in key)[-1]
    save_file({**state, key: state[key] * 0.5}, file, metadata=read_metadata(file))


def drop(file: Path) -> None:
    state = load_file(file)
    key = sorted(key for key in state if "lora_A" not in key)[0]
    gone = {key, key.replace("lora_B", "lora_A")}
    save_file({k: v for k, v in state.items() if k not in gone}, file, metadata=read_metadata(file))


def poison(file: Path) -> None:
    state = load_file(file)
    key = max(state)
    save_file({**state, key: state[key] * float("nan")}, file, metadata=read_metadata(file))


def read_metadata(file: Path) -> dict[str, str]:
    size = int.from_bytes(file.read_bytes()[:8], "little")
    return dict(json.loads(file.read_bytes()[8 : 8 + size])["__metadata__"])


def damage(monkeypatch: pytest.MonkeyPatch, form: str, how: Callable[[Path], None]) -> None:
    """What is written is damaged on the disk, between writing and the check."""
    write = exporting._write

    def damaged(source: Any, form: Any, target: Path) -> Any:
        found = write(source, form, target)
        file = {"comfyui": target, "diffusers": target / WEIGHTS_NAME}.get(form)
        how(file or target / "transformer" / "diffusion_pytorch_model.safetensors")
        return found

    monkeypatch.setattr(exporting, "_write", damaged)


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning")  # diffusers sees the gap too
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("how", "dtype"), [(halve, "float32"), (halve, "bfloat16"), (drop, "float32"), (poison, "float32")]
)
def test_a_mismatch_is_refused(
    made: Callable[[str], Made], form: Any, how: Callable[[Path], None], dtype: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also in bfloat16, where the output alone would not show a lost layer."""
    damage(monkeypatch, form, how)
    with pytest.raises(ModelError) as caught:
        exporting.export(made("wan").run, form, tmp_path / "own.safetensors", None, dtype)
    assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path), str(caught.value)
    if how is drop:
        assert "1 unmatched and 0 wrong" in str(caught.value)
    if how is halve:
        assert "0 unmatched and 1 wrong" in str(caught.value)


def test_a_lost_alpha_is_refused(made: Callable[[str], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(file: Path) -> None:
        save_file(load_file(file), file, metadata={"format": "pt"})

    damage(monkeypatch, "diffusers", forget)
    with pytest.raises(ModelError, match="0 unmatched and 16 wrong"):
        exporting.export(made("wan").run, "diffusers", tmp_path / "own", None, None)
    assert nothing_left(tmp_path)


def test_a_lora_that_rounding_takes_away_is_refused(tiny_wan: Path, tmp_path: Path) -> None:
    """Too small for the last digits of bfloat16 weights; the output alone would not show it."""
    run = make(tmp_path / "run", tiny_wan, by=1e-4)
    with pytest.raises(ModelError, match=r"% of the LoRA left.*give --dtype float32"):
        exporting.export(run.run, "merged", tmp_path / "merged", None, "bfloat16")
    assert nothing_left(tmp_path)
    exporting.export(run.run, "merged", tmp_path / "merged", None, "float32")


def test_the_rounding_of_a_merged_weight() -> None:
    """Its bound by hand: the last digit of bfloat16 at ``|W| + |B||A|``, both 1 here."""
    lora = export.Start(
        {"l.lora_A.weight": torch.tensor([[1.0]]), "l.lora_B.weight": torch.tensor([[2.0]])}, 1, 0.5, []
    )
    assert float(export._delta(lora, "l")) == 1.0
    one = torch.ones(1, 1, dtype=torch.bfloat16)
    assert float(export._rounding(one, torch.bfloat16, lora, "l")) == pytest.approx(2 * (2**-7 + 1e-5))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_cannot_be_done_is_one_line(
    made: Callable[[str], Made], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, own = made("wan"), tmp_path / "own.safetensors"
    for arguments, code, message in (
        (["export", made("modelscope").run, "--format", "comfyui", "--output", own], 1, "has no ComfyUI form"),
        (["export", run.run, "--format", "comfyui", "--output", tmp_path / "own"], 2, "call it own.safetensors"),
        (["export", run.run, "--output", run.run], 1, "exists: give another --output"),
        (["export", run.run / "lora", "--output", own], 2, "say what model the LoRA is for with --model"),
        (["export", tmp_path, "--output", own], 1, "holds no LoRA"),
        (["export", run.run, "--output", own, "--model", made("ltx").model], 1, "is the LoRA of another model"),
        (["export", run.run, "--output", "/proc/own"], 1, "cannot write"),
    ):
        found, shown = fails(capsys, *arguments)
        assert (found, message in shown, shown.count("\n")) == (code, True, 1), shown
        assert nothing_left(tmp_path)


def test_a_full_disk_leaves_nothing(
    made: Callable[[str], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OutputError, match="No space left on device"):
        exporting.export(made("wan").run, "merged", tmp_path / "merged", None, None)
    assert nothing_left(tmp_path)


def test_export_and_sample(made: Callable[[str], Made], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command, and what it wrote as the model of another command, at the sizes of the old one."""
    (tmp_path / ".merged.part").mkdir()  # of a command that was killed
    main_ok(["export", made("wan").run, "--format", "merged", "--output", tmp_path / "merged"])
    assert "of 69 weights 0 unmatched and 0 wrong, 100.0% of the LoRA left" in " ".join(capsys.readouterr().out.split())
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    main_ok(["sample", "--model", tmp_path / "merged", "--prompt", "a red circle", "--output", tmp_path / "out"])
    assert (tmp_path / "out" / "000-0.mp4").is_file()


def test_push_takes_the_lora_and_its_card(
    made: Callable[[str], Made], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[dict[str, Any]] = []
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, name, **facts: pushed.append(facts) or name)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.upload_folder",
        lambda self, **facts: pushed.append({**facts, "files": {path.name for path in facts["folder_path"].iterdir()}}),
    )
    main_ok(["export", made("wan").run, "--output", tmp_path / "quiet"])
    assert not pushed
    main_ok(["export", made("wan").run, "--output", tmp_path / "lora", "--push-to-hub", "me/mine"])
    assert "pushed: me/mine" in capsys.readouterr().out
    created, sent = pushed
    assert (created["private"], created["repo_type"], sent["repo_type"]) == (True, "model", "model")
    assert sent["files"] == {"README.md", "pytorch_lora_weights.safetensors"}
    comfyui = ["export", made("wan").run, "--format", "comfyui", "--output", tmp_path / "one.safetensors"]
    for command, words in (
        ([*comfyui, "--push-to-hub", "me/mine"], "takes a folder"),
        (["export", made("wan").run, "--output", tmp_path / "new", "--push-to-hub", "a b"], "--push-to-hub a b"),
    ):
        code, line = fails(capsys, *command)
        assert (code, words in line) == (2, True), line
    assert not (tmp_path / "one.safetensors").exists()
    assert not (tmp_path / "new").exists()
    assert len(pushed) == 2


def test_weights_under_another_name(made: Callable[[str], Made], tmp_path: Path) -> None:
    """`variant`: what diffusers writes and reads as such, from a run to its merged copy."""
    plain, half = made("wan"), tmp_path / "half"
    diffusers.DiffusionPipeline.from_pretrained(plain.model).save_pretrained(half, variant="fp16")
    assert (half / "transformer" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    with pytest.raises(ModelError, match=r"no weights of the usual names: set variant .*\(variant=fp16\)"):
        models.load(str(half))
    with pytest.raises(ModelError, match=r"has no ema weights: set variant .*\(variant=fp16\)"):
        models.load(str(half), variant="ema")
    with pytest.raises(ModelError, match=r"has no fp16 weights: set variant .*\(none\)"):
        models.load(str(plain.model), variant="fp16")
    shutil.copytree(EMBEDDED["sprites"] / "preview_decoder", half / "preview_decoder")
    (half / "recipe.yaml").write_text("all: {source: found here, values: {batch_size: 3}}\n")
    run = shutil.copytree(plain.run, tmp_path / "run")
    (run / "config.yaml").write_text(config.dump(config.build({"model": str(half), "variant": "fp16"})))
    main_ok(["export", run, "--format", "merged", "--output", tmp_path / "merged"])
    assert (tmp_path / "merged" / "transformer" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    for name in ("recipe.yaml", "preview_decoder/model.safetensors"):  # what is known of the model holds for the copy
        assert (tmp_path / "merged" / name).read_bytes() == (half / name).read_bytes()
    copy = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "merged", variant="fp16")
    torch.testing.assert_close(probe(type(models.load(str(plain.model)))(copy, None, "plain")), plain.output)


def test_what_passes_for_a_copy() -> None:
    """Nothing unmatched, nothing wrong, the LoRA left, and a difference that is a number below its limit."""
    sound, one = export.Weights(0, 0, 16), torch.ones(2)
    assert export.check(sound, one, one + 0.9e-4, "float32").passed
    assert export.check(sound, one, one + 0.9e-2, "float16").passed
    assert export.check(export.Weights(0, 0, 16, 0.91), one, one, "float32").passed
    for weights in (export.Weights(1, 0, 16), export.Weights(0, 1, 16), export.Weights(0, 0, 16, 0.89)):
        assert not export.check(weights, one, one, "float32").passed
    for copy in (one + 1.1e-4, one * math.nan, torch.tensor([1.0, math.inf]), None):
        assert not export.check(sound, one, copy, "float32").passed


def test_a_copy_may_have_neither_fewer_layers_nor_more() -> None:
    names = [f"blocks.{i}.attn1.to_q.lora_{factor}.weight" for i in (0, 1) for factor in "AB"]
    state = {name: torch.full((2, 2), 0.5 + i) for i, name in enumerate(names)}
    whole = export.Start(state, 2, 4.0, ["to_q"])
    fewer = export.Start({name: value for name, value in state.items() if "blocks.0" in name}, 2, 4.0, ["to_q"])
    # as far as the weights go the factors may be scaled against each other, and alpha against both
    scaled = {name: value * (4 if "lora_A" in name else 0.5) for name, value in state.items()}
    half, twice = (export.Start(scaled, 2, alpha, ["to_q"]) for alpha in (2.0, 4.0))
    for ours, theirs, found in (
        (whole, whole, (0, 0)), (whole, fewer, (1, 0)), (fewer, whole, (1, 0)),
        (whole, half, (0, 0)), (whole, twice, (0, 2)),
    ):  # fmt: skip
        compared = export.compare_loras(ours, theirs)
        assert (compared.unmatched, compared.wrong) == found
