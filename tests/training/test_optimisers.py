"""The optimiser gets the settings of the recipe, each network its own rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vpo_kit.config import Optimiser
from vpo_kit.errors import ConfigError
from vpo_kit.training import optimisers


def test_settings_reach_it() -> None:
    one, other = (nn.Parameter(torch.ones(2)) for _ in range(2))
    settings = Optimiser.model_validate(
        {"lr": {"high_noise": 0.1, "low_noise": 0.2}, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.25}
    )
    found = optimisers.build(settings, {"high_noise": [one], "low_noise": [other]})
    assert isinstance(found, torch.optim.AdamW)
    assert [group["params"] for group in found.param_groups] == [[one], [other]]
    assert [group["lr"] for group in found.param_groups] == [0.1, 0.2]
    for group in found.param_groups:
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-3, 0.25)
    with pytest.raises(ConfigError, match=r"optimiser.lr has no rate for network: give one number"):
        optimisers.build(settings, {"network": [one]})
