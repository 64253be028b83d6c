"""Plans: what is estimated without weights is what a real step takes, and the advice leads somewhere."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from benchmarks import plans as tables
from tests.support.commands import main_ok
from vpo_kit import models
from vpo_kit.cli import main
from vpo_kit.config import Lora, read_assignments, validate
from vpo_kit.errors import ConfigError, ModelError
from vpo_kit.library import plan as command
from vpo_kit.methods.base import Batch
from vpo_kit.models import memory
from vpo_kit.models.encoding import PromptCache
from vpo_kit.planning import auto
from vpo_kit.planning.advice import HEADROOM, _changes, advise
from vpo_kit.planning.counting import MemoryTracker, Op
from vpo_kit.planning.estimate import Estimate, Subject
from vpo_kit.planning.probe import Speed
from vpo_kit.planning.rehearsal import DRAWS, rehearse
from vpo_kit.planning.skeleton import build
from vpo_kit.planning.stand_ins import PROMPT
from vpo_kit.recipes.cards import num_bytes
from vpo_kit.rewards import loading as rewards
from vpo_kit.rewards.base import RewardOutput, Segments
from vpo_kit.rewards.vqa import VQA
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.steps import context_of
from vpo_kit.training.lora import LoraPolicy

QUIET = ["evaluation.num_prompts=0", "evaluation.judges=[]", "selection.strengths=[]"]


def subject(model: Path | str, method: str, *sets: str) -> Subject:
    recipe = command._recipe({"model": str(model), "method": method}, None, [*QUIET, *sets])
    return command.subject_of(recipe, 1)


def measured(planned: Subject) -> int:
    """Bytes at the peak of a real cycle of steps: weights as they lie there, and what the allocator gave and took."""
    run = planned.run
    model = models.load(run.model, dtype=run.dtype)
    memory.tune(model, gradient_checkpointing=run.gradient_checkpointing, vae=run.vae)
    settings = model.settings.changed(**run.sampling.model_dump(exclude={"batch_size", "lora", "lora_strength"}))
    policy = LoraPolicy(model, run.lora, 0)
    if planned.method_config.model_dump().get("reference_update", "never") != "never":
        policy.refresh_reference(0.0)
    reward = rewards.load(planned.reward, model.device) if planned.reward else None
    encode = PromptCache(model)
    sizes = {"batch_size": run.batch_size, "micro_batch_size": run.micro_batch_size}
    context = context_of(policy, reward, sampling=settings, sampling_batch_size=run.sampling.batch_size, **sizes)
    method = planned.method(planned.method_config, context)
    shape = model.latent_shape(settings.frames, settings.height, settings.width)
    size, prompts = run.batch_size, [f"{PROMPT} {i}" for i in range(run.batch_size)]
    tensors = {name: torch.randn(size, *shape) for name in ("first", "second", "clip")}
    tensors |= {"labels": torch.ones(size, shape[1]), "label": torch.ones(size)}
    batch = Batch(
        step=0,
        settings=settings,
        prompts=prompts,
        conditions=encode(prompts),
        positions=range(size),
        indices=range(size),
        visits=[0] * size,
        tensors=tensors,
    )
    optimiser = torch.optim.AdamW(policy.parameters, lr=1e-4)

    def step(number: int) -> None:
        output = method.step(batch.at(number))
        for part in [output.loss] if output.parts is None else output.parts:
            part.backward()
        del part, output
        optimiser.step()
        optimiser.zero_grad()

    for parameter in policy.parameters:  # the averages are there before the first step, as they are later
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.zero_grad()
    gone = {"text_encoder"} if method.needs.decodes(planned.data) else {"text_encoder", "vae"}
    there_are = [part for name, part in model.pipeline.components.items() if name not in gone]
    parts = [p for p in (*there_are, reward) if isinstance(p, nn.Module)]
    held = [t for part in parts for t in (*part.parameters(), *part.buffers())]
    held += [value for state in optimiser.state.values() for value in state.values()]
    there = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        for number in range(method.updates_per_batch if method.needs.reward != "differentiable" else DRAWS):
            step(number)
    assert trace.profiler is not None
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for _, change in sorted((event.start_ns(), event.nbytes()) for event in events):
        now += change
        most = max(most, now)
    return sum(there.values()) + most


def check(planned: Subject) -> Estimate:
    found = rehearse(planned)
    assert sum(found.phases["step"].values()) == pytest.approx(measured(planned), rel=0.15)
    return found


@pytest.mark.parametrize(
    ("method", "sets", "part"),
    [
        ("dense", ["batch_size=2"], "activations"),
        ("sft", ["batch_size=4", "gradient_checkpointing=true"], "weights"),
    ],
)
def test_the_embedded_model_takes_what_was_planned(method: str, sets: list[str], part: str) -> None:
    found = check(subject("sprites", method, *sets))
    step = found.phases["step"]
    assert max(step, key=lambda name: step[name]) == part


@pytest.mark.parametrize(
    ("method", "sets"),
    [
        ("dense", ["batch_size=4", "micro_batch_size=1"]),
        ("online", ["batch_size=2", "sampling.batch_size=3", "sampling.steps=2", "method.num_candidates=2"]),
        pytest.param("instruct", ["batch_size=2", "vae=[slicing]"], marks=pytest.mark.slow),
        ("draft", ["batch_size=1", "sampling.steps=1", "sampling.frames=5"]),
        ("dpo", ["batch_size=4", "dtype=bfloat16"]),
    ],
)
def test_the_tiny_model_takes_what_was_planned(tiny_wan: Path, method: str, sets: list[str]) -> None:
    check(subject(tiny_wan, method, *sets))


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("cogvideox-5b", "hunyuan1.5", "modelscope")]
"""Of the same kinds of layers as those two and the tiny model, or in the nightly run alone: a UNet takes long."""


@pytest.mark.parametrize("name", ["wan2.2-a14b", "ltx", *OTHERS])
def test_other_families_take_what_was_planned(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    family = FAMILIES[name]
    family.build().save_pretrained(tmp_path, safe_serialization=True)
    sizes = [f"sampling.{key}={family.size}" for key in ("height", "width")]
    check(subject(tmp_path, "dpo", "batch_size=2", f"sampling.frames={family.frames}", *sizes))


def test_a_folder_of_configurations_is_enough(tiny_wan: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_wan, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelError):
        models.load(str(bare))
    plans = [rehearse(subject(folder, "dpo", "batch_size=2")) for folder in (tiny_wan, bare)]
    assert plans[0].phases == plans[1].phases
    assert plans[0].flops == plans[1].flops


@pytest.mark.parametrize("name", ["wan2.1-i2v", "hunyuan1.5-i2v"])
def test_what_looks_at_pictures_is_built_without_its_weights(name: str, tmp_path: Path) -> None:
    FAMILIES[name].build().save_pretrained(tmp_path, safe_serialization=True)
    model = build(str(tmp_path), FakeTensorMode(allow_non_fake_inputs=True))
    assert all(isinstance(weight, FakeTensor) for weight in model.pipeline.image_encoder.parameters())


def test_passes_and_phases(tiny_wan: Path) -> None:
    sizes = ("batch_size=2", "sampling.steps=2", "sampling.frames=5")
    planned = subject(tiny_wan, "online", *sizes, "method.num_draws=1", "evaluation.num_prompts=2")
    found = rehearse(planned)
    chain = 2 * 4 * 2 * found.settings.steps  # prompts, candidates, branches of guidance, steps
    assert found.steps == 2
    assert found.passes == chain / 2 + 2 * 2 + 2 * 2  # pairs of two videos: the reference's pass and the policy's
    assert list(found.phases) == ["prompts", "measure", "data", "step"]
    assert found.parameters["reference"] == found.parameters["lora"] > 0
    split = rehearse(command.subject_of(command._recipe({"model": str(tiny_wan), "method": "dpo"}, None, QUIET), 4))
    assert split.passes == 2 * 2 * 2, "8 pairs over 4 processes"


def test_attention_is_not_a_matrix_of_scores() -> None:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        query = torch.empty(1, 8, 4096, 64)
    with MemoryTracker(fake) as tracker, torch.no_grad():
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert sum(tracker.peak.values()) < 2 * query.nbytes < 8 * 4096**2 * 4
    assert sum(op.flops for op in tracker.ops) == 2 * 2 * 8 * 4096**2 * 64


def test_masks_choose_what_they_say_and_everything_without_data() -> None:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        x = torch.empty(2, 5, 7)
    mask = torch.tensor([[True, False, True, False, False], [True] * 5])
    with MemoryTracker(fake):
        assert x[mask].shape == (7, 7)
        assert x[~mask].shape == (3, 7)
        assert x[x > 0].shape == (70,)
        assert x[:, :, 0].masked_select(mask).shape == (7,)
        assert (x > 0).nonzero().shape == (70, 3)
        assert int(mask.sum()) == 7
        assert bool((x > 0).all())


def test_storages_are_followed_until_they_die() -> None:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        weight = torch.empty(1000, 1000)
    tracker = MemoryTracker(fake)
    tracker.adopt([weight], "weights")
    with tracker, tracker.scope("reward"):
        one = weight * 2
        view = one.view(-1)
        del one
        assert tracker.live["reward"] == 4_000_000
        del view
        assert tracker.live["reward"] == 0
        assert tracker.peak == {"weights": 4_000_000, "reward": 4_000_000}


def test_savings_save(tiny_wan: Path) -> None:
    def peak(*sets: str) -> int:
        return rehearse(subject(tiny_wan, "dpo", "batch_size=4", *sets)).peak

    plain = peak()
    assert peak("gradient_checkpointing=true") < plain
    assert peak("micro_batch_size=1") < plain
    offloaded = rehearse(subject(tiny_wan, "dpo", "batch_size=4", "offload=true"))
    embeds = 16 * 64 * 4  # tokens, width and bytes of one prompt's encoding
    assert offloaded.phases["step"]["text"] == 5 * embeds, "the batch's and the negative prompt's, and no weights"
    assert offloaded.phases["step"]["autoencoder"] == 0


def test_advice_fits_and_can_be_set(tiny_wan: Path) -> None:
    planned = subject(tiny_wan, "dpo", "batch_size=8", "dtype=bfloat16")
    estimate = rehearse(planned)
    room = int(0.55 * estimate.peak / HEADROOM)
    found = advise(planned, estimate, room)
    assert found
    assert found[-1].peak <= HEADROOM * room
    sets = [advice.setting for advice in found]
    assert rehearse(subject(tiny_wan, "dpo", "batch_size=8", "dtype=bfloat16", *sets)).peak == found[-1].peak
    assert advise(planned, estimate, 2 * estimate.peak) == []
    for text in sets:
        validate(type(planned.run), {**planned.run.model_dump(), **read_assignments([text])} | {"method": "dpo"})


def test_advice_comes_in_the_order_of_what_it_costs(tiny_wan: Path) -> None:
    """What is exact and cheap first, then what is exact, then what rounds, with every part large."""
    large = dict.fromkeys(("weights", "activations", "autoencoder", "reward", "lora"), 10)
    run, order = subject(tiny_wan, "online", "batch_size=1", "sampling.batch_size=1"), list[str]()
    for _ in range(20):
        estimate = Estimate(settings=None, parameters={}, phases={"step": large}, ops={}, passes=1.0, steps=1)  # type: ignore[arg-type]
        change = next((one for one in _changes(run, estimate) if one.setting not in order), None)
        if change is None:
            break
        order.append(change.setting)
        run = change.subject
    assert order == [
        "dtype=bfloat16", "offload=true", "gradient_checkpointing=true", "micro_batch_size=1",
        "activation_offload=true", "vae=[slicing]", "vae=[slicing, tiling]", "vae_tile_size=128",
        "group_offload=true", "optimiser.name=adamw_8bit",
    ]  # fmt: skip


def test_the_command_fits_a_narrow_terminal(
    tiny_wan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    sets = [part for text in ("batch_size=8", "evaluation.num_prompts=2") for part in ("--set", text)]
    peak = rehearse(subject(tiny_wan, "dpo", "batch_size=8")).peak
    main_ok(["plan", "--method", "dpo", "--model", tiny_wan, "--memory", f"{peak / 1e6:.3f}MB", *sets])
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    for words in (
        "No time is given: there is no GPU here",
        "LoRA and optimiser",
        "network passes a step  32",
        "does not fit",
        "first --set 'dtype=bfloat16'",
    ):
        assert words in text
    assert "could be probed. At 100 TFLOP/s the arithmetic" in " ".join(text.split())  # wherever its lines break
    with pytest.raises(SystemExit):
        main(["train", "--model", str(tiny_wan), "--plan"])
    small = ("batch_size=1", "method.num_candidates=2", "evaluation.num_prompts=0", "sampling.steps=1")
    sets = [part for text in (*small, "sampling.frames=5") for part in ("--set", text)]
    main_ok(["train", "--model", tiny_wan, "--dry-run", "--plan", *sets])
    text = capsys.readouterr().out
    assert "give --memory" in text
    assert re.search(r"a step +about .* on \d+ processor threads", text)


def test_a_time_beyond_all_use_is_a_limit() -> None:
    assert command._about(3_634_197 * 3600) == "more than 1000 h"
    assert command._about(999 * 3600) == "about 999 h"


class Leaves(VQA):
    """A reward that is not torch all the way."""

    def forward(
        self, video: Tensor, prompts: Any = None, *, fps: float, segments: Segments | None = None
    ) -> RewardOutput:
        return RewardOutput(torch.tensor(video.detach().numpy().mean((1, 2, 3, 4))))


def test_a_reward_that_leaves_torch_is_named(tiny_wan: Path) -> None:
    sizes = ["batch_size=1", "method.num_candidates=2", "sampling.steps=1", "sampling.frames=5"]
    sets = [*sizes, "reward.name=tests.planning.test_planning:Leaves"]
    found = rehearse(subject(tiny_wan, "online", *sets))
    assert [note.partition(":")[0] for note in found.notes] == ["reward vqa is not counted"]
    assert found.passes > 0


@pytest.mark.parametrize(("text", "size"), [("24GB", 24 * 10**9), ("80 GiB", 80 * 2**30), ("1.5", 1_500_000_000)])
def test_sizes(text: str, size: int) -> None:
    assert num_bytes(text) == size


@pytest.mark.parametrize("text", ["much", "-3GB", "0", "1.2.3GB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as 24GB"):
        num_bytes(text)


def test_time_is_the_slower_of_arithmetic_and_traffic() -> None:
    speed = Speed(device="one", matrix=1e9, convolution=1e8, bytes=1e6, overhead=1.0)
    ops = {Op("matrix", 3 * 10**9, 10): 2, Op("convolution", 10**8, 10): 1, Op("other", 0, 5 * 10**6): 1}
    assert speed.seconds(ops) == pytest.approx(2 * (1 + 3) + (1 + 1) + (1 + 5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "reward", "at_once", "processes", "seconds"),
    [
        ("online", "null", 8, 1, (3, 3 * 2)),  # 20 and 12 videos, and two strengths
        ("online", "null", 8, 2, (2, 3 * 1)),
        ("online", "null", 8, 4, (1, 3 * 1)),
        ("online", "null", 16, 1, (2, 3 * 0.75)),
        ("dense", "null", 8, 1, (3, 0)),  # nothing that a strength could be chosen by
        ("dense", "vqa", 8, 1, (3, 3 * 2)),
    ],
)
def test_all_that_is_measured_takes_its_time(
    method: str, reward: str, at_once: int, processes: int, seconds: tuple[int, float],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Evaluation and selection, both shared by the processes, at a second for each full batch of videos."""
    own = ["evaluation.num_prompts=20", "selection.num_prompts=12", f"sampling.batch_size={at_once}", "batch_size=8"]
    own += ["selection.strengths=[0.5, 1.0]", f"selection.reward={reward}", "steps=10"]
    recipe = command._recipe({"model": "sprites", "method": method}, None, own)
    planned = command.subject_of(recipe, processes)
    second = {Op("matrix", 10**9, 0): 1}
    found = Estimate(settings=None, parameters={}, phases={}, passes=8, steps=1,
                     ops={"measure": second, "step": second})  # type: ignore[arg-type]  # fmt: skip
    speed = Speed(device="one", matrix=1e9, convolution=1e9, bytes=1e9, overhead=0.0)
    assert command.measuring(found, planned, speed) == seconds[0]
    assert command.selecting(found, planned, speed) == seconds[1]
    command._print_cost(Console(width=100), found, recipe, speed, planned)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"the run, 10 steps about {10 + 2 * seconds[0] + seconds[1]:.2g} s on one" in shown
    assert f"measuring, before and after about {2 * seconds[0]} s on one" in shown
    assert (f"selection, 3 times 12 videos about {seconds[1]:.2g} s on one" in shown) == (seconds[1] > 0)


def test_a_selection_is_rehearsed_where_nothing_else_is_measured(tiny_wan: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "validation.txt"
    prompts.write_text("one\ntwo\nthree\n")
    own = [f"selection.prompts={prompts}", "selection.strengths=[1.0]", "selection.reward=technical"]
    small = ["batch_size=2", "sampling.steps=1", "sampling.frames=5"]
    with_it, without = (rehearse(subject(tiny_wan, "dpo", *small, *sets)) for sets in (own, []))
    assert list(with_it.phases) == ["prompts", "measure", "data", "step"]
    assert list(without.phases) == ["prompts", "data", "step"]


def test_published_architectures_have_their_published_sizes() -> None:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    model = build("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", fake, dtype="bfloat16")
    assert sum(p.numel() for p in model.network.parameters()) == 1_418_996_800
    kinds = {name: p.dtype for name, p in model.network.named_parameters()}
    assert kinds["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert kinds["scale_shift_table"] == torch.float32


def test_the_tables_are_those_of_the_results() -> None:
    results: dict[str, Any] = json.loads(tables.RESULTS.read_text())["rows"]
    text = tables.PAGE.read_text(encoding="utf-8")
    assert text.split(tables.BEGIN)[1].split(tables.END)[0].strip() == tables.tables(results).strip()
    names = {f"{m} / {method} / {saving}" for m in tables.MODELS for method in tables.SAVINGS
             for saving in tables.SAVINGS[method]}  # fmt: skip
    assert set(results) == names
    for value in results.values():
        assert value["peak"] == sum(value["bytes"][value["phase"]].values())


def test_the_micro_batch_that_fits(
    tiny_wan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest power of two whose plan fits; all at once where that does; an error where nothing does.

    The plans' peaks are made up, a gigabyte and one for each video of eight: a network as small as those of the tests
    has next to no memory that grows with them.
    """
    plain, asked = subject(tiny_wan, "dense", "batch_size=4"), list[int | None]()

    def peak(planned: Subject, known: Any) -> Any:
        asked.append(planned.run.num_at_once)
        return SimpleNamespace(peak=(1 + (planned.run.num_at_once or 8)) * 1e9)

    monkeypatch.setattr(auto, "rehearse", peak)
    memory = {size: math.ceil((1 + size) * 1e9 / HEADROOM) for size in (1, 2, 3, 4, 5, 8)}
    for size, expected in {1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 8: None}.items():
        assert auto.micro_batch_size(plain, memory[size]) == expected
    assert asked[-1] is None
    assert asked.count(None) == len(memory)  # once each
    with pytest.raises(ConfigError, match="not even one video at a time fits"):
        auto.micro_batch_size(plain, memory[1] // 2)
    recipe = command._recipe({"model": str(tiny_wan), "method": "dense"}, None, ["micro_batch_size=auto", *QUIET])
    settled = command.settled(recipe, 1, memory[8], Console())
    assert settled.run.micro_batch_size is None
    assert "micro_batch_size auto: all videos of a step" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="there is none here: give a number"):
        command.settled(recipe, 1, None, Console())


def test_networks_and_text_encoders_are_never_there_together(tiny_wan: Path) -> None:
    """As in a run: prompts are encoded first, and the encoder's weights are on the device for that alone."""
    found = rehearse(subject(tiny_wan, "dpo", "batch_size=2", "evaluation.num_prompts=2"))
    weights = 4 * found.parameters["text"]
    assert found.phases["prompts"]["text"] > weights
    assert all(found.phases["prompts"][part] == 0 for part in ("weights", "lora", "reference", "reward"))
    for name in ("measure", "data", "step"):
        assert found.phases[name]["text"] < weights
        assert found.phases[name]["weights"] == 4 * found.parameters["weights"]


def test_a_lora_for_sampling_counts(tiny_wan: Path, tmp_path: Path) -> None:
    policy = LoraPolicy(models.load(str(tiny_wan)), Lora(rank=4), 0)
    policy.export(tmp_path)
    found = [rehearse(subject(tiny_wan, "dpo", *sets)) for sets in ((), (f"sampling.lora={tmp_path}",))]
    more = found[1].phases["step"]["weights"] - found[0].phases["step"]["weights"]
    assert more == 4 * sum(p.numel() for p in policy.parameters)
