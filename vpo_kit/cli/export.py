"""`vpo export`: a finished LoRA in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.options import app
from vpo_kit.errors import ConfigError


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
    push_to_hub: Annotated[
        str | None, typer.Option(help="also put the folder, with its card, on the Hub: USER/NAME; private if new")
    ] = None,
) -> None:
    """Write a run's LoRA in another form, load that again, and compare what it does with the original."""
    from vpo_kit.library.display import terminal
    from vpo_kit.library.export import export as write
    from vpo_kit.library.export import notes
    from vpo_kit.net.push import check_name, push

    if push_to_hub is not None:
        if output.suffix == ".safetensors":
            raise ConfigError("--push-to-hub takes a folder: leave --format comfyui out")
        check_name(push_to_hub)
    console = terminal()
    for line in notes(path):
        console.print(line, soft_wrap=True, highlight=False)
    result = write(path, format_, output, model, dtype)
    console.print(f"{output}: {result}", soft_wrap=True, highlight=False)
    if push_to_hub is not None:
        console.print(f"pushed: {push(output, push_to_hub, 'model')}", soft_wrap=True, highlight=False)
