"""ModelScope: `TextToVideoSDPipeline`, the base model of InstructVideo's paper (arXiv 2312.12490)."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers.loaders import PeftAdapterMixin
from torch import Tensor

from vpo_kit.models.base import add_methods
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.models.unet import UNetModel


class ModelScopeModel(UNetModel):
    """3D UNet with noise prediction. Its class in diffusers has no LoRA methods, and so the pipeline cannot load a
    LoRA file by itself; the adapter adds them.
    """

    published: ClassVar[str] = "ModelScope"
    defaults: ClassVar[Settings] = Settings(frames=16, height=256, width=256, fps=8, steps=50, guidance=9.0)

    def __init__(self, pipeline: Any, settings: Settings | None, source: str) -> None:
        super().__init__(pipeline, settings, source)
        add_methods(pipeline.unet, PeftAdapterMixin)

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        network = self.network
        output: Tensor = network(
            latents.to(self.dtype),
            time.to(latents.device),
            encoder_hidden_states=conditions.tensors["embeds"],
            return_dict=False,
        )[0]
        return output.float()
