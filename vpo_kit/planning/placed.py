"""The weights of a rehearsed model: which part of the memory each is in, how often it is there, and when it comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpo_kit.models.base import VideoModel, stacks
from vpo_kit.models.small_linear import BYTES
from vpo_kit.planning import elsewhere
from vpo_kit.planning.counting import PARTS, MemoryTracker
from vpo_kit.planning.estimate import Subject
from vpo_kit.rewards.base import Reward
from vpo_kit.training import sampling_lora
from vpo_kit.training.lora import POLICY, REFERENCE, LoraPolicy


class PlacedWeights:
    """All weights, handed to their parts, and `parameters`, how many each has; some `blocks` stand for several.

    What is offloaded takes nothing while it waits, nor do encoders, which leave, and the networks, LoRA and judges,
    which come when they have left (`arrive`).
    """

    def __init__(
        self,
        subject: Subject,
        model: VideoModel,
        policy: LoraPolicy,
        judges: Sequence[Reward],
        tracker: MemoryTracker,
        blocks: dict[nn.Module, int],
    ) -> None:
        self._run, self._model, self._tracker = subject.run, model, tracker
        self._times = {id(tensor): count for block, count in blocks.items() for tensor in _tensors(block)}
        self.decoder_comes = subject.run.offload or not subject.method.needs.decodes(subject.data)
        """Whether autoencoder and judges are on the device only while they are at work."""
        self.waiting = elsewhere.waiting(model) if subject.run.group_offload else set[int]()
        """The weights that wait in the machine's memory, by their ids."""
        self._coming: list[tuple[Tensor, str, float]] = []
        counts = Counter[str]()
        self._adopt_pipeline(counts)
        self._adopt_judges(judges, counts)
        for parameter in policy.parameters:
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda p: self.adopt_of(p, [p.grad] if p.grad is not None else [])
            )
        self.parameters: dict[str, int] = {part: counts[part] for part in PARTS if counts[part]}

    def adopt_of(self, parameter: Tensor, tensors: Sequence[Tensor], share: float = 1.0) -> None:
        """What training keeps of a LoRA's parameter: as often as its block stands for."""
        self._tracker.adopt(tensors, "lora", share * self._times.get(id(parameter), 1))

    def arrive(self) -> None:
        """What waited for the encoders to leave is there from now on."""
        for tensor, part, share in self._coming:
            self._tracker.adopt([tensor], part, share)  # type: ignore[arg-type]

    def arrived(self, tensor: Tensor) -> Tensor:
        """A copy, which is as large as those of all blocks that its own stands for."""
        copy = elsewhere.copied(tensor)
        self._tracker.adopt([copy], None, self._times.get(id(tensor), 1))
        return copy

    def _adopt_pipeline(self, counts: Counter[str]) -> None:
        run, model = self._run, self._model
        for name, part in model.pipeline.components.items():
            if not isinstance(part, nn.Module):
                continue
            kind = "weights" if name in model.networks else "autoencoder" if name == "vae" else "text"
            small = _linear(part, run.quantise) if kind == "weights" else set[int]()
            for key, tensor in (*part.named_parameters(), *part.named_buffers()):
                own = "lora" if f".{POLICY}." in key else "reference" if f".{REFERENCE}." in key else kind
                times = self._times.get(id(tensor), 1)
                share = times * (BYTES[run.quantise] / tensor.element_size() if id(tensor) in small else 1.0)
                stays = kind == "autoencoder" and not self.decoder_comes
                self._tracker.adopt([tensor], own, share if stays else 0.0)  # type: ignore[arg-type]
                there = kind == "weights" and id(tensor) not in self.waiting
                self._coming += [(tensor, own, share)] if there else []
                counts[own] += tensor.numel() * times
        if model.preview is not None:
            decoder = list(model.preview.parameters())
            self._tracker.adopt(decoder, "autoencoder")
            counts["autoencoder"] += sum(tensor.numel() for tensor in decoder)
        if run.sampling.lora is not None:
            with self._tracker.fake:
                sampler = torch.empty(sampling_lora.size(run.sampling.lora), dtype=getattr(torch, run.dtype))
            self._coming.append((sampler, "weights", 1.0))

    def _adopt_judges(self, judges: Sequence[Reward], counts: Counter[str]) -> None:
        for judge in judges:
            tensors = _tensors(judge)
            self._tracker.adopt(tensors, "reward", 0.0)
            self._coming += [] if self.decoder_comes else [(tensor, "reward", 1.0) for tensor in tensors]
            counts["reward"] += sum(tensor.numel() for tensor in tensors)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _linear(network: nn.Module, kind: str) -> set[int]:
    """The weights that quantisation of this kind makes small, by their ids: int8 those of all linear layers, fp8 and
    nf4 those in the stacks.
    """
    if kind == "none":
        return set()
    parts = [network] if kind == "int8" else stacks(network).values()
    named = [one for part in parts for one in part.named_modules() if "lora_" not in one[0]]
    return {id(layer.weight) for _, layer in named if isinstance(layer, nn.Linear)}
