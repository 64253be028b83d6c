"""Imported once by the process that tests fork commands from: what a command would spend its first seconds on."""

import accelerate  # noqa: F401
import diffusers
import fastapi  # noqa: F401
import torch.distributed.fsdp  # noqa: F401
import uvicorn  # noqa: F401

import vpo_kit.labelling.people.by_people
import vpo_kit.labelling.people.server
import vpo_kit.library.evaluate
import vpo_kit.library.pair
import vpo_kit.library.train
import vpo_kit.models.wan
import vpo_kit.rewards.server
import vpo_kit.rewards.vqa  # noqa: F401
from vpo_kit.registry import METHODS

for name in METHODS.targets():
    METHODS.load(name)
assert diffusers.WanPipeline  # which imports it
