"""Names to classes, without importing them before they are needed. No torch here."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vpo_kit.errors import ConfigError


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` or, with nothing near, the list of what there is."""
    choices = sorted(known)
    close = [choice for choice in choices if name and name in choice.split("_")]
    close += difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(choices)})"


class Registry:
    """Names of one kind of part, each with its ``"module:attribute"``.

    Built-ins and the entry points of `group` come through the same door; two parts of one name are an error.
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtins = dict(builtins)

    @property
    def builtins(self) -> list[str]:
        """The names that come with this package."""
        return list(self._builtins)

    def packages(self) -> dict[str, str]:
        """The names that come from elsewhere, each with its package and version."""
        points = [point for point in entry_points(group=self.group) if point.name not in self._builtins]
        return {point.name: f"{point.dist.name} {point.dist.version}" if point.dist else "?" for point in points}

    def targets(self) -> dict[str, str]:
        """All names with their ``"module:attribute"``, plugins included, built-ins first."""
        found = dict(self._builtins)
        for point in entry_points(group=self.group):
            if found.get(point.name, point.value) != point.value:
                raise ConfigError(f"two {self.kind}s are called {point.name!r}: {found[point.name]} and {point.value}")
            found[point.name] = point.value
        return found

    def check(self, name: str) -> str:
        """The ``"module:attribute"`` behind `name`, nothing imported. Raises `ConfigError`."""
        if ":" in name:
            return name
        targets = self.targets()
        if name not in targets:
            raise ConfigError(f"unknown {self.kind} {name!r}{nearest(name, targets)}")
        return targets[name]

    def load(self, name: str) -> Any:
        """Import what `name` (registered, or ``package.module:Class``) stands for. Raises `ConfigError`."""
        target = self.check(name)
        module, _, attribute = target.partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
            raise ConfigError(f"{self.kind} {name!r} is no package.module:Class, as it would be imported in Python")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            hint = _lies_here(module, error)
            raise ConfigError(f"{self.kind} {name!r} cannot be imported from {target}: {error}{hint}") from error


def _lies_here(module: str, error: Exception) -> str:
    """What to do where a module is beside the caller: a script has its own folder on the path and not that one, and
    whoever opens another's folder has not thereby said that its code may run.
    """
    top = module.partition(".")[0]
    if getattr(error, "name", None) == top and (Path(top).is_dir() or Path(f"{top}.py").is_file()):
        return ": it lies in this folder, so let Python look here: export PYTHONPATH=$PWD"
    return ""


METHODS = Registry(
    "method",
    "vpo_kit.methods",
    {
        "online": "vpo_kit.methods.online:Online",
        "nft": "vpo_kit.methods.nft:NFT",
        "grpo": "vpo_kit.methods.grpo:GRPO",
        "rwr": "vpo_kit.methods.rwr:RWR",
        "dense": "vpo_kit.methods.dense:Dense",
        "structural": "vpo_kit.methods.structural:Structural",
        "dpo": "vpo_kit.methods.dpo:DPO",
        "kto": "vpo_kit.methods.kto:KTO",
        "mapo": "vpo_kit.methods.mapo:MaPO",
        "sft": "vpo_kit.methods.sft:SFT",
        "instruct": "vpo_kit.methods.instruct:Instruct",
        "draft": "vpo_kit.methods.draft:Draft",
        "alignprop": "vpo_kit.methods.alignprop:AlignProp",
        "vader": "vpo_kit.methods.vader:Vader",
    },
)
REWARDS = Registry(
    "reward",
    "vpo_kit.rewards",
    {
        "vqa": "vpo_kit.rewards.vqa:VQA",
        "gold": "vpo_kit.rewards.vqa:GoldVQA",
        "gold2": "vpo_kit.rewards.gold2:Gold2",
        "technical": "vpo_kit.rewards.technical:Technical",
        "natural": "vpo_kit.rewards.natural:Natural",
        "niqe": "vpo_kit.rewards.niqe:Niqe",
        "brisque": "vpo_kit.rewards.brisque:Brisque",
        "text": "vpo_kit.rewards.text_accuracy:TextAccuracy",
        "cuts": "vpo_kit.rewards.cuts:Cuts",
        "hpsv2": "vpo_kit.rewards.clip:HPSv2",
        "hpsv2.1": "vpo_kit.rewards.clip:HPSv21",
        "pickscore": "vpo_kit.rewards.pickscore:PickScore",
        "clip": "vpo_kit.rewards.clip:ClipScore",
        "aesthetic": "vpo_kit.rewards.aesthetic:Aesthetic",
        "fastvqa": "vpo_kit.rewards.fastvqa:FastVQA",
        "dover": "vpo_kit.rewards.dover:Dover",
        "videoscore": "vpo_kit.rewards.videoscore:VideoScore",
        "videoreward": "vpo_kit.rewards.videoreward:VideoReward",
        "hpsv3": "vpo_kit.rewards.hpsv3:HPSv3",
        "viclip": "vpo_kit.rewards.viclip:ViCLIP",
        "remote": "vpo_kit.rewards.remote:Remote",
        "pairwise": "vpo_kit.labelling.pairwise:Pairwise",
    },
)
MODELS = Registry(
    "model family",
    "vpo_kit.models",
    {
        "AnimateDiffPipeline": "vpo_kit.models.animatediff:AnimateDiffModel",
        "CogVideoXPipeline": "vpo_kit.models.cogvideox:CogVideoXModel",
        "CogVideoXImageToVideoPipeline": "vpo_kit.models.cogvideox:CogVideoXImageModel",
        "HunyuanVideo15Pipeline": "vpo_kit.models.hunyuan15:Hunyuan15Model",
        "HunyuanVideoImageToVideoPipeline": "vpo_kit.models.hunyuan:HunyuanImageModel",
        "HunyuanVideo15ImageToVideoPipeline": "vpo_kit.models.hunyuan15:Hunyuan15ImageModel",
        "HunyuanVideoPipeline": "vpo_kit.models.hunyuan:HunyuanModel",
        "LTXPipeline": "vpo_kit.models.ltx:LTXModel",
        "LTXConditionPipeline": "vpo_kit.models.ltx:LTXConditionModel",
        "LTXImageToVideoPipeline": "vpo_kit.models.ltx:LTXImageModel",
        "MochiPipeline": "vpo_kit.models.mochi:MochiModel",
        "SkyReelsV2Pipeline": "vpo_kit.models.wan:SkyReelsModel",
        "TextToVideoSDPipeline": "vpo_kit.models.modelscope:ModelScopeModel",
        "WanPipeline": "vpo_kit.models.wan:WanModel",
        "WanImageToVideoPipeline": "vpo_kit.models.wan:WanImageModel",
    },
)
METRICS = Registry(
    "metric",
    "vpo_kit.metrics",
    {
        "motion": "vpo_kit.evaluation.temporal:MotionAmount",
        "temporal": "vpo_kit.evaluation.temporal:Temporal",
        "consistency": "vpo_kit.evaluation.consistency:Consistency",
    },
)
TRUTHS = Registry(
    "truth",
    "vpo_kit.truths",
    {"sprites": "vpo_kit.sprites.truth:SpriteTruth", "duets": "vpo_kit.duets.truth:DuetTruth"},
)
LINKS = Registry(
    "link",
    "vpo_kit.links",
    {
        "sigmoid": "vpo_kit.links:SIGMOID",
        "ipo": "vpo_kit.links:IPO",
        "hinge": "vpo_kit.links:HINGE",
        "robust": "vpo_kit.links:ROBUST",
        "dmpo": "vpo_kit.links:DMPO",
        "linear": "vpo_kit.links:LINEAR",
    },
)
TRACKERS = Registry(
    "tracker",
    "vpo_kit.trackers",
    {
        "tensorboard": "vpo_kit.training.trackers.tensorboard:TensorBoard",
        "wandb": "vpo_kit.training.trackers.wandb:WandB",
    },
)
CHOICES = Registry(
    "choice of pairs",
    "vpo_kit.choices",
    {
        "best": "vpo_kit.pairing.choose:best",
        "crossed": "vpo_kit.pairing.choose:crossed",
        "all": "vpo_kit.pairing.choose:every",
    },
)
LABELLERS = Registry(
    "labeller",
    "vpo_kit.labellers",
    {
        "reward": "vpo_kit.labelling.by_reward:ByReward",
        "vlm": "vpo_kit.labelling.vlm.by_vlm:ByVlm",
        "people": "vpo_kit.labelling.people.by_people:ByPeople",
    },
)
