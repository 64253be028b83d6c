"""Gradients through decoders that run again, call by call, are those of plain autograd, with less held."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vpo_kit import models
from vpo_kit.models import memory, offload
from vpo_kit.models.base import VideoModel
from vpo_kit.testing.families import FAMILIES


def made(name: str, folder: Path, *, again: bool, tiled: bool) -> VideoModel:
    if not folder.is_dir():
        FAMILIES[name].build().save_pretrained(folder, safe_serialization=True)
    model = models.load(folder)
    memory.tune(model, gradient_checkpointing=again)
    vae = model.pipeline.vae
    if tiled:
        vae.enable_tiling()
        for side in ("height", "width"):  # a tile of four latent pixels, of which the next one shares one or two
            for key, size in (
                (f"tile_sample_min_{side}", 4 * model.spatial_stride),
                (f"tile_sample_stride_{side}", 3 * model.spatial_stride),
                (f"tile_latent_min_{side}", 4),
            ):
                if hasattr(vae, key):
                    setattr(vae, key, size)
    return model


def held_and_gradient(model: VideoModel, frames: list[int] | None) -> tuple[int, Tensor]:
    """Bytes that the graph of a decoded clip holds, and the gradient of a sum with weights that differ everywhere."""
    generator = torch.Generator().manual_seed(0)
    shape = model.latent_shape(17, 64, 64)
    latents = torch.randn(1, *shape, generator=generator).requires_grad_()
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        video = model.decode(latents, frames)
    weights = torch.randn(video.shape, generator=generator)
    (gradient,) = torch.autograd.grad((video * weights).sum(), latents)
    return sum(held.values()), gradient


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("name", ["wan2.1", "cogvideox-5b", "ltx"])
def test_the_gradient_is_that_of_plain_autograd(name: str, tiled: bool, tmp_path: Path) -> None:
    plain, again = (made(name, tmp_path / "tiny", again=kind, tiled=tiled) for kind in (False, True))
    for frames in ([0, 7],) if tiled else (None, [0, 7]):
        expected, found = held_and_gradient(plain, frames), held_and_gradient(again, frames)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-7)
        assert found[1].abs().sum() > 0
        assert found[0] < expected[0] / 2


def test_weights_that_have_left_come_back_for_it(tmp_path: Path) -> None:
    """The copies that an offloaded decoder ran with are those that it runs with again."""
    expected = held_and_gradient(made("wan2.1", tmp_path / "tiny", again=False, tiled=False), [5])
    model = made("wan2.1", tmp_path / "tiny", again=True, tiled=False)
    offload.offload(model)
    vae, called = model.pipeline.vae, []
    weight = vae.decoder.conv_in.weight
    vae.decoder.conv_in.register_forward_pre_hook(lambda module, _: called.append(module.weight is weight))
    found = held_and_gradient(model, [5])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-7)
    assert not any(called), "the copies, not the weights at home"
    assert len(called) > 1
    assert vae.decoder.conv_in.weight is weight
