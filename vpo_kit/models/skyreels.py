"""SkyReels-V2 T2V: `SkyReelsV2Pipeline`, Wan's architecture and autoencoder in a network class of its own."""

from __future__ import annotations

from typing import Any, ClassVar

from vpo_kit.models.base import Settings
from vpo_kit.models.wan import WanModel


class SkyReelsModel(WanModel):
    """All of it is Wan's but the published sizes; the diffusion-forcing pipelines are other classes."""

    defaults: ClassVar[Settings] = Settings(frames=97, height=544, width=960, fps=24, steps=50, guidance=6.0)
    times_source: ClassVar[str] = "as Wan 2.1, which it goes on from; nothing was found of its own"

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        super().__init__(pipeline, settings or self.defaults, source)
