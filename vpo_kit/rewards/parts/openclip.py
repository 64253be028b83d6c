"""open_clip's networks as frozen two towers: weights read as tensors only, input prepared with gradient.

open_clip is imported where it is used: it takes seconds, and `vpo rewards` needs only the specs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from vpo_kit.errors import ConfigError, ModelError, first_line
from vpo_kit.registry import nearest
from vpo_kit.rewards.images import CLIP_MEAN, CLIP_STD, Mode, Prepare, Resize, TwoTowers
from vpo_kit.rewards.parts.hub import HubFile

Tag = Mapping[str, Any]
"""What open_clip knows of published weights: `hf_hub`, `mean`, `std`, `interpolation`, `quick_gelu`."""

FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
FACTS = {
    ("ViT-B-32", "laion2b_s34b_b79k"): ("about 0.6 GB", "MIT"),
    ("ViT-L-14-quickgelu", "openai"): ("about 1.7 GB", "MIT"),
}
"""Size and licence of the tags that are a reward's default; open_clip does not know them."""


class OpenClip(TwoTowers):
    """The network `name` of open_clip with the weights of `path`; `tag` says how its input is prepared."""

    def __init__(self, name: str, path: Path, resize: Resize, tag: Tag) -> None:
        super().__init__()
        import open_clip

        self.network = load(name, path, quick_gelu=bool(tag.get("quick_gelu")))
        side = self.network.visual.image_size
        size = (side, side) if isinstance(side, int) else (side[0], side[1])
        mode: Mode = "bilinear" if tag.get("interpolation") == "bilinear" else "bicubic"
        self.prepare = Prepare(size, resize, tag.get("mean", CLIP_MEAN), tag.get("std", CLIP_STD), mode)
        try:
            self.tokenize = open_clip.get_tokenizer(name)
        except (OSError, ValueError) as error:  # a few architectures take their tokenizer from the hub
            raise ModelError(f"the tokenizer of {name} cannot be loaded: {first_line(error)}") from None

    def embed_frames(self, frames: Tensor) -> Tensor:
        return cast(Tensor, self.network.encode_image(self.prepare(frames)))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return cast(Tensor, self.network.encode_text(self.tokenize(list(texts)).to(self.prepare.mean.device)))


def load(name: str, path: Path, *, quick_gelu: bool = False) -> Any:
    """open_clip's `name`, frozen, filled from `path`: ``{"state_dict": ...}``, the bare tensors, or safetensors.

    Raises `ConfigError` for an unknown name, `ModelError` for a file that does not fit.
    """
    import open_clip

    check_name(name)
    if not path.is_file():  # open_clip would take it for a tag
        raise ModelError(f"there is no {path}: give a file with the weights of {name}")
    try:
        network = open_clip.create_model(name, str(path), weights_only=True, force_quick_gelu=quick_gelu)
    except Exception as error:  # reading a foreign file, then filling a network with it: a dozen kinds of error
        raise ModelError(f"{path} does not hold the weights of {name}: {_why(error)}") from None
    return network.requires_grad_(False).eval()


def check_name(name: str) -> None:
    """Raises `ConfigError` for an architecture that open_clip does not know."""
    import open_clip

    if open_clip.get_model_config(name) is None:
        raise ConfigError(f"reward.model: open_clip knows no {name!r}{_near(name, open_clip.list_models())}")


def tag_of(name: str, tag: str) -> Tag:
    """What open_clip knows of the weights `tag` of `name`; empty where it does not know the tag."""
    import open_clip

    return cast(Tag, open_clip.get_pretrained_cfg(name, tag))


def hub_file(reward: str, name: str, tag: str, setting: str = "weights") -> HubFile:
    """The place of the weights `tag` of `name` on the hub. Raises `ConfigError` for what open_clip does not know."""
    import open_clip

    check_name(name)
    known = tag_of(name, tag)
    if not known.get("hf_hub"):
        tags = [t for t in open_clip.list_pretrained_tags_by_model(name) if tag_of(name, t).get("hf_hub")]
        hint = _near(tag, tags) if tags else ""
        raise ConfigError(f"{name} has no weights {tag!r} on the hub{hint}: or give a file as reward.{setting}")
    repository, _, file = known["hf_hub"].rpartition("/")
    size, licence = FACTS.get((name, tag), ("its size", "see its model card"))
    return HubFile(
        reward=reward,
        repository=repository,
        names=(file,) if file else FILES,
        size=size,
        licence=licence,
        setting=setting,
    )


def _near(name: str, known: Sequence[str]) -> str:
    """The nearest name; without one, how many there are, as a list of all would fill the screen."""
    hint = nearest(name, known)
    return hint if "did you mean" in hint else f" ({len(known)} are known)"


def _why(error: Exception) -> str:
    """A few words for what torch says over many lines."""
    text = " ".join(str(error).split())
    if "unsupported global" in text.lower():
        return "it is a pickled object and not a file of tensors, and is not opened"
    other = re.search(r'(?:size mismatch for |Unexpected key\(s\) in state_dict: ")([\w.]+)', text)
    if other or isinstance(error, AssertionError):  # open_clip asserts that position embeddings can be stretched
        return f"they are another network's ({other[1] if other else text}), so set reward.model to it"
    if missing := re.search(r'Missing key\(s\) in state_dict: "([\w.]+)"', text):
        return f"the tensor {missing[1]} is missing"
    return f"it is damaged or no checkpoint ({type(error).__name__})"
