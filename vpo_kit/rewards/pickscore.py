"""PickScore: which of two pictures people on the Pick-a-Pic site chose for a prompt, as a score of each.

Source: Kirstain et al., "Pick-a-Pic" (arXiv 2305.01569); a CLIP-H/14 in the layout of transformers' `CLIPModel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor

from vpo_kit.errors import ModelError, first_line
from vpo_kit.rewards.base import RewardSpec
from vpo_kit.rewards.images import ImageRewardConfig, Prepare, Resize, TextImageReward, TwoTowers

REPOSITORY = "yuvalkirstain/PickScore_v1"
ADVICE = (
    f"download config.json and model.safetensors (about 3.9 GB, MIT) from huggingface.co/{REPOSITORY} "
    f"and give their folder with --set reward.weights=PATH"
)


class PickScoreConfig(ImageRewardConfig):
    weights: Path | None = None
    """A model folder, or a hub id (owner/name) of another `CLIPModel`."""


class PickScore(TextImageReward):
    Config = PickScoreConfig
    spec: ClassVar[RewardSpec] = RewardSpec(
        name="pickscore",
        licence="MIT",
        source=f"{REPOSITORY} on the hub",
        scale="about 18 to 24: the cosine of frame and prompt times the learned scale",
        differentiable=True,
        per_segment=True,
        needs_prompt=True,
        per_frame=True,
        mean=21.0,  # that range taken as mean +- 2 deviations
        std=1.5,
    )

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        own = cast(PickScoreConfig, self.config)
        self.network = HubClip(str(own.weights or REPOSITORY), own.resize)

    @property
    def scale(self) -> Tensor:
        return cast(Tensor, cast(HubClip, self.network).network.logit_scale.exp())


class HubClip(TwoTowers):
    """transformers' `CLIPModel` from a folder or a hub id, frozen.

    The tokenizer is CLIP's own, which ships with open_clip: the same vocabulary as in the model's repository. What
    follows the end of the text differs (zeros, not more ends) and cannot matter, as text attends only to what
    comes before it.
    """

    def __init__(self, source: str, resize: Resize) -> None:
        super().__init__()
        from open_clip import SimpleTokenizer

        self.network = _load(source)
        self.tokenize = SimpleTokenizer(context_length=self.network.config.text_config.max_position_embeddings)
        side = self.network.config.vision_config.image_size
        self.prepare = Prepare((side, side), resize)

    def embed_frames(self, frames: Tensor) -> Tensor:
        return _features(self.network.get_image_features(pixel_values=self.prepare(frames)))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenize(list(texts)).to(self.prepare.mean.device)
        return _features(self.network.get_text_features(input_ids=tokens))


def _features(found: Any) -> Tensor:
    """transformers 5 wraps the features in an output object."""
    return cast(Tensor, found if isinstance(found, Tensor) else found.pooler_output)


def _load(source: str) -> Any:
    """Raises `ModelError` where weights are missing, incomplete or another model's."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # what does not fit ends in our own line, not in a table
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        if config.model_type != "clip":
            raise ModelError(f"{source} is a {config.model_type} model, and pickscore needs a CLIPModel: {ADVICE}")
        network, report = transformers.CLIPModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        away = f"{source} is neither a folder nor in the hub's cache, and was not downloaded"
        problem = f"cannot load {source} ({first_line(error)})" if Path(source).exists() else away
        raise ModelError(f"reward 'pickscore': {problem}: {ADVICE}") from None
    finally:
        transformers.utils.logging.set_verbosity(level)
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"reward 'pickscore': {source} lacks the tensor {missing[0]}: {ADVICE}")
    return network.requires_grad_(False).eval()
