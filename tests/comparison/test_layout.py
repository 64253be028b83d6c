"""Variances are found again, and a size has the power that is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from vpo_kit.comparison.layout import Components, Layout, power
from vpo_kit.errors import DataError

TRUE = Components(prompt=0.09, noise=0.04, seed=0.01, rest=0.16)


def drawn(true: Components, size: Layout, seed: int) -> tuple[list[list[float]], list[int]]:
    rng = np.random.default_rng(seed)
    shape = (size.seeds, size.prompts, size.noises)
    table = (
        rng.normal(0, true.prompt**0.5, (1, size.prompts, 1))
        + rng.normal(0, true.noise**0.5, (1, size.prompts, size.noises))
        + rng.normal(0, true.seed**0.5, (size.seeds, 1, 1))
        + rng.normal(0, true.rest**0.5, shape)
    )
    mixed = rng.permutation(size.prompts * size.noises)
    groups = np.repeat(np.arange(size.prompts), size.noises)[mixed]
    return table.reshape(size.seeds, -1)[:, mixed].tolist(), groups.tolist()


def test_variances_are_found_again_whatever_the_order_of_videos() -> None:
    found = Components.mean([Components.of(*drawn(TRUE, Layout(60, 3, 6), seed)) for seed in range(30)])
    assert found.prompt == pytest.approx(TRUE.prompt, rel=0.1)
    assert found.noise == pytest.approx(TRUE.noise, rel=0.1)
    assert found.seed == pytest.approx(TRUE.seed, rel=0.25)  # 5 degrees of freedom each
    assert found.rest == pytest.approx(TRUE.rest, rel=0.02)


def test_with_one_noise_a_prompt_its_variance_is_the_prompts() -> None:
    found = Components.mean([Components.of(*drawn(TRUE, Layout(150, 1, 5), seed)) for seed in range(20)])
    assert found.noise == 0
    assert found.prompt == pytest.approx(TRUE.prompt + TRUE.noise, rel=0.1)


@pytest.mark.parametrize("size", [Layout(48, 1, 3), Layout(96, 2, 5)])
def test_nothing_is_found_in_five_of_a_hundred(size: Layout) -> None:
    share = power(0.0, TRUE, size, simulations=300)
    assert share <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5  # the seeds' term makes it cautious


def test_an_effect_is_found_as_often_as_its_error_says() -> None:
    calm = Components(prompt=0.0, noise=0.0, seed=0.0, rest=0.25)  # one source, so that a closed form is at hand
    size = Layout(100, 1, 1)
    assert power(2.8 * (calm.rest / size.prompts) ** 0.5, calm, size, simulations=300) == pytest.approx(0.80, abs=0.07)
    assert (
        power(0.5, TRUE, Layout(144, 2, 5)) > power(0.1, TRUE, Layout(144, 2, 5)) > power(0.1, TRUE, Layout(48, 1, 3))
    )


@pytest.mark.parametrize(
    ("changes", "groups"), [([[1.0, 2.0]], [0, 1]), ([[1.0, 2.0]] * 2, [0, 0]), ([[1.0, 2.0, 3.0]] * 2, [0, 0, 1])]
)
def test_too_little_to_tell_variances_apart(changes: list[list[float]], groups: list[int]) -> None:
    with pytest.raises(DataError, match="two seeds and two prompts"):
        Components.of(changes, groups)
