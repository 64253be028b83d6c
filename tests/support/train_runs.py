"""What tests run in several processes side by side: `vpo` commands, and sharded networks of several families."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from vpo_kit import models
from vpo_kit.cli import main
from vpo_kit.config import Lora
from vpo_kit.models.base import VideoModel
from vpo_kit.processes import Processes
from vpo_kit.sampler import draw_noise
from vpo_kit.testing.rewards import stub
from vpo_kit.training.lora import LoraPolicy, added_weights


def some_ties(video: Tensor, prompts: Sequence[str]) -> Tensor:
    """The mean pixel, and the same for every video of a prompt with a circle: such a prompt gives no pair."""
    return torch.where(torch.tensor(["circle" in prompt for prompt in prompts]), 0.5, video.flatten(1).mean(1))


SomeTies = stub("some_ties", some_ties, needs_prompt=True)


def run(commands: Sequence[Sequence[str]]) -> None:
    """Each command in turn, until one fails; ``families FOLDER NAME...`` is `compare_families`."""
    for command in commands:
        if command[0] == "families":
            compare_families(Path(command[1]), command[2:])
            continue
        try:
            main(list(command))
        except SystemExit as end:
            if end.code:
                raise


def compare_families(root: Path, names: Sequence[str]) -> None:
    """Output and LoRA gradient of each pipeline ``ROOT/NAME`` before and after its network is sharded, and the share
    of the frozen numbers that is left, as JSON ``{name: [difference, difference, share]}`` in ``ROOT/RANK.json``.
    """
    from vpo_kit.testing.families import FAMILIES

    processes, found = Processes(), {}
    for name in names:
        model = models.load(str(root / name))
        for key, value in FAMILIES[name].attributes.items():
            setattr(model.pipeline, key, value)
        policy = LoraPolicy(model, Lora(rank=2, alpha=2), seed=0)
        with torch.no_grad():
            for parameter in policy.parameters:
                parameter.add_(0.02)
        shape = model.latent_shape(FAMILIES[name].frames, FAMILIES[name].size, FAMILIES[name].size)
        # where there are two experts, each process needs another one
        t, x = torch.tensor([[900.0, 100.0][processes.rank]]), draw_noise(shape, [processes.rank])
        one, size = gradient(policy, x, t), held(model)
        for network in model.networks.values():
            processes.shard(network, whole=added_weights(network))
        two = gradient(policy, x, t)
        apart = [float((a - b).norm() / a.norm()) for a, b in zip(one, two, strict=True)]
        found[name] = [*apart, held(model) / size]
    (root / f"{processes.rank}.json").write_text(json.dumps(found))


def gradient(policy: LoraPolicy, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The network's output, and the gradient of its mean square in the LoRA's weights."""
    for parameter in policy.parameters:
        parameter.grad = None
    output = policy.model.predict(x, t, policy.model.encode_prompts(["a red circle"]))
    output.pow(2).mean().backward()  # type: ignore[no-untyped-call]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters]
    return output.detach(), torch.cat([grad.flatten() for grad in grads])


def held(model: VideoModel) -> int:
    """Numbers of the frozen networks that lie in this process."""
    frozen = [p for network in model.networks.values() for p in network.parameters() if not p.requires_grad]
    return sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in frozen)
