"""Video models: one adapter for each diffusers family, and the embedded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpo_kit.models.base import VideoModel


def load(
    name_or_path: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    attention: str = "auto",
    offload: bool = False,
    quantise: str = "none",
    group_offload: bool = False,
    late_encoders: bool = False,
) -> VideoModel:
    """Load a diffusers pipeline by name, folder or hub id; see `vpo_kit.models.loading.load`."""
    from vpo_kit.models import loading  # diffusers takes seconds to import, and the sprite world does without it

    return loading.load(
        name_or_path,
        revision=revision,
        variant=variant,
        dtype=dtype,
        attention=attention,
        offload=offload,
        quantise=quantise,
        group_offload=group_offload,
        late_encoders=late_encoders,
    )


__all__ = ["load"]
