"""Will these pairs teach anything? The estimates on planted gradients, and the command on planted labels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import known
from tests.support.commands import fails, main_ok
from tests.support.offline_run import make_set
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.library import set_signal
from vpo_kit.library.set_signal import SignalRequest
from vpo_kit.models.base import VideoModel
from vpo_kit.training import signal
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.signal import Sketch, common, direction, kind_of


def planted(count: int, strength: float, dims: int = 400, seed: int = 0, flipped: float = 0.0) -> signal.Floats:
    """Gradients ``[n, d]``: unit noise and a common part of length `strength`, in a share of them turned round."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=dims)
    noise = rng.normal(size=(count, dims)) / math.sqrt(dims)
    sign = np.where(np.arange(count) < flipped * count, -1.0, 1.0)
    return sign[:, None] * strength * true / np.linalg.norm(true) + noise


class TestDirection:
    def test_a_common_part_is_found_and_its_size_recovered(self) -> None:
        """With a common part of length s in unit noise, 1 / s^2 pairs give a cosine of .71."""
        found = direction(planted(200, 0.1), 0)
        assert found.found
        assert found.pairs.low < 100 < found.pairs.high
        assert found.pairs.value == pytest.approx(100, rel=0.5)
        assert common(planted(2000, 0.1)) == pytest.approx(0.01, rel=0.25)

    def test_random_signs_have_none(self) -> None:
        """Found by chance in about one case of twenty."""
        hits = sum(direction(planted(64, 0.0, seed=seed), 0, resamples=200).found for seed in range(60))
        assert hits <= 8
        values = [common(planted(64, 0.0, seed=seed)) for seed in range(60)]
        assert abs(float(np.mean(values))) < 3 * float(np.std(values)) / math.sqrt(60)

    def test_turned_labels_take_the_signal_away(self) -> None:
        """A share q of wrong labels leaves (1 - 2 q)^2 of it."""
        right, tenth, half = (common(planted(4000, 0.2, flipped=share)) for share in (0.0, 0.1, 0.5))
        assert tenth == pytest.approx(0.64 * right, rel=0.15)
        assert abs(half) < 0.05 * right

    def test_the_cosine_of_halves_is_what_theory_says(self) -> None:
        """Two means of n / 2: s^2 / (s^2 + 2 / n)."""
        found = direction(planted(400, 0.1), 0)
        assert found.cosine.value == pytest.approx(0.01 / (0.01 + 2 / 400), abs=0.12)

    def test_nothing_is_reported_as_more(self) -> None:
        found = direction(planted(16, 0.0, seed=3) - planted(16, 0.0, seed=3).mean(0), 0)
        assert not found.found
        assert math.isinf(found.pairs.value)
        assert str(found.pairs).startswith("more")


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


def test_sketches_keep_inner_products(model: VideoModel) -> None:
    """Of gradients, and of each kind of layer by itself."""
    policy = LoraPolicy(model, Lora(rank=8, alpha=8), seed=0)
    try:
        sketch = Sketch(policy, 0)
        generator = torch.Generator().manual_seed(0)
        vectors = [[torch.randn(p.shape, generator=generator) for p in policy.parameters] for _ in range(8)]
        names = [name for name, _ in model.network.named_parameters() if ".default." in name]
        rows = torch.stack([sketch(vector) for vector in vectors])
        for place, kind in enumerate(sketch.kinds):
            own = [i for i, name in enumerate(names) if kind_of(name) == kind]
            exact = torch.tensor([[sum(float((a[i] * b[i]).sum()) for i in own) for b in vectors] for a in vectors])
            found = rows[:, place] @ rows[:, place].T
            assert float((found - exact).abs().max()) < 0.35 * float(exact.diag().mean())
        assert sketch.kinds == ["attn1.to_k", "attn1.to_q", "attn1.to_v", "attn2.to_k", "attn2.to_q", "attn2.to_v",
                                "to_out.0"][: len(sketch.kinds)] or "attn1.to_v" in sketch.kinds  # fmt: skip
    finally:
        model.network.delete_adapters(["default"])


def test_numbers_in_words() -> None:
    values = (float("inf"), 1234.4, 10.0, -12.6, 9.994, 0.25)
    assert [signal._short(value) for value in values] == ["more", "1,234", "10", "-13", "9.99", "0.25"]


def test_what_kind_a_layer_is() -> None:
    assert kind_of("transformer.blocks.0.attn1.to_v.lora_B.default.weight") == "attn1.to_v"
    assert kind_of("unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0.lora_A.default.weight") == (
        "attn2.to_out"
    )


def test_the_command(tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On latents of noise there is nothing to find, and that is what it says; nothing of the set is changed."""
    pairs = make_set(tmp_path / "pairs", count=16, model=str(tiny_wan))
    before = {path: path.read_bytes() for path in pairs.rglob("*") if path.is_file()}
    sizes = ["sampling.frames=9", "sampling.height=32", "sampling.width=32", "lora.rank=2", "optimiser.lr=1e-4"]
    sets = [part for text in sizes for part in ("--set", text)]
    main_ok(["pair", "signal", pairs, "--model", tiny_wan, "--output", tmp_path / "signal.json", *sets])
    shown = " ".join(capsys.readouterr().out.split())
    assert "dense on" in shown
    assert "16 of 16 pairs" in shown
    assert "direction: not found with" in shown
    found = json.loads((tmp_path / "signal.json").read_text())
    assert found["signal"]["pairs"] == 16
    assert found["signal"]["draws"] == 3 * (16 + 4)
    assert found["signal"]["whole"]["p"] > 0.05
    assert set(found["signal"]["bands"]) == {"low", "middle", "high"}
    assert found["verdict"] == "enough"
    assert found["seed"] == 0
    known.check("signal", {key: found[key] for key in ("signal", "verdict")})
    assert {path: path.read_bytes() for path in pairs.rglob("*") if path.is_file()} == before
    few = make_set(tmp_path / "few", count=4, model=str(tiny_wan))
    assert (
        "4 pairs have something to teach, and at least 8 are needed"
        in fails(capsys, "pair", "signal", few, "--model", tiny_wan, *sets)[1]
    )
    assert (
        "learns no preference from pairs"
        in fails(capsys, "pair", "signal", pairs, "--model", tiny_wan, "--method", "sft", *sets)[1]
    )


@pytest.mark.parametrize(
    ("sets", "options", "expected"),
    [
        ([], {}, ("structural", 123.0, 7)),
        (["method.beta=5", "seed=8"], {"seed": 9}, ("structural", 5.0, 9)),
        (["method.name=dpo", "method.beta=5", "seed=8"], {}, ("dpo", 5.0, 8)),
        (["method.name=dpo"], {"method": "dense"}, ("dense", 250.0, 7)),
    ],
)
def test_the_recipe_is_the_users(
    sets: list[str], options: dict[str, Any], expected: tuple[str, float, int], tmp_path: Path
) -> None:
    """An option counts before --set, that before the file."""
    file, pairs = tmp_path / "recipe.yaml", make_set(tmp_path / "pairs", count=1)
    file.write_text("method: {name: structural, beta: 123}\nseed: 7\n")
    request = SignalRequest(path=pairs, config=file, assignments=sets, **options)
    run = set_signal._recipe(request).run
    assert (run.method_name, run.method["beta"], run.seed) == expected


@pytest.mark.parametrize("sets", [[], ["method.beta=5"]])
def test_the_method_is_that_of_the_strategy_where_none_is_named(sets: list[str], tmp_path: Path) -> None:
    guided = make_set(tmp_path / "pairs", count=1)
    run = set_signal._recipe(SignalRequest(path=guided, assignments=sets)).run
    assert run.method_name == "dense"
    assert (run.method["beta"] == 5.0) == bool(sets)


def test_a_gradient_of_a_half_is_a_mean(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs in one half and one in the other, all of whose gradients are 1: the loss falls by 1 for each weight."""
    policy = LoraPolicy(model, Lora(rank=2, alpha=4), seed=0)
    try:
        gathered = signal.Gradients(policy, seed=0)

        def ones(_: object) -> None:
            for parameter in policy.parameters:
                parameter.grad = torch.ones_like(parameter)

        monkeypatch.setattr(signal, "backward", ones)
        for half in (0, 0, 1):
            gathered.take(SimpleNamespace(step=lambda _: None), SimpleNamespace(), half)  # type: ignore[arg-type]
        assert gathered.loss_per_rate() == sum(parameter.numel() for parameter in policy.parameters)
    finally:
        model.network.delete_adapters(["default"])
