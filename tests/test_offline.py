"""Methods that learn from a pair set: exact gradients however they are computed, and honest about bad data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.offline_run import make_set, run
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.losses import PairErrors
from vpo_kit.methods.base import Context, StepOutput
from vpo_kit.methods.preference import noised, reference_errors, step_output
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.processes import Processes
from vpo_kit.registry import METHODS
from vpo_kit.sampler import draw_noise
from vpo_kit.training.data import Pairs, Prompts, usable
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.stream import Stream, split

SHAPE = (8, 3, 4, 4)


@pytest.fixture(scope="module")
def model(tiny_wan: Path) -> VideoModel:
    return models.load(str(tiny_wan))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "pairs")


def last_lora(folder: Path) -> dict[str, Tensor]:
    return load_file(max((folder / "checkpoints").glob("step-*")) / "lora.safetensors")


@pytest.mark.parametrize("method", ["dense", "structural", "dpo", "sft"])
def test_every_method_learns_and_resumes_exactly(model: VideoModel, pairs: Path, tmp_path: Path, method: str) -> None:
    whole = run(model, pairs, tmp_path / "whole", 5, method)
    run(model, pairs, tmp_path / "parts", 3, method, checkpoints={"every": 3, "keep": 2})
    parts = run(model, pairs, tmp_path / "parts", 5, method)
    # validation also ran at the first part's own last step
    assert [row["loss"] for row in parts] == [row["loss"] for row in whole]
    first, second = last_lora(tmp_path / "whole"), last_lora(tmp_path / "parts")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(value.abs().max() > 0 for key, value in first.items() if "lora_B" in key)
    assert "heldout_loss" in whole[1]


class Member:
    """A step on one batch of the set, with the policy moved off the reference."""

    def __init__(self, model: VideoModel) -> None:
        self.model = model
        self.policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
        with torch.no_grad():
            for i, parameter in enumerate(self.policy.parameters):
                parameter.add_(0.02 * (i % 3))

    def close(self) -> None:
        self.model.network.delete_adapters(["default"])

    def gradients(self, output: StepOutput) -> list[Tensor]:
        for parameter in self.policy.parameters:
            parameter.grad = None
        for part in [output.loss] if output.parts is None else output.parts:
            part.backward()
        return [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in self.policy.parameters]

    def step(self, path: Path, method: str, count: int = 8, **settings: Any) -> StepOutput:
        kind = METHODS.load(method)
        config = kind.Config(**{"beta": 200.0, **settings})
        found = store.read(path)
        source = Pairs(path, found.pairs, self.model.frame_map(9))
        encode, processes = PromptCache(self.model), Processes()
        context = Context(self.policy, None, self.model.settings, encode([""]), 8, 0, processes, scores=source.scores)
        stream = Stream(source, range(len(found.pairs)), count, 0, encode, processes)
        return kind(config, context).step(stream.batch(0, 0))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dense", {}), ("dense", {"per": "sum"}), ("dense", {"num_draws": 2, "sft_weight": 0.5}),
        ("structural", {"link": "ipo"}), ("dpo", {"weight_alpha": 0.5, "loser_weight": 0.5}),
    ],
)  # fmt: skip
def test_low_memory_gives_the_same_gradient(
    model: VideoModel, pairs: Path, method: str, settings: dict[str, Any]
) -> None:
    member = Member(model)
    try:
        plain, low = (member.step(pairs, method, low_memory=flag, **settings) for flag in (False, True))
        torch.testing.assert_close(low.loss, plain.loss.detach())
        one, other = member.gradients(plain), member.gradients(low)
        size = torch.cat([g.flatten() for g in one]).norm()
        apart = torch.cat([(a - b).flatten() for a, b in zip(one, other, strict=True)]).norm()
        assert size > 1e-3
        assert apart < 1e-6 * size
    finally:
        member.close()


def test_low_memory_halves_what_the_graph_holds() -> None:
    """Bytes saved for backward at their peak, one pair at a time, on the embedded model."""
    model = models.load("sprites")
    member = Member(model)
    held = {False: 0, True: 0}
    weights = {p.untyped_storage().data_ptr() for p in model.network.parameters()}
    try:
        first, second = draw_noise(model.latent_shape(17, 64, 64), [1, 2])[:, None]
        prompts = model.encode_prompts(["a red circle moving right slowly on a navy background"])

        def size(tensor: Tensor) -> int:
            return 0 if tensor.untyped_storage().data_ptr() in weights else tensor.nbytes

        for flag in held:
            live = peak = 0

            def pack(tensor: Tensor) -> Tensor:
                nonlocal live, peak
                live += size(tensor)
                peak = max(peak, live)
                return tensor

            def unpack(tensor: Tensor) -> Tensor:
                nonlocal live
                live -= size(tensor)
                return tensor

            pairs = noised(member.policy, first, second, prompts, [5])
            reference = reference_errors(member.policy, pairs)
            with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
                output = step_output(
                    member.policy, pairs, reference, lambda e: ((e.first - e.second).mean(), {}), Processes(),
                    low_memory=flag,
                )  # fmt: skip
                member.gradients(output)
            held[flag] = peak
    finally:
        member.close()
    assert held[True] < 0.55 * held[False]


def test_a_batch_of_ties_gives_nothing(model: VideoModel, pairs: Path, tmp_path: Path) -> None:
    found = store.read(pairs)
    (tmp_path / "latents").symlink_to(pairs / "latents")
    store.write(tmp_path, found.facts, [p.model_copy(update={"labels": [0, 0, 0], "label": 0}) for p in found.pairs])
    member = Member(model)
    try:
        for method in ("dense", "structural", "dpo"):
            for low in (False, True):
                output = member.step(tmp_path, method, low_memory=low)
                assert float(output.loss.detach()) == 0
                assert all(float(g.abs().max()) == 0 for g in member.gradients(output))
    finally:
        member.close()


def test_kept_reference_errors_change_nothing(model: VideoModel, pairs: Path, tmp_path: Path) -> None:
    """With as many fixed draws as visits no draw comes twice, and a later visit reads what an earlier one kept."""
    settings = {"fixed_draws": 1}
    whole = run(model, pairs, tmp_path / "whole", 8, "dense", settings)
    run(model, pairs, tmp_path / "parts", 5, "dense", settings)
    parts = run(model, pairs, tmp_path / "parts", 8, "dense", settings)
    assert [row["loss"] for row in parts] == [row["loss"] for row in whole]
    method = load_file(max((tmp_path / "whole/checkpoints").glob("step-*")) / "method.safetensors")
    policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
    try:  # what is kept is what the reference gives
        found = store.read(pairs)
        kept = [p for p in found.pairs if METHODS.load("dense").keeps(METHODS.load("dense").Config(), p)]
        source = Pairs(pairs, kept, model.frame_map(9))
        key, value = next(iter(method.items()))
        index, number = map(int, key.split("."))
        from vpo_kit.sampler import derive_seed

        tensors = source.tensors([index])
        encoded = model.encode_prompts([source.prompts[index]])
        again = noised(policy, tensors["first"], tensors["second"], encoded, [derive_seed(0, "fixed", index, number)])
        torch.testing.assert_close(torch.cat(reference_errors(policy, again)), value)
    finally:
        model.network.delete_adapters(["default"])


def test_early_stopping_goes_back_to_the_best(model: VideoModel, pairs: Path, tmp_path: Path) -> None:
    rows = run(
        model, pairs, tmp_path, 40, "dense", early_stopping={"patience": 2},
        optimiser={"lr": 0.05}, health={"disable": ["margin_runaway", "winner_error", "no_learning"]},
    )  # fmt: skip
    values = {int(row["step"]): row["heldout_loss"] for row in rows if "heldout_loss" in row}
    best = min(values, key=values.__getitem__)
    assert len(rows) < 40
    assert len(rows) == best + 4  # two validations later, at every second step
    kept = load_file(max((tmp_path / "checkpoints").glob("step-*")) / "best.safetensors")
    assert kept["numbers"].tolist()[1:] == [2.0, float(best)]
    again = run(model, pairs, tmp_path, 40, "dense", early_stopping={"patience": 2}, optimiser={"lr": 0.05})
    assert len(again) == len(rows)  # a stopped run stays stopped


def test_split_is_by_prompt() -> None:
    source = Prompts([f"prompt {i // 5}" for i in range(50)])
    train, held = split(source, 0.2, seed=0)
    assert sorted(train + held) == list(range(50))
    assert not {source.prompts[i] for i in train} & {source.prompts[i] for i in held}
    assert len(held) == 10
    assert split(source, 0.0, 0)[1] == []


class TestBadSets:
    def notices(self, path: Path) -> list[str]:
        lines: list[str] = []
        usable(store.read(path), SHAPE, lambda pair: bool(pair.label), lines.append)
        return lines

    def test_what_is_wrong_is_named_and_the_rest_is_used(self, tmp_path: Path) -> None:
        path = make_set(tmp_path / "set")
        (path / "latents/0.safetensors").unlink()
        data = bytearray((path / "latents/1.safetensors").read_bytes())
        data[-1] ^= 1
        (path / "latents/1.safetensors").write_bytes(data)
        save_file({"first": torch.zeros(8, 2, 4, 4), "second": torch.zeros(8, 2, 4, 4)}, path / "latents/2.safetensors")
        lines = (path / "metadata.jsonl").read_text().splitlines()
        row = json.loads(lines[2])
        row["sha256"]["latents"] = store.file_hash(path / "latents/2.safetensors")
        lines[2] = json.dumps(row)
        lines[3] = json.dumps({**json.loads(lines[3]), "labels": [1]})
        lines[4] = json.dumps({**json.loads(lines[4]), "latents": "../../etc/passwd"})
        (path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
        found = self.notices(path)
        expected = ("p0: latents/0.safetensors is missing", "p1: latents/1.safetensors has changed",
                    "p2: latents are (8, 2, 4, 4), this model's are (8, 3, 4, 4)", "(p3): Value error, 1 labels for 3",
                    "(p4): latents: Value error, a path must stay inside")  # fmt: skip
        for text in expected:
            assert sum(text in line for line in found) == 1, found

    def test_nothing_left_is_an_error(self, tmp_path: Path) -> None:
        path = make_set(tmp_path / "set", shape=(8, 2, 4, 4), count=2)
        with pytest.raises(DataError, match="nothing to learn from: p0: latents are"):
            self.notices(path)
        with pytest.raises(DataError, match="vpo label SET"):
            usable(store.read(path), (8, 2, 4, 4), lambda pair: False, lambda _: None)

    def test_no_set(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is no pair set"):
            store.read(tmp_path)

    def test_another_models_set_is_a_warning(
        self, tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from vpo_kit.commands import train

        path = make_set(tmp_path / "set", model="someone/else")
        options = {"method": "dpo", "model": str(tiny_wan), "pairs": path, "output": tmp_path / "run", "steps": 1}
        train.run(options, None, ["evaluation.num_prompts=0"], resume=False, overwrite=False, dry_run=False)
        shown = " ".join(capsys.readouterr().out.split())
        assert f"was made by someone/else, and {tiny_wan} is trained on it" in shown
        assert "dpo is meant for independent pairs" in shown

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "dense"}, "learns from pairs: give --pairs DIR, made by vpo pair"),
            ({"method": "online", "pairs": Path("x")}, "learns from prompts, not --pairs"),
            ({"method": "sft"}, "give --videos DIR or --pairs DIR"),
        ],
    )
    def test_the_right_data_is_asked_for(self, options: dict[str, Any], message: str) -> None:
        from vpo_kit.commands import recipe

        with pytest.raises(ConfigError) as caught:
            recipe.read(options, None, [])
        assert message in str(caught.value)


def test_errors_are_those_of_both_networks(model: VideoModel) -> None:
    """While the policy is the reference, Delta is zero and so is nothing else."""
    first, second = draw_noise(SHAPE, [1, 2])[:, None]
    policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
    try:
        pairs = noised(policy, first, second, model.encode_prompts(["a red circle"]), [5])
        reference = reference_errors(policy, pairs)
        seen: list[PairErrors] = []
        step_output(
            policy, pairs, reference, lambda e: (seen.append(e), (e.first.sum(), {}))[1], Processes(), low_memory=False
        )
        torch.testing.assert_close(seen[0].first.detach(), reference[0])
        assert float(reference[0].min()) > 0
    finally:
        model.network.delete_adapters(["default"])
