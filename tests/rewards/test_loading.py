"""What a judge is once it is loaded: frozen, and as it was measured; and which judges a run may train on."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import known
from vpo_kit import rewards
from vpo_kit.errors import ConfigError
from vpo_kit.registry import REWARDS
from vpo_kit.rewards.loading import load, plan
from vpo_kit.sprites import world
from vpo_kit.training import recipe


@pytest.mark.parametrize("name", ["vqa", "natural", "technical", "vqa:0.7+natural:0.3"])
def test_the_gradient_reaches_the_video_and_no_weight(name: str) -> None:
    mixture = load(plan(name, {}), torch.device("cpu"))
    assert not [module for module in mixture.modules() if module.training]
    assert not [parameter for parameter in mixture.parameters() if parameter.requires_grad]
    video = (0.5 + 0.1 * torch.randn(1, 5, 3, 32, 32, generator=torch.Generator().manual_seed(0))).requires_grad_()
    mixture.fixed(video, ["a red circle"], fps=8).score.sum().backward()  # type: ignore[no-untyped-call]
    assert video.grad is not None
    assert float(video.grad.abs().amax((0, 2, 3, 4)).min()) > 0
    assert not [parameter for parameter in mixture.parameters() if parameter.grad is not None]


def test_a_held_out_judge_is_none_to_train_on(tmp_path: Path, tiny_wan: Path) -> None:
    options = {"method": "online", "reward": "gold", "model": str(tiny_wan), "output": tmp_path, "steps": 1}
    with pytest.raises(ConfigError, match="'gold' is a held-out judge: training on it would leave nothing to check"):
        recipe.read(options, None, [])
    assert not list(tmp_path.iterdir())


def test_what_every_judge_says_of_itself() -> None:
    """Means and deviations, by which mixtures weigh; and what runs and tables go by."""
    specs = {name: asdict(REWARDS.load(name).spec) for name in REWARDS.targets()}
    known.check("specs", {name: {k: v for k, v in one.items() if k != "source"} for name, one in specs.items()})


def test_the_constants_that_judges_were_published_with() -> None:
    """Names in capitals: numbers, words, and tables of them; and the defaults of every judge's settings."""
    modules = {name: import_module(name) for _, name, _ in pkgutil.walk_packages(rewards.__path__, "vpo_kit.rewards.")}
    found = {
        f"{name}.{key}": plain(value)
        for name, module in modules.items()
        for key, value in vars(module).items()
        if key.isupper() and plain(value) is not None and type(value).__module__ != "typing"
    }
    defaults = {
        f"{name}.{key}": plain(field.default)
        for name in REWARDS.targets()
        for key, field in REWARDS.load(name).Config.model_fields.items()
    }
    known.check("constants", {"modules": found, "settings": defaults})


def plain(value: Any) -> Any:
    """As JSON has it, None for what is no number, word or table of them."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if isinstance(value, int | float | str) else None


@pytest.mark.parametrize("name", ["vqa", "gold", "technical"])
def test_a_scale_that_was_measured_is_the_one_that_is_found(name: str) -> None:
    """Mean and deviation of a spec, on the clips that it names: mixtures and runs rest on them."""
    clips = torch.stack([torch.from_numpy(clip.video) for clip in world.training_clips(48, 0)])
    reward = load(plan(name, {}), torch.device("cpu")).parts[0]
    with torch.no_grad():
        scores = torch.cat([reward(part, ["a"] * len(part), fps=8).score for part in clips.split(16)])
    assert float(scores.mean()) == pytest.approx(reward.spec.mean, abs=0.1)
    assert float(scores.std()) == pytest.approx(reward.spec.std, abs=0.1)
