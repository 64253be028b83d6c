"""`vpo sample` and `vpo export`: what a finished LoRA is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.options import Config, Model, Seed, Set, app


@app.command()
def sample(
    output: Annotated[Path, typer.Option(help="folder for the videos")],
    prompt: Annotated[list[str] | None, typer.Option(help="a prompt; may be given several times")] = None,
    prompts: Annotated[Path | None, typer.Option(help="text file, one prompt a line")] = None,
    model: Model = None,
    lora: Annotated[Path | None, typer.Option(help="LoRA folder, or a run folder, whose settings are taken")] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Make videos, one for each prompt."""
    from vpo_kit.commands import sample as command
    from vpo_kit.config import read_assignments

    command.run(output, prompt or [], prompts, model, lora, seed or 0, config, read_assignments(set_ or []))


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="run folder, LoRA folder or LoRA file", metavar="RUN")],
    output: Annotated[Path, typer.Option(help="folder, or a .safetensors file for comfyui; it must not exist")],
    format_: Annotated[
        Literal["diffusers", "comfyui", "merged"],
        typer.Option("--format", help="LoRA folder, LoRA file for ComfyUI, or the whole pipeline with the LoRA in it"),
    ] = "diffusers",
    model: Annotated[str | None, typer.Option(help="base model", show_default="the run's")] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="of the base model's weights", show_default="the run's"),
    ] = None,
) -> None:
    """Write a run's LoRA in another form, load that again, and compare what it does with the original."""
    from vpo_kit.commands import export as command

    command.run(path, format_, output, model, dtype)
