"""AnimateDiff: `AnimateDiffPipeline`, an image UNet with a motion adapter."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vpo_kit.errors import ConfigError
from vpo_kit.models.conditions import Conditions
from vpo_kit.models.settings import Settings
from vpo_kit.models.unet import UNetModel


class AnimateDiffModel(UNetModel):
    """The motion adapter has a position for each frame of a clip, and no more than it was trained with."""

    published: ClassVar[str] = "image UNets"
    defaults: ClassVar[Settings] = Settings(frames=16, height=512, width=512, fps=8, steps=25, guidance=7.5)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        most = self.network.config.motion_max_seq_length
        if frames > most:
            raise ConfigError(f"{frames} frames do not fit the motion adapter of {self.source}: at most {most} do")
        return super().latent_shape(frames, height, width)

    def predict(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        network, frames = self.network, latents.shape[2]
        output: Tensor = network(
            latents.to(self.dtype),
            time.to(latents.device),
            encoder_hidden_states=conditions.tensors["embeds"].repeat_interleave(frames, 0),
            return_dict=False,
        )[0]
        return output.float()
