"""The policy: a model with a trainable LoRA, whose reference costs no second copy of the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from vpo_kit import config, files
from vpo_kit.errors import ConfigError, OutputError, first_line
from vpo_kit.models.base import VideoModel

POLICY, REFERENCE, BEGINNING = "default", "reference", "beginning"
WEIGHTS_NAME = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Start:
    """A finished LoRA to start from: its weights in the names of `LoraPolicy.state`, and how it was made."""

    state: dict[str, Tensor]
    rank: int
    alpha: float
    targets: list[str]


def added_weights(network: nn.Module) -> list[nn.Parameter]:
    """What PEFT has added to `network`: the LoRA's weights, of policy and reference."""
    return [p for name, p in network.named_parameters() if ".lora_A." in name or ".lora_B." in name]


def file_name(model: VideoModel, name: str) -> str:
    """What the file of the network `name` is called in a LoRA folder."""
    return f"{model.experts[name]}.safetensors" if model.experts else WEIGHTS_NAME


class LoraPolicy:
    """`model` with a LoRA in float32 on each trained network. The reference is the LoRA switched off until it moves,
    then a second one.

    With a `start`, policy and reference both begin as that LoRA: the run moves away from it, not from the bare model.
    Raises `ConfigError` where `settings` name layers or experts that the model lacks, or others than `start` has.
    """

    def __init__(self, model: VideoModel, settings: config.Lora, seed: int, start: Start | None = None) -> None:
        self.model = model
        self.networks = {name: model.networks[name] for name in _trained(model, settings, start)}
        targets = list(settings.targets or (start.targets if start else model.lora_targets))
        self._config = LoraConfig(r=settings.rank, lora_alpha=settings.scale * settings.rank, target_modules=targets)
        self._has_reference = self._has_beginning = False
        self._start = start
        self._strength = 1.0
        state = torch.get_rng_state()
        torch.manual_seed(seed)  # PEFT draws the first weights from the global state
        self._add(POLICY)
        torch.set_rng_state(state)
        networks = self.networks.values()
        self._layers = [module for n in networks for module in n.modules() if isinstance(module, BaseTunerLayer)]
        if start is not None:
            self._begin(start)

    @property
    def start(self) -> Mapping[str, Tensor] | None:
        """The weights of the LoRA that the policy began as, in the names of `state`; None for a new one."""
        return self._start.state if self._start else None

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The trainable weights of each network, in a fixed order; of two networks by the family's words."""
        return {
            self.model.experts.get(name, name): [p for key, p in network.named_parameters() if f".{POLICY}." in key]
            for name, network in self.networks.items()
        }

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable weights of all networks, in a fixed order."""
        return [p for own in self.groups.values() for p in own]

    @contextmanager
    def reference(self) -> Iterator[None]:
        self._switch(REFERENCE if self._has_reference else None)
        try:
            yield
        finally:
            self._switch(POLICY)

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """The model with its LoRA off, or with the one that the run began with, which is then a third one."""
        if self._start is not None and not self._has_beginning:
            self._add(BEGINNING)
            self._has_beginning = True
            self._write(self._start.state, BEGINNING)
        self._switch(BEGINNING if self._has_beginning else None)
        try:
            yield
        finally:
            self._switch(POLICY)

    @torch.no_grad()
    def refresh_reference(self, decay: float) -> None:
        """``reference <- decay * reference + (1 - decay) * policy``, on the products' factors; 0 is a hard copy.

        The average of factors is not the factor of averages; for an average over many small steps the two are close,
        and a hard copy is exact.
        """
        policy = self.state()
        if not self._has_reference:
            self._start_reference()
        reference = self.reference_state()
        assert reference is not None
        mixed = {k: torch.lerp(policy[k], v, decay) for k, v in reference.items()}
        self._write(mixed, REFERENCE)

    def state(self) -> dict[str, Tensor]:
        """The LoRA's weights in PEFT's names; of a model with several networks, the network's name comes first."""
        return self._read(POLICY)

    def reference_state(self) -> dict[str, Tensor] | None:
        """The second LoRA's weights, or None while the reference is the bare model."""
        return self._read(REFERENCE) if self._has_reference else None

    def load_state(self, policy: dict[str, Tensor], reference: dict[str, Tensor] | None) -> None:
        self._write(policy, POLICY)
        if reference is not None:
            if not self._has_reference:
                self._start_reference()
            self._write(reference, REFERENCE)

    def keep(self, strength: float) -> None:
        """Apply so much of what was learned and no more, for good: 0 is where the run began, 1 what was trained.

        From a LoRA that the run began with strength counts from that one: both are then active, which adds their
        products exactly, and the reference is that one again.
        """
        self._strength = strength
        if self._start is not None:
            self._write(self._start.state, REFERENCE)
        for layer in self._layers:
            if self._start is not None:
                layer.set_adapter([POLICY, REFERENCE])
                layer.set_scale(REFERENCE, 1 - strength)
            layer.set_scale(POLICY, strength)

    @contextmanager
    def holding(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the policy has these weights; nothing happens where there are none."""
        if not state:
            yield
            return
        own = self.state()
        self._write(dict(state), POLICY)
        try:
            yield
        finally:
            self._write(own, POLICY)

    def export(self, folder: Path) -> None:
        """Write the LoRA as ``pipe.load_lora_weights`` reads it, alpha included: a file for each trained network, whole
        and on the disk, as what says that a run is done comes later.

        Diffusers tells experts apart by an argument, and not by the keys in the file. Raises `OutputError`.
        """
        part, state, double = self.model.network_name, self.kept_state(), self._is_blend
        for name, network in self.networks.items():
            settings = network.peft_config[POLICY].to_dict()
            # PEFT keeps targets as a set, whose order changes from process to process: the same run, the same bytes
            settings = {k: sorted(v) if isinstance(v, set) else v for k, v in settings.items()}
            # of a blend the strength is in the factors, which lie side by side: twice the rank at the same scale
            factor = 2 if double else self._strength
            settings |= {"lora_alpha": settings["lora_alpha"] * factor, "r": settings["r"] * (2 if double else 1)}
            layers = part_of(state, self.model.prefix(name))
            content = {f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": settings}
            try:
                with files.beside(folder / file_name(self.model, name)) as partial:
                    self.model.pipeline.save_lora_weights(str(partial.parent), weight_name=partial.name, **content)
            except OutputError as error:
                raise OutputError(f"cannot write the LoRA into {folder}: {error}; the checkpoints hold it") from error

    @property
    def _is_blend(self) -> bool:
        return self._start is not None and self._strength != 1

    def kept_state(self) -> dict[str, Tensor]:
        """The weights as they are exported. Only a part of the way from a LoRA that the run began with takes both
        LoRAs' factors side by side: ``B A = (1 - s) B_0 A_0 + s B_1 A_1``.
        """
        state = self._read(POLICY)
        if not self._is_blend:
            return state
        assert self._start is not None
        found = {}
        for key, value in state.items():
            old = self._start.state[key]
            if ".lora_B." in key:
                found[key] = torch.cat([(1 - self._strength) * old, self._strength * value], 1)
            else:
                found[key] = torch.cat([old, value], 0)
        return found

    def _switch(self, adapter: str | None) -> None:
        """Switch to one LoRA, or to none. It goes layer by layer: the network's own methods first look for the layers,
        which takes longer than a small pass.
        """
        for layer in self._layers:
            if adapter is None or layer.disable_adapters:
                layer.enable_adapters(adapter is not None)
            if adapter is not None and layer.active_adapters != [adapter]:
                layer.set_adapter(adapter)

    def _begin(self, start: Start) -> None:
        own = self._read(POLICY)
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in start.state.items()}:
            raise ConfigError(
                "lora: rank or targets are not those of the LoRA that the run starts from "
                f"(rank {start.rank}, targets {', '.join(start.targets)}): leave them out, and they are taken from it"
            )
        self.load_state(start.state, start.state)

    def _add(self, name: str) -> None:
        try:
            with warnings.catch_warnings():  # PEFT asks whether a second adapter is meant: it is
                warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
                for network in self.networks.values():
                    network.add_adapter(self._config, adapter_name=name)
        except ValueError as error:
            raise ConfigError(f"lora.targets: {first_line(error)}") from error
        for network in self.networks.values():
            for key, parameter in network.named_parameters():
                if f".{name}." in key:
                    parameter.data = parameter.data.to(self.model.device, torch.float32)

    def _start_reference(self) -> None:
        """Add the second LoRA at zero, which is the bare model: only then does an average have a start."""
        self._add(REFERENCE)
        for network in self.networks.values():
            network.set_adapter(POLICY)
        self._has_reference = True
        self._write({k: torch.zeros_like(v) if "lora_B" in k else v for k, v in self.state().items()}, REFERENCE)

    def _read(self, adapter: str) -> dict[str, Tensor]:
        state: dict[str, Any] = {}
        for name, network in self.networks.items():
            found = get_peft_model_state_dict(network, adapter_name=adapter)
            state |= {self.model.prefix(name) + k: v.detach().cpu().clone().contiguous() for k, v in found.items()}
        return state

    def _write(self, state: dict[str, Tensor], adapter: str) -> None:
        for name, network in self.networks.items():
            set_peft_model_state_dict(network, part_of(state, self.model.prefix(name)), adapter)


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a LoRA's weights whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _trained(model: VideoModel, settings: config.Lora, start: Start | None) -> list[str]:
    """The networks that `settings` ask for, or else those of the LoRA that the run starts from, or else all."""
    if settings.experts is not None and not model.experts:
        raise ConfigError(f"lora.experts: {model.source} has one network: leave it out")
    chosen = [name for name in model.networks if settings.experts in (None, "both", model.experts.get(name))]
    if start is None:
        return chosen
    found = [name for name in model.networks if part_of(start.state, model.prefix(name))]
    if settings.experts is not None and found != chosen:
        raise ConfigError(
            f"lora.experts is {settings.experts}, and the LoRA that the run starts from has "
            f"{' and '.join(model.experts[name] for name in found)}: leave it out, and it is taken from it"
        )
    return found
