"""What a video is made from: a prompt and, where the family takes them, pictures of its first and its last frame.

Pictures are read when they are needed, at the size of the videos: ``[3, H, W]`` in [0, 1], resized to cover and cropped
to the centre, as clips are. No torch until then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vpo_kit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class Still(Protocol):
    """A picture that is read at any size."""

    @property
    def key(self) -> str:
        """What it is known by: two pictures with one key have the same content."""

    def read(self, height: int, width: int) -> Tensor:
        """``[3, H, W]`` in [0, 1], on the CPU. Raises `DataError`."""


@dataclass(frozen=True)
class Inputs:
    """What one video is made from. A picture that is None is not given."""

    prompt: str
    image: Still | None = None
    last_image: Still | None = None

    @property
    def pictures(self) -> list[Still]:
        """The pictures that are given."""
        return [picture for picture in (self.image, self.last_image) if picture is not None]

    @property
    def keys(self) -> list[str]:
        """What it is known by beside its prompt; nothing for a prompt alone."""
        if not self.pictures:
            return []
        return ["" if picture is None else picture.key for picture in (self.image, self.last_image)]


def inputs_of(item: str | Inputs) -> Inputs:
    """A prompt alone is an item without pictures."""
    return Inputs(item) if isinstance(item, str) else item


@dataclass(frozen=True)
class ImageFile:
    """An image file that was looked into: `size` is its width and height as shown, in pixels."""

    path: Path
    key: str
    size: tuple[int, int]

    @staticmethod
    def open(path: Path) -> ImageFile:
        """Raises `DataError` for a file that is missing or not an image."""
        image, key = _decoded(path)
        return ImageFile(path, key, image.size)

    def read(self, height: int, width: int) -> Tensor:
        """What is transparent is white. Raises `DataError` for a file that has changed since it was opened."""
        import numpy as np
        import torch
        from PIL import Image, ImageOps

        found, key = _decoded(self.path)
        if key != self.key:
            raise DataError(f"{self.path} has changed since the run began")
        image = found.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        fitted = ImageOps.fit(flat, (width, height), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class Shade:
    """A picture of colours that run from corner to corner, where any will do: for plans, checks and tests."""

    seed: int = 0

    @property
    def key(self) -> str:
        """Its number."""
        return f"shade {self.seed}"

    def read(self, height: int, width: int) -> Tensor:
        """The same colours at every size, of 8 bits, so that an image library can hold them."""
        import torch

        across, down = torch.linspace(0, 1, width).expand(height, width), torch.linspace(0, 1, height)[:, None]
        parts = [across, down.expand(height, width), (across + down + self.seed / 7) % 1]
        return (torch.stack(parts) * 255).round() / 255


def cropped(size: tuple[int, int], height: int, width: int) -> float:
    """The share of a picture of `size`, width and height, that is cropped away where it covers `height` x `width`."""
    wide, tall = size
    return 1 - min(wide / tall, width / height) / max(wide / tall, width / height)


def as_image(picture: Tensor) -> Image:
    """A picture ``[3, H, W]`` in [0, 1] as image libraries hold it, in 8 bits."""
    import PIL.Image

    return PIL.Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def _decoded(path: Path) -> tuple[Image, str]:
    """The picture as it is shown (some cameras note beside it how it is to be turned), and the file's SHA-256."""
    import PIL.Image
    from PIL import ImageOps

    try:
        held = path.read_bytes()
        with PIL.Image.open(BytesIO(held)) as image:
            shown = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        if not path.exists():
            raise DataError(f"{path} is missing") from error
        raise DataError(f"{path} is not an image that can be read") from error
    if shown.mode.startswith("I;16"):  # of 16 bits, image libraries would cut all off at 255
        shown = shown.point(lambda value: value / 257).convert("L")
    return shown, hashlib.sha256(held).hexdigest()
