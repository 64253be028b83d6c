"""One interface over the diffusers families.

Legend: ``B`` videos, ``F`` pixel frames, ``C`` latent channels, ``T`` latent frames, ``h w`` latent size.
Video is float32 ``[B, F, 3, H, W]`` in [0, 1]; latents are float32 ``[B, C, T, h, w]``, normalised as the
pipeline's network sees them. Packing of any other kind stays inside the adapter.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vpo_kit import schedule as schedules
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.inputs import Inputs, Shade
from vpo_kit.models.autoencoding import Autoencoding
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings, Size
from vpo_kit.sampler import Guidance
from vpo_kit.times import Times, TimeSampler

if TYPE_CHECKING:
    from vpo_kit.models.encoders import Encoders


class VideoModel(Autoencoding, ABC):
    """A diffusers video pipeline behind one interface. An adapter is one small file.

    What is here fits a causal video autoencoder with one scaling factor and a transformer whose latents need no
    packing; an adapter says what is different in its family.
    """

    lora_targets: ClassVar[Sequence[str]] = ("to_q", "to_k", "to_v", "to_out.0")
    """Names of the linear layers that carry the LoRA by default."""
    network_name: ClassVar[str] = "transformer"
    """The pipeline's component that denoises; it is also the prefix of the keys in a LoRA file, whichever network of
    several the file is for."""
    pipeline_class: ClassVar[Any] = None
    """The pipeline's class where it is another package's; None is diffusers' class of the registered name."""
    published: ClassVar[str] = ""
    """The published models that the pipeline class is for, in a few words (`vpo models`)."""
    inputs: ClassVar[Sequence[str]] = ("text",)
    """What a video is made from: text, image (its first frame), last (its last frame)."""
    image_optional: ClassVar[bool] = False
    """Whether a family that takes an image also makes videos from text alone."""
    text_sees_pictures: ClassVar[bool] = False
    """Whether the text encoder is shown the pictures: then a prompt is encoded anew for each (`encode_texts`)."""
    may_have_experts: ClassVar[bool] = False
    """Whether some of these models have two networks, one for each part of the noise levels."""
    defaults: ClassVar[Settings]
    """The published usual sizes, for a model folder that does not state its own."""
    times: ClassVar[Times] = Times(name="uniform")
    """The times at which a method trains unless its recipe says otherwise: as the family itself was trained."""
    times_source: ClassVar[str] = "uniform over the training steps, as its family was trained"
    """The source of `times`."""

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        self.pipeline = pipeline
        self.settings = settings or self.defaults
        self.source = source
        self.truth: str | None = None
        """The made world whose truth can be read from the model's clips, as its folder declares."""
        self.encoders: Encoders | None = None
        """What loads the encoders of prompts and pictures when they are needed, where they are not always there."""
        self.home: torch.device | None = None
        """The networks' device while they wait elsewhere."""
        self.blocks_wait = False
        """Whether the networks' stacks of blocks stay in the machine's memory (`models/group_offload.py`)."""
        self.checkpointed = False
        """Whether the networks keep little for the backward pass and run again in it (`gradient_checkpointing`)."""
        self.schedule = schedules.from_scheduler(pipeline.scheduler)
        self._shifted: tuple[Any, Any] | None = None
        """The pipeline's own scheduler, and the one in its place with the shift of the settings."""
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()

    @property
    def most_tokens(self) -> int | None:
        """How many tokens of a prompt the network sees at most, those around it counted; None where it is not known."""
        most = getattr(getattr(self.pipeline, "tokenizer", None), "model_max_length", None)
        return most if isinstance(most, int) and most < 2**20 else None  # a tokenizer without a limit says 10^30

    @property
    def networks(self) -> dict[str, Any]:
        """The modules that denoise, by the pipeline's names, each with PEFT's adapter methods: one, or one for each
        part of the noise levels.
        """
        return {self.network_name: getattr(self.pipeline, self.network_name)}

    @property
    def network(self) -> Any:
        """The one network of a family that has one: the transformer or UNet."""
        (network,) = self.networks.values()
        return network

    def move_networks(self, device: torch.device) -> None:
        """Move the networks to `device`, but for blocks that wait in the machine's memory."""
        for network in self.networks.values():
            waiting = stacks(network) if self.blocks_wait else {}
            network._modules.update(dict.fromkeys(waiting))
            network.to(device)
            network._modules.update(waiting)

    @property
    def experts(self) -> dict[str, str]:
        """The family's word for each network, by the pipeline's names, where there are several; else nothing."""
        return {}

    def belongs(self, time: Tensor, name: str) -> Tensor:
        """Whether each of the times ``[B]``, in the network's own units, goes through the network `name`: booleans
        ``[B]``.
        """
        return torch.ones_like(time, dtype=torch.bool)

    def prefix(self, name: str) -> str:
        """What the names of a weight of the network `name` begin with where several networks' weights lie together."""
        return f"{name}." if len(self.networks) > 1 else ""

    def guidance(self, settings: Settings, negative: Any, *, detached: bool = False) -> Guidance:
        """Guidance at the scale of `settings`, which may give each of two networks its own, and in their interval of
        noise levels alone (Kynkäänniemi et al., arXiv 2404.07724). All that samples asks for it here.
        """
        scale, (low, high) = settings.guidance, settings.guidance_interval
        if not isinstance(scale, Mapping) and (low, high) == (0, 1):
            return Guidance(scale, negative, detached)

        def at(time: Tensor) -> float:
            if not low <= float(self.schedule.level_at(time)) <= high:
                return 1.0
            if not isinstance(scale, Mapping):
                return scale
            return next(scale[word] for name, word in self.experts.items() if bool(self.belongs(time.view(1), name)))

        return Guidance(at, negative, detached)

    def time_sampler(
        self, times: Times | None, settings: Settings, networks: Iterable[str], shape: Sequence[int] | None = None
    ) -> TimeSampler:
        """The training times, to be drawn, for those of `networks` that are trained; `times` None is the family's own
        way. `shape` is that of the latents ``(C, T, h, w)``, where it is not that of the settings.

        Raises `ConfigError` where no time is left for them.
        """
        chosen = times or self.times
        shape = shape or self.latent_shape(*settings.size)
        chain = self.schedule.chain_times(self.new_scheduler(chosen.steps or settings.steps, shape))
        experts = {self.experts.get(name, name): partial(self.belongs, name=name) for name in networks}
        return TimeSampler(chosen, self.schedule, chain=chain, shift=self.shift(shape), experts=experts)

    def shift(self, shape: Sequence[int]) -> float:
        """How far the sampler's chain is shifted towards noise for latents of `shape`; 1 is not at all."""
        config = self.pipeline.scheduler.config
        return float(config.get("flow_shift" if config.get("use_flow_sigmas") else "shift", 1.0) or 1.0)

    def use(self, settings: Settings) -> Settings:
        """Take `settings` as the model's own: what it samples with, and what depends on them inside (the frame rate of
        LTX, the shift of the chain). Raises `ConfigError` for what the family does not have.
        """
        self.check_size(settings.size)
        if isinstance(settings.guidance, Mapping) and not self.experts:
            raise ConfigError(f"sampling.guidance: {self.source} has one network: give one number")
        self._set_shift(settings.shift)
        self.settings = settings
        return settings

    def check_size(self, size: Size) -> None:
        """Raises `ConfigError` for a shape that the model cannot make videos of."""
        self.latent_shape(*size)
        height, width = self.only_size or (size.height, size.width)
        if (height, width) != (size.height, size.width):
            raise ConfigError(
                f"{self.source} has positions for {width} x {height} alone: set sampling.width={width} and "
                f"sampling.height={height}, and buckets of that shape"
            )
        height, width = self.largest_size or (size.height, size.width)
        if height < size.height or width < size.width:
            raise ConfigError(
                f"{self.source} has positions for {width} x {height} at most: {size.width} x {size.height} is too large"
            )

    @contextmanager
    def at(self, settings: Settings) -> Iterator[None]:
        """Inside, what is encoded is for videos of `settings`."""
        own, self.settings = self.settings, settings
        try:
            yield
        finally:
            self.settings = own

    def _set_shift(self, shift: float | None) -> None:
        """Let the pipeline have its own scheduler, or that one with another shift."""
        own = self.pipeline.scheduler
        if self._shifted and own is self._shifted[1]:  # a caller may have put another there since
            own = self._shifted[0]
        if shift is None:
            self.pipeline.scheduler = own
            return
        name = "flow_shift" if own.config.get("use_flow_sigmas") else "shift"
        if name not in own.config or own.config.get("use_dynamic_shifting"):
            raise ConfigError(f"sampling.shift: the chain of {self.source} has none that could be set: leave it out")
        self.pipeline.scheduler = type(own).from_config(own.config, **{name: shift})
        self._shifted = own, self.pipeline.scheduler

    def lora_options(self, name: str) -> dict[str, Any]:
        """What the pipeline's ``load_lora_weights`` takes, beside the file, to load it into the network `name`."""
        return {}

    @property
    def device(self) -> torch.device:
        return self.home or torch.device(next(iter(self.networks.values())).device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """What the networks take. Read once: diffusers walks through a whole network whenever it is asked."""
        found: torch.dtype = next(iter(self.networks.values())).dtype
        return found

    @property
    def multiples(self) -> tuple[int, int, int]:
        """What frames (less the first, where the autoencoder is causal), height and width must be multiples of."""
        side = self.spatial_stride * int(self.network.config.patch_size)
        return self.temporal_stride, side, side

    @property
    def only_size(self) -> tuple[int, int] | None:
        """The one height and width of a network that learned its places; None where all that fit will do."""
        return None

    @property
    def largest_size(self) -> tuple[int, int] | None:
        """The greatest height and width of a network whose places end; None where they go on."""
        return None

    def new_scheduler(self, steps: int, shape: Sequence[int]) -> Any:
        """A fresh copy of the pipeline's scheduler (sampling changes its state) with `steps` steps set for latents of
        `shape` ``(C, T, h, w)``, as the pipeline's own ``__call__`` does it: some families shift the chain by size.
        """
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(steps)
        return scheduler

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """``(C, T, h, w)``. Raises `ConfigError`, naming the nearest right sizes, where the strides do not divide."""
        lead, (time, tall, wide) = int(self.causal), self.multiples
        right = (
            max(round((frames - lead) / time) * time + lead, 1 if self.causal else time),
            max(round(height / tall), 1) * tall,
            max(round(width / wide), 1) * wide,
        )
        if right != (frames, height, width):
            raise ConfigError(
                f"{frames} frames of {width} x {height} do not fit the autoencoder of {self.source}: "
                f"the nearest that do are {right[0]} frames of {right[2]} x {right[1]}"
            )
        stride, own = self.spatial_stride, (frames - lead) // self.temporal_stride + lead
        return self.latent_channels, self.padding + own, height // stride, width // stride

    @property
    def latent_channels(self) -> int:
        return int(self.pipeline.vae.config.latent_channels)

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Text to conditions, as the pipeline itself encodes it. No gradient."""

    def encode_texts(self, items: Sequence[Inputs]) -> Conditions:
        """The items' prompts to conditions, with their pictures where the text encoder is shown them. No gradient."""
        return self.encode_prompts([item.prompt for item in items])

    def encode_images(self, items: Sequence[Inputs]) -> dict[str, Tensor]:
        """What the network sees of the items' pictures at the sizes of `settings`: named tensors beside the text's,
        with the items along their first dimension. No gradient. Raises `DataError` for a picture that cannot be read.
        """
        return {}

    def encode_conditions(self, items: Sequence[Inputs]) -> Conditions:
        """Prompts and pictures to conditions. Raises `DataError` as `check_inputs` and `encode_images` do."""
        self.check_inputs(items)
        text = self.encode_texts(items)
        return Conditions({**text.tensors, **self.encode_images(items)})

    def check_inputs(self, items: Iterable[Inputs]) -> None:
        """Raises `DataError` for an item that has not what a video is made from, or has what the family cannot take,
        and where only some have a picture.
        """
        listed = list(items)
        alone = next((item for item in listed if item.image is None), None)
        if alone and any(item.image for item in listed):
            raise DataError(f"some prompts have an image and {alone.prompt!r} has none: give it to all or to none")
        for item in listed:
            if item.image is None and "image" in self.inputs and not self.image_optional:
                raise DataError(
                    f"{self.source} makes a video from a picture, and the prompt {item.prompt!r} has none: give "
                    "prompts in a csv or jsonl file with a column image, or clips with data.first_frame=true"
                )
            for name, column, one in (("image", "image", item.image), ("last", "last_image", item.last_image)):
                if one is not None and name not in self.inputs:
                    raise DataError(
                        f"{self.source} takes no {column}, and the prompt {item.prompt!r} has one: leave it out"
                    )

    def example(self, prompt: str) -> Inputs:
        """An item that the model takes, with pictures, only colours, where it needs them: for plans and checks."""
        needed = () if self.image_optional else self.inputs
        image, last = (Shade(i) if name in needed else None for i, name in enumerate(("image", "last")))
        return Inputs(prompt, image, last)

    def conditions_at(self, items: Sequence[str | Inputs], *, frames: int, height: int, width: int) -> Conditions:
        """What the networks see of `items` for videos of another size than that of the settings, of a prompt alone with
        the example's pictures.
        """
        with self.at(self.settings.sized(Size(frames, height, width))):
            return self.encode_conditions([self.example(i) if isinstance(i, str) else i for i in items])

    def pictures(self, items: Sequence[Inputs]) -> Tensor:
        """The items' first frames at the sizes of `settings`, ``[B, 3, H, W]`` in [0, 1]. Raises `DataError`."""
        size = self.settings.height, self.settings.width
        return torch.stack([item.image.read(*size) for item in items if item.image is not None])

    def pack(self, latents: Tensor) -> Tensor:
        """Latents ``[B, C, T, h, w]`` as the pipeline holds them while it samples, where its network takes them in
        another layout.
        """
        return latents

    @abstractmethod
    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        """The network's output at ``x_t``, float32 ``[B, C, T, h, w]``; `time` ``[B]`` is the network's own."""


def stacks(network: nn.Module) -> dict[str, nn.ModuleList]:
    """The stacks of blocks that a network runs one by one, by name, in the order in which it has them."""
    return {name: part for name, part in network.named_children() if isinstance(part, nn.ModuleList) and len(part)}


def add_methods(part: Any, mixin: type) -> None:
    """Give a pipeline or module the methods of a diffusers mixin that its class lacks.

    The class keeps its name, so that what is saved afterwards says the same in its configuration.
    """
    if not isinstance(part, mixin):
        part.__class__ = type(type(part).__name__, (type(part), mixin), {})
