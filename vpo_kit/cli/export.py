"""`vpo export`: a finished LoRA in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vpo_kit.cli.options import app


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
    from rich.console import Console

    from vpo_kit.library.export import export as write

    result = write(path, format_, output, model, dtype)
    Console().print(f"{output}: {result}", soft_wrap=True, markup=False, highlight=False)
