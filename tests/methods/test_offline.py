"""Methods that learn from a pair set: exact gradients however they are computed, and honest about bad data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.offline_member import Member
from tests.support.offline_member import model as model
from tests.support.offline_run import make_set, run
from vpo_kit import files, models
from vpo_kit.config import Lora
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.losses import PairErrors
from vpo_kit.methods.noised import noised, see_reference
from vpo_kit.methods.preference import PairConfig, pair_output
from vpo_kit.models.base import VideoModel
from vpo_kit.pairing import store
from vpo_kit.pairing.usable import usable
from vpo_kit.registry import METHODS
from vpo_kit.sampler import derive_seed, draw_noise
from vpo_kit.testing.steps import context_of
from vpo_kit.times import Strata
from vpo_kit.training.data import Prompts
from vpo_kit.training.loop import backward
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.paired import Pairs
from vpo_kit.training.stream import split

SHAPE = (8, 3, 4, 4)


@pytest.fixture(scope="module")
def exact(tiny_wan: Path) -> VideoModel:
    """The same in double precision."""
    found = models.load(str(tiny_wan))
    found.network.to(torch.float64)
    return found


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "pairs")


def last_lora(folder: Path) -> dict[str, Tensor]:
    return load_file(max((folder / "checkpoints").glob("step-*")) / "lora.safetensors")


@pytest.mark.parametrize("method", ["dense", "structural", "dpo", "sft", "kto", "mapo"])
def test_every_method_learns_and_resumes_exactly(model: VideoModel, pairs: Path, tmp_path: Path, method: str) -> None:
    whole = run(model, pairs, tmp_path / "whole", 5, method)
    run(model, pairs, tmp_path / "parts", 3, method, checkpoints={"every": 3, "keep": 2})
    parts = run(model, pairs, tmp_path / "parts", 5, method)
    # validation also ran at the first part's own last step
    assert [row["loss"] for row in parts] == [row["loss"] for row in whole]
    first, second = last_lora(tmp_path / "whole"), last_lora(tmp_path / "parts")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(value.abs().max() > 0 for key, value in first.items() if "lora_B" in key)
    assert ("heldout_loss" in whole[1]) == METHODS.load(method).needs.validation


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dense", {}), ("dense", {"per": "mean"}), ("dense", {"num_draws": 2, "sft_weight": 0.5}),
        ("structural", {"link": "ipo"}), ("dpo", {"weight_alpha": 0.5, "loser_weight": 0.5}),
        ("dense", {"anchor": 3.0}), ("structural", {"times": "uniform"}), ("sft", {"caption_dropout": 0.5}),
        ("dense", {"safeguard": 0.1}), ("structural", {"safeguard": 0.0, "motion_weight": 1.0}),
        ("kto", {"num_draws": 2, "anchor": 3.0}), ("mapo", {"num_draws": 2}),
    ],
)  # fmt: skip
def test_micro_batches_give_the_same_gradient(
    exact: VideoModel, pairs: Path, method: str, settings: dict[str, Any], size: int
) -> None:
    """In double precision to the last digits: in single, rounding of the network's outputs is amplified by beta."""
    member = Member(exact)
    with torch.no_grad():
        for parameter in member.policy.parameters:
            parameter.data = parameter.data.double()
    settings = settings if method == "sft" else {"beta": 200.0, **settings}
    try:
        plain, parts = (member.step(pairs, method, micro_batch_size=n, **settings) for n in (None, size))
        assert parts.by_label == pytest.approx(plain.by_label, rel=1e-4)
        assert parts.report == pytest.approx(plain.report, rel=1e-4)
        one, other = member.gradients(plain), member.gradients(parts)
        norm = torch.cat([g.flatten() for g in one]).norm()
        apart = torch.cat([(a - b).flatten() for a, b in zip(one, other, strict=True)]).norm()
        assert norm > 1e-3
        assert apart < 1e-12 * norm
    finally:
        member.close()


@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_in_single_precision(model: VideoModel, pairs: Path, size: int) -> None:
    member = Member(model)
    try:
        plain, parts = (member.step(pairs, "dense", micro_batch_size=n, beta=20.0) for n in (None, size))
        one, other = (torch.cat([g.flatten() for g in member.gradients(output)]) for output in (plain, parts))
        assert (one - other).norm() < 1e-5 * one.norm()
    finally:
        member.close()


def test_the_loss_of_micro_batches_is_the_whole_ones(model: VideoModel, pairs: Path) -> None:
    member = Member(model)
    try:
        for method in ("dense", "sft"):
            plain, parts = (member.step(pairs, method, micro_batch_size=n) for n in (None, 3))
            # at beta 500 the last bits of the errors are 2e-5 of the loss
            torch.testing.assert_close(backward(parts), backward(plain), rtol=2e-4, atol=0)
    finally:
        member.close()


def test_the_anchor_pulls_back_to_the_reference(model: VideoModel, pairs: Path) -> None:
    """Its gradient is that of the mean squared distance of both outputs, whatever the labels say."""
    member = Member(model)
    try:
        without, with_anchor = (member.step(pairs, "dense", anchor=weight) for weight in (0.0, 2.0))
        one, other = member.gradients(without), member.gradients(with_anchor)
        distance = with_anchor.report["anchor"]
        assert isinstance(distance, float)
        assert distance > 0
        assert float(backward(member.step(pairs, "dense", anchor=2.0)) - backward(member.step(pairs, "dense"))) == (
            pytest.approx(2 * distance, rel=1e-3)
        )
        slope = sum(
            float(((b - a) * p.detach()).sum()) for a, b, p in zip(one, other, member.policy.parameters, strict=True)
        )
        assert slope > 0  # towards smaller factors, which is towards the reference
    finally:
        member.close()


def test_a_micro_batch_of_one_halves_what_the_graph_of_a_pair_holds() -> None:
    """Bytes saved for backward at their peak, on the embedded model."""
    model = models.load("sprites")
    member = Member(model)
    held: dict[int | None, int] = {None: 0, 1: 0}
    times = model.time_sampler(None, model.settings, model.networks)
    weights = {p.untyped_storage().data_ptr() for p in model.network.parameters()}
    try:
        first, second = draw_noise(model.latent_shape(17, 64, 64), [1, 2])[:, None]
        prompts = model.encode_prompts(["a red circle moving right slowly on a navy background"])

        def size(tensor: Tensor) -> int:
            return 0 if tensor.untyped_storage().data_ptr() in weights else tensor.nbytes

        for size_limit in held:
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

            context = context_of(member.policy, micro_batch_size=size_limit)
            pairs = noised(member.policy, times, (first, second), prompts, [5])
            reference = see_reference(context, pairs)
            with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
                output = pair_output(
                    context,
                    PairConfig(),
                    pairs,
                    reference,
                    torch.ones(1),
                    lambda e: ((e.first - e.second).mean(), {}),
                    (1, 1),
                )
                member.gradients(output)
            held[size_limit] = peak
    finally:
        member.close()
    assert held[1] < 0.55 * held[None]


def test_a_batch_of_ties_gives_nothing(model: VideoModel, pairs: Path, tmp_path: Path) -> None:
    found = store.read(pairs)
    (tmp_path / "latents").symlink_to(pairs / "latents")
    store.write(tmp_path, found.facts, [p.model_copy(update={"labels": [0, 0, 0], "label": 0}) for p in found.pairs])
    member = Member(model)
    try:
        for method in ("dense", "structural", "dpo"):
            for size in (None, 1):
                output = member.step(tmp_path, method, micro_batch_size=size)
                assert output.loss is not None
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
        tensors = source.tensors([index])
        encoded = model.encode_prompts([source.prompts[index]])
        times = model.time_sampler(None, model.settings, model.networks)
        strata = Strata([number], 1, derive_seed(0, "fixed", "strata"))
        seeds = [derive_seed(0, "fixed", index, number)]
        again = noised(policy, times, (tensors["first"], tensors["second"]), encoded, seeds, strata)
        torch.testing.assert_close(see_reference(context_of(policy), again).errors, value)
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


@pytest.mark.parametrize("method", ["sft", "instruct"])
def test_a_clip_is_a_pairs_source_or_its_winner(pairs: Path, method: str) -> None:
    """A tie of guided members still has the clip that both came from; of two samples neither is one to learn from."""
    kind, pair = METHODS.load(method), store.read(pairs).pairs[0]
    for strategy in ("guided", "independent", "real", "local", "imported"):
        for label in (1, -1, 0, None):
            kept = kind.keeps(kind.Config(), pair.model_copy(update={"strategy": strategy, "label": label}))
            assert kept == (strategy == "guided" or label in (1, -1)), (strategy, label)


class TestSplit:
    def test_is_by_prompt(self) -> None:
        source = Prompts([f"prompt {i // 5}" for i in range(50)])
        parts = split(source, 0.2, seed=0)
        assert sorted(parts.items + parts.held) == list(range(50))
        assert not {source.prompts[i] for i in parts.items} & {source.prompts[i] for i in parts.held}
        assert parts.said == "40 items to train on, 10 held out"
        assert split(source, 0.0, 0).held == []

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize(
        ("sizes", "share", "held", "inside"),
        [
            ([36, 1, 1, 1, 1], 0.1, 4, False),
            ([100, 1], 0.1, 11, True),
            ([5, 5], 0.1, 1, True),
            ([7], 0.3, 3, True),
            ([1, 1], 0.9, 1, False),
            ([2, 2, 2, 2], 0.1, 2, False),  # one is wanted, and a prompt has two
            ([10, 3, 3, 3, 3, 3], 0.3, 6, False),  # 8 wanted, of threes
        ],
    )
    def test_however_the_prompts_are_spread(
        self, sizes: list[int], share: float, held: int, inside: bool, seed: int
    ) -> None:
        source = Prompts([f"prompt {k}" for k, size in enumerate(sizes) for _ in range(size)])
        parts = split(source, share, seed)
        assert sorted(parts.items + parts.held) == list(range(sum(sizes)))
        assert len(parts.held) == held
        both = {source.prompts[i] for i in parts.items} & {source.prompts[i] for i in parts.held}
        assert len(both) == inside
        assert ("on both sides" in parts.said) == inside


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
        row["sha256"]["latents"] = files.sha256(path / "latents/2.safetensors")
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
        from vpo_kit.cli.train import train

        path = make_set(tmp_path / "set", model="someone/else")
        given = ["evaluation.num_prompts=0"]
        train("dpo", model=str(tiny_wan), pairs=path, output=tmp_path / "run", steps=1, set_=given)
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
        from vpo_kit.training import recipe

        with pytest.raises(ConfigError) as caught:
            recipe.read(options, None, [])
        assert message in str(caught.value)


def test_errors_are_those_of_both_networks(model: VideoModel) -> None:
    """While the policy is the reference, Delta is zero and so is nothing else."""
    first, second = draw_noise(SHAPE, [1, 2])[:, None]
    policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
    try:
        times = model.time_sampler(None, model.settings, model.networks)
        conditions = model.encode_prompts(["a red circle"])
        pairs = noised(policy, times, (first, second), conditions, [5])
        context, seen = context_of(policy), list[PairErrors]()
        reference = see_reference(context, pairs)
        pair_output(
            context,
            PairConfig(),
            pairs,
            reference,
            torch.ones(1),
            lambda e: (seen.append(e), (e.first.sum(), {}))[1],
            (1, 1),
        )
        torch.testing.assert_close(seen[0].first.detach(), reference.by_member[0])
        assert float(reference.errors.min()) > 0
    finally:
        model.network.delete_adapters(["default"])
