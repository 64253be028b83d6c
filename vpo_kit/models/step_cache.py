"""Steps that skip most of the network where it would say again what it has just said: diffusers' first-block cache.

A pass runs its first block. Where what that block adds has changed by less than a threshold since the last whole pass,
the other blocks are left out, and what they added then is added again (of the kind of TeaCache, arXiv 2411.19108).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from diffusers import FirstBlockCacheConfig
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor, nn

from vpo_kit.errors import ConfigError
from vpo_kit.models.base import VideoModel
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.passes import Pass, around
from vpo_kit.sampler import BRANCH


def check(model: VideoModel) -> None:
    """Raises `ConfigError` for a network whose blocks diffusers cannot skip."""
    for network in model.networks.values():
        blocks = [part[0] for _, part in network.named_children() if isinstance(part, nn.ModuleList) and len(part)]
        try:
            known = isinstance(network, CacheMixin) and [TransformerBlockRegistry.get(type(one)) for one in blocks]
        except ValueError:
            known = False
        if not known:
            raise ConfigError(
                f"method.rollout_cache: diffusers cannot skip blocks of {type(network).__name__}: leave it out"
            )


@contextmanager
def step_cache(model: VideoModel, threshold: float | None) -> Iterator[None]:
    """Inside, the passes of one chain skip blocks; each branch of guidance remembers its own. None changes nothing.

    The decision is one for a batch, so a video depends a little on those beside it. Not for passes with a graph.
    """
    if threshold is None:
        yield
        return

    def wrap(predict: Pass) -> Pass:
        def remembering(latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
            with ExitStack() as stack:
                for network in model.networks.values():
                    stack.enter_context(network.cache_context(BRANCH.get()))
                return predict(latents, time, conditions)

        return remembering

    for network in model.networks.values():
        network.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    try:
        with around(model, wrap):
            yield
    finally:
        for network in model.networks.values():
            network.disable_cache()
