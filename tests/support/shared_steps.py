"""One step of every method by as many processes as there are: what each adds up to, and the gradient that is left."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vpo_kit import models
from vpo_kit.config import Lora
from vpo_kit.methods.from_rollouts import Candidates
from vpo_kit.models.base import VideoModel
from vpo_kit.models.encoding import PromptCache
from vpo_kit.pairing import store
from vpo_kit.processes import Processes
from vpo_kit.registry import METHODS
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.steps import context_of
from vpo_kit.training.data import Prompts, Source
from vpo_kit.training.loop import backward
from vpo_kit.training.lora import LoraPolicy, added_weights
from vpo_kit.training.paired import Pairs
from vpo_kit.training.stream import Stream

BATCH = 2
"""Items of a step; of the pairs each has another number of labels."""
PROMPTS = ["a red circle moving right", "a blue square"]
SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {"num_draws": 2},
    "structural": {"fixed_draws": 2, "safeguard": 0.1},
    "dpo": {"weight_alpha": 0.5, "anchor": 0.3},
    "kto": {"good_weight": 2.0},
    "mapo": {"num_draws": 2},
    "sft": {},
    "instruct": {"anchor": 0.1},
    "online": {"num_candidates": 2, "num_draws": 2},
    "nft": {"num_candidates": 2},
    "grpo": {"num_candidates": 2, "kl": 0.1},
    "rwr": {"num_candidates": 2, "of": "reward", "temperature": 0.1},
}


def compare(model: str, pairs: str, folder: str) -> None:
    """The main process writes ``NAME.safetensors`` and, as JSON, the losses; each process ``sums-RANK.json``."""
    processes, place = Processes(), Path(folder)
    (place / f"sums-{processes.rank}.json").write_text(json.dumps(sums(processes)))
    found, loaded = {}, models.load(model)
    for name, gradient, loss in steps(loaded, Path(pairs), SETTINGS, processes):
        if processes.is_main:
            save_file({"gradient": gradient}, place / f"{name}.safetensors")
        found[name] = loss
    if processes.is_main:
        (place / "losses.json").write_text(json.dumps(found))


def steps(
    model: VideoModel, pairs: Path, names: Iterable[str], processes: Processes
) -> Iterable[tuple[str, Tensor, dict[str, float]]]:
    """Each method, the gradient of its step in all weights as one row, and its loss with what is reported."""
    encode = PromptCache(model)
    for name in names:
        policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
        with torch.no_grad():
            for i, parameter in enumerate(policy.parameters):
                parameter.add_(0.02 * (i % 3))
        kind, found = METHODS.load(name), store.read(pairs)
        fresh = "prompts" in kind.needs.data and kind.needs.data[0] == "prompts"
        source: Source = Prompts(PROMPTS) if fresh else Pairs(pairs, found.pairs, model.frame_map(9))
        reward = None if kind.needs.reward == "none" else Brightness()
        scores = None if fresh else source.scores  # type: ignore[attr-defined]
        context = context_of(policy, reward, batch_size=BATCH, scores=scores, processes=processes)
        method = kind(kind.Config(**SETTINGS[name]), context)
        stream = Stream(source, range(len(source.prompts)), BATCH, 0, encode, processes, context.sampling)
        output = method.step(stream.batch(0, 0))
        loss = processes.total(backward(output))
        processes.sum_gradients(policy.parameters)
        rows = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters]
        logged = processes.mean(output.report) | processes.mean(output.by_label, output.num_labels)
        yield name, torch.cat([row.flatten() for row in rows]), {"loss": float(loss), **logged}
        model.network.delete_adapters(list(model.network.peft_config))


UNEVEN: dict[str, tuple[set[int], dict[str, Any]]] = {
    "few": ({0, 2, 4, 6, 1}, {}),
    "few, one size": ({0, 2, 4, 6, 1}, {"micro_batch_size": 4}),
    "none": ({0, 2, 4, 6}, {"anchor": 1.0}),
    "none, one size": ({0, 2, 4, 6}, {"anchor": 1.0, "micro_batch_size": 4}),
    "none, another size": ({0, 2, 4, 6}, {"anchor": 1.0, "micro_batch_size": 8}),
}
"""Which of eight prompts give a pair, of which the second of two processes has less, and what else is set."""


def uneven(model: str, pairs: str, folder: str) -> None:
    """Each process writes ``uneven-RANK.json``, by two processes whose base is sharded."""
    processes = Processes()
    found = dict(unequal(models.load(model), Path(pairs), processes))
    Path(folder, f"uneven-{processes.rank}.json").write_text(json.dumps(found))


def unequal(model: VideoModel, pairs: Path, processes: Processes) -> Iterable[tuple[str, dict[str, Any]]]:
    """Validation on five pairs, and a step on fresh pairs of which processes have unequal numbers: this process's
    passes, what is logged, its gradient's norm, and the gradient of all.
    """
    policy, encode = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0), PromptCache(model)
    with torch.no_grad():
        for i, parameter in enumerate(policy.parameters):
            parameter.add_(0.02 * (i % 3))
    processes.shard(model.network, whole=added_weights(model.network))
    passes = list[int]()
    model.network.register_forward_pre_hook(lambda *_: passes.append(1))
    source = Pairs(pairs, store.read(pairs).pairs[:5], model.frame_map(9))
    for name in ("dense", "sft"):
        context = context_of(policy, batch_size=8, processes=processes, micro_batch_size=8)
        method, stream = METHODS.load(name), Stream(source, range(5), 8, 0, encode, processes, context.sampling)
        passes.clear()
        logged = method(method.Config(), context).validate(stream.in_order())
        yield name, {"passes": len(passes), "logged": logged}
    for name, (giving, settings) in UNEVEN.items():
        own = {key: value for key, value in settings.items() if key != "micro_batch_size"}
        size, method = settings.get("micro_batch_size"), METHODS.load("online")
        context = context_of(policy, Brightness(), batch_size=8, processes=processes, micro_batch_size=size)
        online = method(method.Config(beta=20.0, num_candidates=2, **own), context)
        fresh = online.select(candidates(model, processes.share(range(8)), giving))
        for parameter in policy.parameters:
            parameter.grad = None
        passes.clear()
        output = online.update(fresh, 0)
        loss = processes.total(backward(output))
        row = torch.cat([p.grad.flatten() for p in policy.parameters if p.grad is not None])
        logged = {"loss": float(loss), **processes.mean(output.report)}
        gradient = processes.total(row).tolist()
        yield name, {"passes": len(passes), "logged": logged, "norm": float(row.norm()), "gradient": gradient}


def candidates(model: VideoModel, positions: Sequence[int], giving: set[int]) -> Candidates:
    """Two of each prompt, judged alike but for those that give a pair."""
    latents = draw_noise(model.latent_shape(9, 32, 32), [2 * p + i for p in positions for i in (0, 1)])
    return Candidates(
        latents=latents, scores=torch.tensor([[0.0, 1.0 if p in giving else 0.0] for p in positions]),
        motion=torch.ones(len(latents)), conditions=model.encode_prompts([f"prompt {p}" for p in positions]),
        positions=positions, report={},
    )  # fmt: skip


def sums(processes: Processes) -> dict[str, Any]:
    """What a process gets of each way of sharing, given what only it knows: its rank, from 1 on."""
    own, items = processes.rank + 1, list(range(5))
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), float(own))
    if processes.is_main:
        parameters[1].grad = torch.full((2,), 5.0)
    processes.sum_gradients(parameters)
    return {
        "share": processes.share(items),
        "total": float(processes.total(torch.tensor(float(own)))),
        "gather": processes.gather([own] * own),
        "agree": processes.agree(own),
        "mean": processes.mean({"all": float(own), **({"second": 7.0} if own == 2 else {})}, weight=own),
        "gradients": [None if p.grad is None else p.grad.tolist() for p in parameters],
        "lockstep": processes.lockstep(own),
    }


def in_turn(folder: str, ranks: Sequence[int] = (0, 1)) -> None:
    """The main process works first, and is slow at it; what the other one finds then is in ``seen-RANK``."""
    processes, place = Processes(), Path(folder)

    def work() -> list[str]:
        time.sleep(0.3 if processes.is_main else 0.0)
        found = [f"by-{rank}" for rank in ranks if (place / f"by-{rank}").exists()]
        (place / f"by-{processes.rank}").touch()
        return found

    (place / f"seen-{processes.rank}").write_text(" ".join(processes.main_first(work)))
    if not processes.is_main:
        time.sleep(0.3)
        (place / "late").touch()
    processes.wait()
    (place / f"waited-{processes.rank}").write_text(str((place / "late").exists()))
