"""A small decoder for a look at many latents: what judges of candidates need, at a fraction of the autoencoder's price.

It is distilled from the autoencoder whose latents it reads (as TAESD and TAEHV are), lies as `preview_decoder` in the
model's folder, and is for rollouts alone: what is shown, evaluated or kept is decoded by the autoencoder itself.

Legend: ``B`` videos, ``C`` channels, ``T h w`` latent frames and pixels, ``F`` frames, ``s`` frames a latent frame.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from vpo_kit import files
from vpo_kit.errors import ModelError

FOLDER, CONFIG, WEIGHTS = "preview_decoder", "config.json", "model.safetensors"


class Mix(nn.Module):
    """Residual block on ``[B, c, T, h, w]``: each channel over three frames, then each frame over its neighbourhood."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), groups=width)
        self.space = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(_frames(self.time(x)))
        return x + _clips(self.out(functional.silu(self.space(y))), len(x))


class PreviewShape(BaseModel):
    """`config.json`: for autoencoders that make 8 pixels of a latent pixel, and `temporal_stride` frames of a latent
    frame, but one of the first where they are `causal`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(ge=1, description="of the latents")
    temporal_stride: int = Field(4, ge=1)
    causal: bool = True
    widths: tuple[int, int, int] = Field((64, 32, 16), description="on the grid of the latent, twice it, four times it")
    blocks: int = Field(3, ge=1, description="on the grid of the latent")


class PreviewDecoder(nn.Module):
    """Normalised latents to video, in one pass over all frames: most of the width is spent on the latent's own grid."""

    def __init__(self, shape: PreviewShape) -> None:
        super().__init__()
        self.shape = shape
        wide, middle, fine = shape.widths
        self.inputs = nn.Conv3d(shape.channels, wide, 3, padding=1)
        self.blocks = nn.ModuleList(Mix(wide) for _ in range(shape.blocks))
        self.frames = nn.Conv2d(wide, shape.temporal_stride * wide // 2, 1)
        self.twice = nn.Conv2d(wide // 2, 4 * middle, 1)
        self.middle = nn.Conv2d(middle, middle, 3, padding=1)
        self.time = nn.Conv3d(middle, middle, (3, 1, 1), padding=(1, 0, 0), groups=middle)
        self.four_times = nn.Conv2d(middle, 4 * fine, 1)
        self.fine = nn.ModuleList(nn.Conv2d(fine, fine, 3, padding=1) for _ in range(2))
        self.pixels = nn.Conv2d(fine, 12, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """``[B, C, T, h, w]`` to video ``[B, F, 3, 8 h, 8 w]``, about [0, 1], not clamped."""
        stride, count = self.shape.temporal_stride, len(latents)
        x = self.inputs(latents)
        for block in self.blocks:
            x = block(x)
        x = _frames(functional.silu(x))
        x = self.frames(x)  # of a latent frame its frames side by side, as channels
        x = x.view(count, -1, x.shape[1] // stride, *x.shape[2:])
        if self.shape.causal:
            x = x[:, stride - 1 :]
        y = functional.pixel_shuffle(self.twice(functional.silu(x.flatten(0, 1))), 2)
        y = y + self.middle(functional.silu(y))
        y = y + _frames(self.time(functional.silu(_clips(y, count))))
        y = functional.pixel_shuffle(self.four_times(functional.silu(y)), 2)
        z = self.fine[0](functional.silu(y))
        y = y + self.fine[1](functional.silu(z))
        y = functional.pixel_shuffle(self.pixels(functional.silu(y)), 2)
        return y.view(count, -1, *y.shape[1:])


def save_preview(decoder: PreviewDecoder, folder: Path) -> None:
    """Write it in half precision to where `load_preview` finds it in a model's `folder`."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    files.write_tensors(folder / FOLDER / WEIGHTS, {key: value.half() for key, value in decoder.state_dict().items()})
    files.write(folder / FOLDER / CONFIG, decoder.shape.model_dump_json(indent=2) + "\n")


def read_shape(folder: Path) -> PreviewShape | None:
    """What the decoder of a model's folder is like, or None where it has none. Raises `ModelError`."""
    path = folder / FOLDER / CONFIG
    if not path.is_file():
        return None
    try:
        return PreviewShape.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"{path}: {error.errors()[0]['msg']}: copy or make it again") from error


def load_preview(folder: Path, device: torch.device) -> PreviewDecoder | None:
    """The decoder of a model's folder in float32, or None where it has none. Raises `ModelError`."""
    shape = read_shape(folder)
    if shape is None:
        return None
    decoder = PreviewDecoder(shape)
    try:
        decoder.load_state_dict(load_file(folder / FOLDER / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / FOLDER / WEIGHTS} is missing, damaged or another's: make it again") from error
    return decoder.requires_grad_(False).eval().to(device)


def _frames(x: Tensor) -> Tensor:
    """``[B, c, F, h, w]`` to ``[B F, c, h, w]``."""
    return x.transpose(1, 2).flatten(0, 1)


def _clips(x: Tensor, count: int) -> Tensor:
    """``[B F, c, h, w]`` to ``[B, c, F, h, w]``."""
    return x.view(count, -1, *x.shape[1:]).transpose(1, 2)
