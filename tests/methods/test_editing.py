"""Reward fine-tuning through the sampler: the gradient is the plain one, and costs what it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import PROMPTS
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.errors import ConfigError
from vpo_kit.methods.base import Batch
from vpo_kit.methods.editing import Editing
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.registry import METHODS
from vpo_kit.rewards.base import Mixture, Reward
from vpo_kit.sampler import chain_levels, derive_seed, draw_noise
from vpo_kit.testing.families import FAMILIES
from vpo_kit.testing.rewards import stub
from vpo_kit.testing.runs import train_briefly
from vpo_kit.testing.steps import context_of, gradients
from vpo_kit.training.cost import Passes
from vpo_kit.training.lora import LoraPolicy

pytestmark = pytest.mark.filterwarnings("ignore:.*TextToVideoSDPipeline")


def redness(video: Tensor, _: object) -> Tensor:
    """Of single frames: red less blue, squared so that its gradient is not constant."""
    return (video[:, :, 0] - video[:, :, 2]).pow(2).mean((1, 2, 3)) + video[:, :, 0].mean((1, 2, 3))


Redness = stub("redness", redness, scale="about -1 to 1", per_segment=True, per_frame=True)
Whole = stub("whole", redness, scale="about -1 to 1", per_segment=True)
"""The same, but it says that it must see the whole clip."""


class Bench:
    """A tiny model with a LoRA off the reference, and one batch of clips."""

    def __init__(self, name: str, folder: Path) -> None:
        self.family = FAMILIES[name]
        torch.manual_seed(0)
        self.family.build().save_pretrained(folder, safe_serialization=True)
        self.model: VideoModel = models.load(str(folder))
        self.policy = LoraPolicy(self.model, Lora(rank=2, alpha=4), seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.policy.parameters:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        size = self.family.size
        self.sampling = self.model.settings.changed(
            frames=self.family.frames, height=size, width=size, steps=10, guidance=3.0
        )
        self.shape = self.model.latent_shape(self.family.frames, size, size)
        self.encode = PromptCache(self.model)
        self.clips = draw_noise(self.shape, [50, 51]) * 0.5

    def method(self, name: str = "instruct", reward: Reward | None = None, **settings: Any) -> Editing:
        kind = METHODS.load(name)
        mixture = Mixture([(reward or Redness(), 1.0)])
        context = context_of(self.policy, mixture, sampling=self.sampling, batch_size=2)
        found: Editing = kind(kind.Config(**settings), context)
        return found

    def batch(self, step: int = 0) -> Batch:
        prompts = PROMPTS[:2]
        return Batch(
            step=step,
            settings=self.sampling,
            prompts=prompts,
            conditions=self.encode(prompts),
            positions=[0, 1],
            indices=[0, 1],
            visits=[0, 0],
            tensors={"clip": self.clips},
        )

    def gradients(self, loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, self.policy.parameters, materialize_grads=True)
        return torch.cat([g.flatten() for g in found])


@pytest.fixture(scope="module", params=["wan2.1", "modelscope"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench("wan2.1", tmp_path_factory.mktemp("models") / "wan")


def test_the_step_with_gradient_runs_again_only_where_memory_is_short(flow: Bench) -> None:
    """Its graph is no larger than any other method's; that of several steps is held one step at a time. The gradient
    is the same.
    """

    def run(**settings: Any) -> tuple[int, Tensor]:
        method = flow.method(**settings)
        with Passes(flow.model.networks.values()) as passes:
            found = gradients(method.step(flow.batch()), flow.policy.parameters)
            return passes.take() // 2, torch.cat([one.flatten() for one in found])

    chain = flow.sampling.steps - flow.method()._entry(flow.shape)
    rows, plain = run()
    assert rows == 2 * chain  # both branches of guidance
    assert run(grad_steps=2)[0] == 2 * chain + 2
    flow.model.checkpointed = True
    try:
        rows, again = run()
    finally:
        flow.model.checkpointed = False
    assert rows == 2 * chain + 1
    torch.testing.assert_close(again, plain, atol=1e-7, rtol=1e-5)


def plainly(bench: Bench, method: Editing, last: int, *, detached: bool) -> Tensor:
    """The loss of step 0, written out: noise, the chain from level .66 on, its last `last` steps with graph,
    decode, weigh.
    """
    model, batch, steps = bench.model, bench.batch(), bench.sampling.steps
    noise = method._noise(batch, [derive_seed(0, "edit", 0, p) for p in (0, 1)])
    scheduler = model.new_scheduler(steps, bench.shape)
    levels = model.schedule.noise_level(model.schedule.chain_times(scheduler))
    first = min(range(steps), key=lambda i: abs(float(levels[i]) - 0.66))
    count = steps - first
    t = model.schedule.chain_times(scheduler)[first]
    x_t = model.schedule.add_noise(bench.clips, noise, t.expand(2))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    empty = bench.encode([""]).expand(2)
    for i, time in enumerate(scheduler.timesteps[first:]):
        with torch.set_grad_enabled(i >= count - last):
            positive = model.predict(x_t, time.expand(2), batch.conditions)
            with torch.set_grad_enabled(i >= count - last and not detached):
                unconditional = model.predict(x_t, time.expand(2), empty)
            guided = unconditional + 3.0 * (positive - unconditional)
            x_t = scheduler.step(guided, time, x_t, return_dict=False)[0]
    frames = method._frames(derive_seed(0, "frames", 0), bench.sampling.frames)
    video = model.decode(x_t, frames)
    count = bench.sampling.frames
    weights = torch.exp(-torch.tensor([abs(f - count / 2) * 16 / count for f in frames]))
    reward = (video[:, :, 0] - video[:, :, 2]).pow(2).mean((2, 3)) + video[:, :, 0].mean((2, 3))
    return -(reward * weights).mean()


@pytest.mark.parametrize(("last", "gradient"), [(1, False), (3, False), (2, True)])
def test_gradient_is_the_plain_one(bench: Bench, last: int, gradient: bool) -> None:
    """Also through a causal autoencoder with its feature cache."""
    method = bench.method(grad_steps=last, guidance_gradient=gradient)
    ours, theirs = method.step(bench.batch()).loss, plainly(bench, method, last, detached=not gradient)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    one, other = bench.gradients(ours), bench.gradients(theirs)
    assert float(other.norm()) > 1e-6
    assert float((one - other).norm()) < 1e-5 * float(other.norm())


def test_what_the_decoder_holds_does_not_grow_with_the_frames_looked_at(flow: Bench) -> None:
    """Runs of frames are sent back one after the other, so the most that a graph holds at once is one run's."""
    model, size = flow.model, flow.family.size
    flow.sampling, kept = flow.sampling.changed(frames=49), flow.sampling
    try:
        method, shape = flow.method(), model.latent_shape(49, size, size)
        most = []
        for frames in ([16], [16, 32, 48]):
            assert len(model.frame_runs(frames)) == len(frames)
            most.append(_held(method, draw_noise(shape, [1, 2]), frames, flow.batch()))
        assert 0 < most[1] <= 1.1 * most[0]
    finally:
        flow.sampling = kept


def _held(method: Editing, latents: Tensor, frames: Sequence[int], batch: Batch) -> int:
    """The most bytes that graphs hold at once between latents and loss."""
    alive: dict[int, int] = {}
    most = 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            alive[id(self)] = tensor.nbytes

        def __del__(self) -> None:
            alive.pop(id(self), None)

    def pack(tensor: Tensor) -> Kept:
        nonlocal most
        kept = Kept(tensor)
        most = max(most, sum(alive.values()))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        method._rewarded(latents.requires_grad_(), frames, batch)
    return most


def test_a_clip_is_noised_to_a_level_and_not_to_a_share_of_the_steps(flow: Bench) -> None:
    """On a shifted chain .6 of the steps is far more noise than the paper's: on Wan's shift 5 a clip started at .87."""
    flow.sampling, kept = flow.sampling.changed(steps=50), flow.sampling
    shift = flow.model.pipeline.scheduler.config.flow_shift
    try:
        for flow_shift in (1.0, 5.0):
            flow.model.pipeline.scheduler.register_to_config(flow_shift=flow_shift)
            levels = chain_levels(flow.model, 50, flow.shape)
            for tau in (0.66, 0.3):
                assert float(levels[flow.method(tau=tau)._entry(flow.shape)]) == pytest.approx(tau, abs=0.03)
    finally:
        flow.sampling = kept
        flow.model.pipeline.scheduler.register_to_config(flow_shift=shift)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_give_the_same_gradient(bench: Bench, size: int) -> None:
    found = []
    for micro in (None, size):
        method = bench.method(anchor=0.5)
        method.context = replace(method.context, micro_batch_size=micro)
        output = method.step(bench.batch())
        grads = torch.cat([g.flatten() for g in gradients(output, bench.policy.parameters)])
        found.append((grads, output.report))
    (one, report), (other, parts) = found
    assert parts == pytest.approx(report, rel=1e-4)
    assert float((one - other).norm()) < 1e-5 * float(one.norm())


@pytest.mark.parametrize(("settings", "expected"), [({"grad_at": [0, -1]}, [0, -1]), ({"grad_at": "random"}, None)])
def test_the_gradient_passes_through_chosen_steps(flow: Bench, settings: Any, expected: list[int] | None) -> None:
    """The network's passes of those steps have a graph, and no others."""
    method = flow.method(**settings)
    count = flow.sampling.steps - method._entry(flow.shape)
    steps = method._grad_steps(0, count)
    assert steps == ([e % count for e in expected] if expected else method._grad_steps(0, count))
    assert len({tuple(method._grad_steps(step, count)) for step in range(20)}) == (1 if expected else count)
    seen: list[bool] = []
    predict = flow.model.predict
    flow.model.predict = lambda *given: (seen.append(torch.is_grad_enabled()), predict(*given))[1]  # type: ignore[method-assign]
    try:
        method.step(flow.batch())
    finally:
        flow.model.predict = predict  # type: ignore[method-assign]
    assert [i for i, graph in enumerate(seen[::2]) if graph] == sorted(steps)
    for wrong in ([count], [0, count], [-count - 1, 0]):
        with pytest.raises(ConfigError, match=r"method\.grad_at: the chain runs \d+ steps"):
            flow.method(grad_at=wrong)


def test_what_the_graph_holds_does_not_grow_with_the_chain(bench: Bench) -> None:
    held = []
    for steps in (10, 20, 40):
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            bench.method(chain_steps=steps).step(bench.batch())
        held.append(sum(sizes))
    assert held[0] == held[1] == held[2] > 0


class TestFrames:
    def test_one_of_each_segment_and_new_ones_each_step(self, flow: Bench) -> None:
        flow_method = flow.method(segments=3)
        drawn = [flow_method._frames(derive_seed(0, "frames", step), 9) for step in range(40)]
        for low, high, column in zip((0, 3, 6), (3, 6, 9), zip(*drawn, strict=True), strict=True):
            assert set(column) == set(range(low, high))

    def test_every_frame_and_more_segments_than_frames(self, flow: Bench) -> None:
        assert flow.method(segments=0)._frames(1, 9) == list(range(9))
        assert flow.method(segments=50)._frames(1, 9) == list(range(9))

    def weights(self, flow: Bench, frames: int, **settings: Any) -> Tensor:
        return flow.method(**settings)._weights(range(frames), frames)

    def test_weights_are_the_papers(self, flow: Bench) -> None:
        """METHODS: with 16 frames and four segments about .003, .143, .388 and .007 on average."""
        raw, scaled = (self.weights(flow, 16, attenuation=kind) for kind in ("raw", "normalised"))
        torch.testing.assert_close(raw, scaled)
        expected = torch.tensor([0.003, 0.143, 0.388, 0.007])
        torch.testing.assert_close(raw.view(4, 4).mean(1), expected, atol=6e-4, rtol=0)
        wide = self.weights(flow, 64).view(4, 16).mean(1)
        # on longer clips the middle weighs as much as before; a finer grid only shares it out evenly
        assert abs(float(wide[1:3].sum() - expected[1:3].sum())) < 0.04
        assert float(wide[[0, 3]].max()) < 0.01
        raw = self.weights(flow, 64, attenuation="raw").view(4, 16).mean(1)
        assert float(raw[1:3].sum()) < 0.3 * float(expected[1:3].sum())
        assert self.weights(flow, 64, attenuation="none").unique().tolist() == [1.0]


def test_a_reward_of_clips_sees_the_clip_and_one_of_frames_the_frames(flow: Bench) -> None:
    """With nothing to the left cut off, both give the same loss."""
    flow.model.decode_context = 4  # type: ignore[misc]
    alone, whole = (flow.method(reward=reward).step(flow.batch()) for reward in (Redness(), Whole()))
    torch.testing.assert_close(alone.loss, whole.loss)
    assert "motion" in whole.report
    assert "motion" not in alone.report


def test_a_reward_at_its_target_gives_no_gradient(flow: Bench) -> None:
    assert float(flow.gradients(flow.method(reward_cap=-100.0).step(flow.batch()).loss).norm()) == 0
    assert float(flow.gradients(flow.method(reward_cap=100.0).step(flow.batch()).loss).norm()) > 0


def test_every_step_has_a_noise_of_its_own(flow: Bench) -> None:
    found = [float(flow.method(segments=0).step(flow.batch(step)).loss.detach()) for step in (0, 1, 2)]
    assert len(set(found)) == 3


def test_the_anchor_is_zero_at_the_reference(flow: Bench) -> None:
    free, output = (flow.method(anchor=weight).step(flow.batch()) for weight in (0.0, 0.25))
    assert output.report["anchor"] > 0
    assert float((output.loss - free.loss).detach()) == pytest.approx(0.25 * output.report["anchor"], rel=1e-3)
    state = flow.policy.state()
    flow.policy.load_state({k: torch.zeros_like(v) if "lora_B" in k else v for k, v in state.items()}, None)
    try:
        assert flow.method(anchor=1.0).step(flow.batch()).report["anchor"] == 0
    finally:
        flow.policy.load_state(state, None)


@pytest.mark.parametrize("name", ["draft", "alignprop", "vader"])
def test_presets_start_from_noise(flow: Bench, name: str) -> None:
    method = flow.method(name)
    assert method.config.start == "noise"
    output = method.step(flow.batch())
    assert float(flow.gradients(output.loss).norm()) > 0
    without = replace(flow.batch(), tensors={})
    torch.testing.assert_close(method.step(without).loss, output.loss)  # no clip is looked at
    if name == "alignprop":
        assert {method._grad_steps(step, 4) for step in range(40)} == {1, 2, 3, 4}


def run(bench: Bench, folder: Path, steps: int, **settings: Any) -> list[dict[str, float]]:
    class Source:
        prompts = inputs = names = PROMPTS[:4]
        sizes = None

        def ahead(self, indices: list[int]) -> None:
            pass

        def tensors(self, indices: list[int]) -> dict[str, Tensor]:
            return {"clip": draw_noise(bench.shape, [50 + i for i in indices]) * 0.5}

    bench.model.use(bench.sampling)
    return train_briefly(
        bench.model,
        Source(),
        folder,
        Redness(),
        steps=steps,
        batch_size=2,
        method={"name": "instruct", **settings},
        lora={"rank": 2, "alpha": 4},
        optimiser={"lr": 1e-2},
        validation={"every": 2},
        checkpoints={"every": 2, "keep": 2},
    )


def test_learns_and_resumes_exactly(tmp_path: Path) -> None:
    bench = Bench("wan2.1", tmp_path / "model")
    bench.model.network.delete_adapters(["default"])
    whole = run(bench, tmp_path / "whole", 4)
    run(bench, tmp_path / "parts", 2)
    assert run(bench, tmp_path / "parts", 4) == whole
    assert whole[-1]["heldout_reward"] > whole[1]["heldout_reward"]
    assert "heldout_motion" in whole[1]


@pytest.mark.parametrize("name", ["modelscope", "animatediff"])  # diffusers may drop the first
def test_as_in_the_paper(name: str, tmp_path: Path) -> None:
    """Its own kind of model and settings: DDIM with 20 steps, epsilon, 16 frames, from step 9 of the chain (t = 551),
    gradient through the unconditional branch too. Random weights: what rises is the reward on held-out clips.
    """
    bench = Bench(name, tmp_path / "model")
    bench.model.network.delete_adapters(["default"])
    bench.sampling = replace(bench.sampling, frames=16, steps=20, guidance=9.0)
    bench.shape = bench.model.latent_shape(16, bench.sampling.height, bench.sampling.width)
    entered: list[float] = []
    watch = bench.model.network.register_forward_pre_hook(lambda _, inputs: entered.append(float(inputs[1][0])))
    rows = run(bench, tmp_path / "run", 4, guidance_gradient=True, attenuation="raw")
    watch.remove()
    chain = list(dict.fromkeys(entered))
    assert chain == [551.0 - 50 * i for i in range(12)]
    assert rows[-1]["heldout_reward"] > rows[1]["heldout_reward"]
