"""LoRAs of other programs: each of their forms gives what the same LoRA gives in diffusers' own, or is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.errors import ModelError
from vpo_kit.models.base import VideoModel
from vpo_kit.testing.families import FAMILIES
from vpo_kit.training import lora_forms, loras
from vpo_kit.training.export import probe
from vpo_kit.training.lora import WEIGHTS_NAME, LoraPolicy

RANK, ALPHA = 2, 3.0
State = dict[str, Tensor]
Write = Callable[[State, Path], Path]


def folder_of(family: str, root: Path) -> Path:
    torch.manual_seed(0)
    pipeline = FAMILIES[family].build()
    pipeline.save_pretrained(root / family, safe_serialization=True)
    return root / family


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoModel:
    """ModelScope: a UNet, whose kohya files diffusers reads in part."""
    return models.load(str(folder_of("modelscope", tmp_path_factory.mktemp("models"))))


@pytest.fixture(scope="module")
def lora(model: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State, Tensor]:
    """A LoRA that does something: its folder, its factors by layer in our names, and what the model gives with it."""
    policy = LoraPolicy(model, Lora(rank=RANK, alpha=ALPHA), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("lora")
    policy.export(folder)
    output, state = probe(model), policy.state()
    model.network.delete_adapters(["default"])
    return folder, state, output


def renamed(state: State, prefix: str, down: str, up: str, *, flat: bool = False) -> State:
    """The factors under the names of another program."""
    found = {}
    for key, value in state.items():
        layer, _, rest = key.partition(".lora_")
        layer = layer.replace(".", "_") if flat else layer
        found[f"{prefix}{layer}{down if rest.startswith('A') else up}"] = value
    return found


def alphas(state: State, ending: str) -> State:
    return {key.removesuffix(ending) + ".alpha": torch.tensor(ALPHA) for key in state if key.endswith(ending)}


def kohya(state: State, path: Path) -> Path:
    found = renamed(state, "lora_unet_", ".lora_down.weight", ".lora_up.weight", flat=True)
    save_file({**found, **alphas(found, ".lora_down.weight")}, path / "kohya.safetensors")
    return path / "kohya.safetensors"


def with_alpha(state: State, path: Path) -> Path:
    found = renamed(state, "unet.", ".lora_A.weight", ".lora_B.weight")
    save_file({**found, **alphas(found, ".lora_A.weight")}, path / "alpha.safetensors")
    return path / "alpha.safetensors"


def down_up(state: State, path: Path) -> Path:
    found = renamed(state, "unet.", ".lora_down.weight", ".lora_up.weight")
    save_file({**found, **alphas(found, ".lora_down.weight")}, path / "of_any_name.safetensors")
    return path  # a folder with one LoRA


def peft(state: State, path: Path) -> Path:
    found = renamed(state, "base_model.model.", ".lora_A.weight", ".lora_B.weight")
    save_file(found, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA, "use_dora": False}))
    return path


def processors(state: State, path: Path) -> Path:
    """diffusers before PEFT: ``attn1.processor.to_q_lora.down.weight``; it had no alpha but the rank."""
    found = {}
    for key, value in state.items():
        layer, _, rest = key.partition(".lora_")
        block, _, name = layer.removesuffix(".0").rpartition(".")
        side = "down" if rest.startswith("A") else "up"
        found[f"unet.{block}.processor.{name}_lora.{side}.weight"] = value * (1 if side == "down" else ALPHA / RANK)
    save_file(found, path / "old.safetensors")
    return path / "old.safetensors"


@pytest.mark.parametrize("write", [kohya, with_alpha, down_up, peft, processors], ids=lambda write: write.__name__)
def test_it_does_what_the_same_lora_does(
    model: VideoModel, lora: tuple[Path, State, Tensor], tmp_path: Path, write: Write
) -> None:
    _, state, expected = lora
    path, bare = write(state, tmp_path), probe(model)
    with loras.loaded(model, path):
        torch.testing.assert_close(probe(model), expected, atol=1e-5, rtol=1e-5)
        assert (bare - expected).abs().max() > 1e-3
    (file,) = loras.weights_of(path).values()
    assert lora_forms.count(file) == len(state) // 2


def test_a_file_of_diffusers_is_left_to_it(model: VideoModel, lora: tuple[Path, State, Tensor]) -> None:
    assert lora_forms.read(model, next(iter(model.networks)), lora[0] / WEIGHTS_NAME) is None
    with loras.loaded(model, lora[0]):
        torch.testing.assert_close(probe(model), lora[2])


class TestRefused:
    def refuse(self, model: VideoModel, path: Path) -> str:
        with pytest.raises(ModelError) as caught, loras.loaded(model, path):
            pass
        return str(caught.value)

    def test_a_layer_that_is_not_there(
        self, model: VideoModel, lora: tuple[Path, State, Tensor], tmp_path: Path
    ) -> None:
        file = kohya(lora[1], tmp_path)
        more = {f"lora_unet_elsewhere.lora_{side}.weight": torch.ones(2, 2) for side in ("down", "up")}
        save_file({**load_file(file), **more}, file)
        assert "elsewhere" in self.refuse(model, file)

    def test_another_size(self, model: VideoModel, lora: tuple[Path, State, Tensor], tmp_path: Path) -> None:
        found = {key: value.repeat(1, 2) if "lora_A" in key else value for key, value in lora[1].items()}
        assert "the LoRA of a model of another size" in self.refuse(model, kohya(found, tmp_path))

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"lora_unet_x.dora_scale": torch.ones(2)}, "not a plain LoRA: a DoRA (1 tensors"),
            ({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, "a LoHa"),
            ({f"lora_te_a.lora_{side}.weight": torch.ones(2, 2) for side in ("down", "up")}, "the text encoder"),
            ({"lora_unet_x.lora_down.weight": torch.ones(2, 2)}, "only one factor of lora_unet_x"),
        ],
        ids=["DoRA", "LoHa", "text encoder", "half"],
    )
    def test_what_is_no_plain_lora(
        self, model: VideoModel, lora: tuple[Path, State, Tensor], tmp_path: Path, more: State, said: str
    ) -> None:
        file = kohya(lora[1], tmp_path)
        save_file({**load_file(file), **more}, file)
        assert said in self.refuse(model, file)

    def test_two_files_in_a_folder(self, model: VideoModel, lora: tuple[Path, State, Tensor], tmp_path: Path) -> None:
        for write in (kohya, with_alpha):
            write(lora[1], tmp_path)
        assert "holds 2 files, alpha.safetensors and kohya.safetensors among them" in self.refuse(model, tmp_path)


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("blocks.0.self_attn.q", "diffusion_model.blocks.0.self_attn.q"),
        ("lora_unet_double_blocks_3_img_attn_qkv", "transformer.double_blocks.3.img_attn_qkv"),
        ("lora_unet_double_blocks_3_txt_mlp_fc1", "transformer.double_blocks.3.txt_mlp.fc1"),
        ("lora_unet_double_blocks_3_img_mod_linear", "transformer.double_blocks.3.img_mod.linear"),
        ("lora_unet_single_blocks_12_linear1", "transformer.single_blocks.12.linear1"),
        ("lora_unet_single_blocks_12_modulation_linear", "transformer.single_blocks.12.modulation.linear"),
    ],
)
def test_published_names(name: str, original: str) -> None:
    assert lora_forms._original(name) == original


def test_names_that_programs_decorate() -> None:
    layers = {"down.motion_modules.0.transformer_blocks.0.attn2.to_out.0": None, "blocks.1.attn.to_q": None}
    flat = {name.replace(".", "_"): name for name in layers}
    for name, place in (
        ("module.down.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_out",
         "down.motion_modules.0.transformer_blocks.0.attn2.to_out.0"),
        ("base_model.model.transformer.blocks.1.attn.to_q", "blocks.1.attn.to_q"),
        ("lora_transformer_blocks_1_attn_to_q", "blocks.1.attn.to_q"),
        ("blocks.2.attn.to_q", None),
    ):  # fmt: skip
        assert lora_forms._place(name, layers, flat, "transformer.") == place


@pytest.mark.parametrize(
    ("family", "name", "sides", "layers"),
    [
        ("hunyuan", "lora_unet_double_blocks_0_img_attn_qkv.lora_{}.weight", ("down", "up"),
         [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]),
        ("wan2.1", "blocks.0.self_attn.q.lora_{}.default.weight", ("A", "B"), ["blocks.0.attn1.to_q"]),
    ],
    ids=["musubi's Hunyuan", "DiffSynth's Wan"],
)  # fmt: skip
def test_names_of_published_networks_find_their_layers(
    family: str, name: str, sides: tuple[str, str], layers: list[str], tmp_path: Path
) -> None:
    model = models.load(str(folder_of(family, tmp_path)))
    out, width = dict(model.network.named_parameters())[f"{layers[0]}.weight"].shape
    factors = (torch.ones(2, width), torch.ones(out * len(layers), 2))
    save_file({name.format(side): one for side, one in zip(sides, factors, strict=True)}, tmp_path / "x.safetensors")
    with loras.loaded(model, tmp_path / "x.safetensors"):
        changed = [key for key, _ in model.network.named_parameters() if ".lora_A." in key]
    assert [key.partition(".lora_A.")[0] for key in changed] == layers


def test_a_factor_is_held_against_what_its_layer_takes_and_gives() -> None:
    """Of a convolution that is its weight's shape; four bits lie in a weight of another one."""
    packed = nn.Linear(6, 4)
    packed.weight = nn.Parameter(torch.zeros(12, 1))
    layers = {"plain": nn.Linear(6, 4), "packed": packed, "conv": nn.Conv2d(6, 4, 3)}
    for name, tail in (("plain", ()), ("packed", ()), ("conv", (3, 3))):
        assert loras._fits(layers, f"{name}.lora_A.weight", torch.zeros(2, 6, *tail))
        assert loras._fits(layers, f"{name}.lora_B.weight", torch.zeros(4, 2, *tail))
        assert not loras._fits(layers, f"{name}.lora_A.weight", torch.zeros(2, 4, *tail))
        assert not loras._fits(layers, f"{name}.lora_B.weight", torch.zeros(6, 2, *tail))
    assert not loras._fits(layers, "nowhere.lora_A.weight", torch.zeros(2, 6))
