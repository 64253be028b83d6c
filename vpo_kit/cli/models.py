"""`vpo models`: the embedded models, and the pipeline classes that have an adapter."""

from __future__ import annotations

from vpo_kit.cli.listing import show_plugins, yes
from vpo_kit.cli.options import app

INPUTS = ("text", "image", "last")
"""What a video can be made from; the last two are its first and its last frame."""


@app.command()
def models() -> None:
    """List the embedded models and the supported pipeline classes."""
    from vpo_kit import catalogue
    from vpo_kit.folders import EMBEDDED
    from vpo_kit.registry import MODELS

    print(f"{'pipeline class':34} {' '.join(INPUTS)} experts ComfyUI models")
    for family, facts in catalogue.models().items():
        has = {**{one: one in facts.inputs for one in INPUTS}, "experts": facts.experts, "ComfyUI": facts.comfyui}
        print(f"{family:34} {' '.join(f'{yes(value):{len(name)}}' for name, value in has.items())} {facts.published}")
    for name in EMBEDDED:
        print(f"{name:34} an embedded model, ships with the package")
    show_plugins(MODELS)
    print(
        "\n--model takes a diffusers folder or a hub id",
        "image, last: from the first, the last frame; experts: of two networks;",
        "ComfyUI: LoRA files for it, beside diffusers' own",
        sep="\n",
    )
