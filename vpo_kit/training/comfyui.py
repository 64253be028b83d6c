"""LoRA files for ComfyUI: its names for the layers of the families where diffusers can read them back.

ComfyUI calls a layer ``diffusion_model.`` and its name in the weights that the model was first published with; factors
are ``lora_A`` and ``lora_B``, and a file without alphas is applied at scale 1. In Wan 2.1 and 2.2, and in SkyReels-V2,
which has Wan's weights there, the names differ from diffusers', in LTX-Video those of the blocks are the same. The
other families are left out: HunyuanVideo and Mochi fuse query, key and value into one layer there, and for them, for
CogVideoX and for the UNets diffusers has no converter that could check the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vpo_kit.errors import ModelError

WAN = {
    r"(blocks\.\d+)\.attn1\.to_([qkv])": r"\1.self_attn.\2",
    r"(blocks\.\d+)\.attn1\.to_out\.0": r"\1.self_attn.o",
    r"(blocks\.\d+)\.attn2\.to_([qkv])": r"\1.cross_attn.\2",
    r"(blocks\.\d+)\.attn2\.to_out\.0": r"\1.cross_attn.o",
    r"(blocks\.\d+)\.attn2\.add_([kv])_proj": r"\1.cross_attn.\2_img",
    r"(blocks\.\d+)\.ffn\.net\.0\.proj": r"\1.ffn.0",
    r"(blocks\.\d+)\.ffn\.net\.2": r"\1.ffn.2",
}
LTX = {r"(transformer_blocks\.\d+\..*)": r"\1"}
NAMES: dict[str, dict[str, str]] = {
    "WanPipeline": WAN,
    "WanImageToVideoPipeline": WAN,
    "SkyReelsV2Pipeline": WAN,
    "LTXPipeline": LTX,
    "LTXConditionPipeline": LTX,
    "LTXImageToVideoPipeline": LTX,
}
"""The names by pipeline class: patterns of whole layer names in diffusers, and what ComfyUI calls them."""


def check_family(family: str) -> None:
    """Raises `ModelError` for a family without known names."""
    if family not in NAMES:
        raise ModelError(
            f"{family} has no ComfyUI form that diffusers could read back and check: "
            f"known are {', '.join(sorted(NAMES))}; give --format diffusers or merged"
        )


def convert(family: str, state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """`state` in PEFT's names as ComfyUI names it; the LoRA's `scale` (alpha / rank) goes into the B factors.

    Raises `ModelError` for a family without known names, or a layer that has none.
    """
    check_family(family)
    found = {}
    for key, value in state.items():
        layer, _, factor = key.rpartition(".lora_")
        name = _rename(family, layer)
        found[f"diffusion_model.{name}.lora_{factor}"] = value * scale if factor.startswith("B") else value
    return found


def _rename(family: str, layer: str) -> str:
    for pattern, name in NAMES[family].items():
        match = re.fullmatch(pattern, layer)
        if match:
            return match.expand(name)
    raise ModelError(f"layer {layer} of {family} has no known name in ComfyUI: give --format diffusers or merged")
