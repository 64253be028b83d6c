"""From what is preferred to what training does with it: errors of the model on the videos themselves, measured here.

Each method takes a few steps on one small batch whose preferences are planted, then the same with them inverted: the
video that was called better must have become more likely of the two, for each item and, where labels are by frame, for
each half of the clip. Nothing is taken from what a method says of itself but, at the end, that it says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import PROMPTS
from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.methods.base import Batch, StepOutput
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.encoding import PromptCache
from vpo_kit.registry import METHODS
from vpo_kit.rewards.base import Reward
from vpo_kit.sampler import Guidance, PartialStart, derive_seed, draw_noise, sample
from vpo_kit.testing.rewards import stub
from vpo_kit.testing.steps import context_of
from vpo_kit.training.loop import backward
from vpo_kit.training.lora import LoraPolicy

STEPS, CANDIDATES = 12, 3
TEXTS = PROMPTS[:2]


def redness(video: Tensor, _: Sequence[str]) -> Tensor:
    return (video[:, :, 0] - video[:, :, 2]).flatten(1).mean(1)


def blueness(video: Tensor, _: Sequence[str]) -> Tensor:
    return -redness(video, _)


class Bench:
    """A fresh LoRA on the tiny model, and its errors on given latents at given times and noises."""

    def __init__(self, model: VideoModel) -> None:
        self.model, self.encode = model, PromptCache(model)
        self.shape = model.latent_shape(9, 32, 32)
        self.policy = LoraPolicy(model, Lora(rank=8, alpha=16), seed=0)

    def close(self) -> None:
        self.model.network.delete_adapters([n for n in ("default", "reference") if n in self.model.network.peft_config])

    def method(self, name: str, reward: Reward | None = None, **settings: Any) -> Any:
        kind = METHODS.load(name)
        return kind(kind.Config(**settings), context_of(self.policy, reward, batch_size=len(TEXTS)))

    def train(self, method: Any, batch: Batch) -> StepOutput:
        optimiser = torch.optim.AdamW(self.policy.parameters, lr=3e-3, weight_decay=0)
        for step in range(STEPS):
            optimiser.zero_grad()
            output: StepOutput = method.step(batch.at(step))
            backward(output)
            optimiser.step()
        return output

    @torch.no_grad()
    def errors(self, x: Tensor, texts: Sequence[str]) -> Tensor:
        """By latent frame ``[N, T]``, mean over times that cover the axis; the noise is that of the row's number."""
        schedule, found = self.model.schedule, []
        conditions = Conditions.cat([self.encode([text]) for text in texts])
        for number, place in enumerate((0.2, 0.4, 0.6, 0.8)):
            t = schedule.at(torch.full((len(x),), place))
            eps = draw_noise(self.shape, [7 + number] * len(x))
            output = self.model.predict(schedule.add_noise(x, eps, t), schedule.network_time(t), conditions)
            found.append((output - schedule.target(x, eps, t)).pow(2).mean((1, 3, 4)))
        return torch.stack(found).mean(0)


@pytest.fixture
def bench(tiny_wan: Path) -> Iterator[Bench]:
    found = Bench(models.load(str(tiny_wan)))
    yield found
    found.close()


def asked(bench: Bench) -> Batch:
    """Both prompts, and nothing else."""
    return Batch(
        step=0,
        settings=bench.model.settings,
        prompts=TEXTS,
        conditions=bench.encode(TEXTS),
        positions=[0, 1],
        indices=[0, 1],
        visits=[0, 0],
    )


def labelled(bench: Bench, label: Tensor, labels: Tensor) -> Batch:
    """Two pairs of their own prompts: `label` ``[2]`` of the clips, `labels` ``[2, T]`` of the latent frames."""
    first, second = (draw_noise(bench.shape, [seed, seed + 1]) for seed in (10, 20))
    return replace(
        asked(bench), tensors={"first": first, "second": second, "clip": first, "label": label, "labels": labels}
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("structural", {}), ("dpo", {"link": "ipo", "beta": 20.0}), ("structural", {"safeguard": 0.1}), ("kto", {}),
        ("mapo", {"beta": 20.0}), ("dense", {"per": "mean"}),
    ],
)  # fmt: skip
def test_the_better_clip_becomes_the_likelier_one(
    bench: Bench, name: str, settings: dict[str, Any], sign: float
) -> None:
    """Of two pairs with opposite labels each goes its own way."""
    label = sign * torch.tensor([1.0, -1.0])
    batch = labelled(bench, label, label[:, None].expand(-1, bench.shape[1]))
    clips = [batch.tensors["first"], batch.tensors["second"]]
    before = [bench.errors(x, TEXTS).mean(1) for x in clips]
    output = bench.train(bench.method(name, **{"num_draws": 2, **settings}), batch)
    first, second = (bench.errors(x, TEXTS).mean(1) - old for x, old in zip(clips, before, strict=True))
    assert ((second - first) * label > 1e-4).all()
    if name != "mapo":  # whose report is of the errors themselves
        assert output.by_label["implicit_accuracy"] > 0.5
        assert output.by_label["loser_error_change"] > output.by_label["winner_error_change"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_labels_of_frames_move_their_own_frames(bench: Bench, sign: float) -> None:
    """The first member is better in its first latent frame, the second in the last one."""
    labels = sign * torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]])
    batch = labelled(bench, torch.zeros(2), labels)
    clips = [batch.tensors["first"], batch.tensors["second"]]
    before = [bench.errors(x, TEXTS) for x in clips]
    bench.train(bench.method("dense", num_draws=2), batch)
    first, second = (bench.errors(x, TEXTS) - old for x, old in zip(clips, before, strict=True))
    assert (((second - first) * labels)[:, [0, 2]] > 1e-4).all()


def test_a_tie_moves_nothing(bench: Bench) -> None:
    batch = labelled(bench, torch.zeros(2), torch.zeros(2, bench.shape[1]))
    before = bench.policy.state()
    bench.train(bench.method("structural"), batch)
    assert all(torch.equal(value, before[key]) for key, value in bench.policy.state().items())


def test_sft_makes_its_clips_likelier(bench: Bench) -> None:
    batch = labelled(bench, torch.ones(2), torch.ones(2, bench.shape[1]))
    kept, other = batch.tensors["clip"], batch.tensors["second"]
    before = [bench.errors(x, TEXTS).mean(1) for x in (kept, other)]
    bench.train(bench.method("sft", num_draws=2), batch)
    gains = [old - bench.errors(x, TEXTS).mean(1) for x, old in zip((kept, other), before, strict=True)]
    assert (gains[0] > 1e-4).all()
    assert gains[0].mean() > gains[1].mean()


@pytest.mark.parametrize("score", [redness, blueness])
@pytest.mark.parametrize(
    ("name", "settings"),
    [("online", {}), ("nft", {"rollout_guidance": 1.0}), ("rwr", {"temperature": 0.3})],
)  # fmt: skip
def test_of_fresh_videos_the_best_becomes_likelier_than_the_worst(
    bench: Bench, name: str, settings: dict[str, Any], score: Any
) -> None:
    """The candidates are made here again, from the seeds that the architecture documents: each prompt's own, under its
    own prompt, with guidance where there is some.
    """
    method = bench.method(
        name, stub("colour", score)(), num_candidates=CANDIDATES, num_draws=2, updates_per_rollout=STEPS, **settings
    )
    model, n = bench.model, CANDIDATES
    repeated = [text for text in TEXTS for _ in range(n)]
    conditions = Conditions.cat([bench.encode([text]) for text in repeated])
    scale = settings.get("rollout_guidance", model.settings.guidance)
    guidance = Guidance(scale, bench.encode([""]).expand(len(repeated)))
    noise = draw_noise(bench.shape, [derive_seed(0, "rollout", 0, i) for i in range(len(repeated))])
    with torch.no_grad():
        latents = sample(model, conditions, noise=noise, steps=model.settings.steps, guidance=guidance)
        scores = score(model.decode(latents), repeated).view(len(TEXTS), n)
    before = bench.errors(latents, repeated).mean(1)
    batch = asked(bench)
    bench.train(method, batch)
    change = (bench.errors(latents, repeated).mean(1) - before).view(len(TEXTS), n)
    best, worst = scores.argmax(1, keepdim=True), scores.argmin(1, keepdim=True)
    lead = change.gather(1, worst) - change.gather(1, best)
    assert lead.mean() > 1e-4
    if name != "rwr":  # which knows no worst, and here fits two videos at once
        assert (lead > 1e-4).all()


@pytest.mark.parametrize("score", [redness, blueness])
def test_the_steps_of_the_best_become_likelier_than_those_of_the_worst(bench: Bench, score: Any) -> None:
    """Of the chain that each prompt's candidates went, by the Gaussian of every step."""
    settings = {"num_candidates": CANDIDATES, "updates_per_rollout": STEPS, "clip": 0.2}
    method = bench.method("grpo", stub("colour", score)(), **settings)
    batch = asked(bench)
    bench.train(method, batch)
    kept, model = method._fresh.tensors, bench.model
    repeated = [text for text in TEXTS for _ in range(CANDIDATES)]
    conditions = Conditions.cat([bench.encode([text]) for text in repeated])
    gains, steps = list[Tensor](), kept["steps"][0].tolist()
    with torch.no_grad():
        for place, number in enumerate(steps):
            went = method._go(number, kept["x"][:, place], conditions)
            gains.append(went.log_prob(kept["next"][:, place]) - kept["likelihood"][:, place])
        with bench.policy.reference():  # where the run began, and the candidates were made
            end = method._go(method._steps - 1, kept["next"][:, -1], conditions, noisy=False)
        scores = score(model.decode(end.mean), repeated).view(len(TEXTS), CANDIDATES)
    gain = torch.stack(gains).mean(0).view(len(TEXTS), CANDIDATES)
    lead = gain.gather(1, scores.argmax(1, keepdim=True)) - gain.gather(1, scores.argmin(1, keepdim=True))
    assert (lead > 1e-3).all()


@pytest.mark.parametrize("score", [redness, blueness])
@pytest.mark.parametrize("name", ["instruct", "draft", "alignprop", "vader"])
def test_the_reward_of_what_is_sampled_rises(bench: Bench, name: str, score: Any) -> None:
    """From the same noises, or from the same clips at the same level, before and after."""
    batch = labelled(bench, torch.ones(2), torch.ones(2, bench.shape[1]))
    model, conditions = bench.model, bench.encode(TEXTS)
    start = PartialStart(batch.tensors["clip"], 1) if name == "instruct" else None

    def worth() -> Tensor:
        guidance = Guidance(model.settings.guidance, bench.encode([""]))
        noise = draw_noise(bench.shape, [91, 92])
        with torch.no_grad():
            latents = sample(model, conditions, noise=noise, steps=model.settings.steps, guidance=guidance, start=start)
            found: Tensor = score(model.decode(latents), TEXTS)
        return found

    before = worth()
    bench.train(bench.method(name, stub("colour", score)()), batch)
    assert (worth() - before > 1e-3).all()
