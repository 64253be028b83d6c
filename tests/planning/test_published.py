"""Models that are planned without a download are as large as their makers say."""

from __future__ import annotations

import pytest
import torch

from vpo_kit.planning.published import PUBLISHED


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", 14.3),
        ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", 5.0),
        ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v", 8.3),
    ],
)
def test_networks_have_the_size_in_their_names(name: str, billions: float) -> None:
    """14B of which each of two experts has so many; 8.3B is that of HunyuanVideo 1.5's report."""
    _, parts = PUBLISHED[name]()
    with torch.device("meta"):
        network = parts["transformer"]()
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e9, 1) == billions


def test_a_template_is_as_long_as_what_is_cut_off() -> None:
    tokenizer = PUBLISHED["hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v"]()[1]["tokenizer"]()
    found = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a red circle"}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert found.input_ids.shape == (1, 108 + 3)
