"""What a run learns from, begins with and is judged by, known by what is in it: the same path may hold something else
by now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console

from vpo_kit import clips, content, files, folders
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.inputs import Inputs
from vpo_kit.library.display import look_through_bar
from vpo_kit.training.recipe import Recipe

FILE = "contents.json"


def of(recipe: Recipe, console: Console) -> dict[str, str]:
    """A key for each kind of data and each place of weights, by its name in a sentence. Clips that are new to the index
    are hashed here.
    """
    found = {"held-out prompts": _prompts(recipe.held_out), **_weights(recipe)}
    if recipe.validation:
        found["validation prompts"] = _prompts(recipe.validation)
    if recipe.data == "prompts":
        found["prompts"] = _prompts(recipe.prompts)
    elif recipe.data == "pairs":
        assert recipe.run.pairs is not None
        found["pairs"] = files.sha256(recipe.run.pairs / "metadata.jsonl")  # it holds the hash of every file
    else:
        assert recipe.run.videos is not None
        rated = clips.ratings(recipe.run.videos, recipe.run.data.dimension) if recipe.method.needs.ratings else {}
        found["videos"] = _clips(recipe.run.videos, rated, console)
    return found


def keep(found: Mapping[str, str], run: Path) -> None:
    """Note in the folder of a run what it begins with. Raises `OutputError`."""
    files.write(run / FILE, json.dumps(found, indent=2) + "\n")


def check(found: Mapping[str, str], run: Path) -> None:
    """Raises `ConfigError` where a run that is to go on has begun with other data than there is now; one of an older
    version has not noted it.
    """
    if not (run / FILE).is_file():
        return
    try:
        old = TypeAdapter(dict[str, str]).validate_json((run / FILE).read_bytes())
    except ValueError as error:
        raise DataError(f"{run / FILE} is damaged: put it right, or begin anew with --overwrite") from error
    if changed := sorted(name for name in old if found.get(name, old[name]) != old[name]):
        raise ConfigError(
            f"--resume: the {' and the '.join(changed)} changed since the run in {run} began: put back what was "
            "there, or begin anew with --overwrite"
        )


def _weights(recipe: Recipe) -> dict[str, str]:
    """The keys of the model's folder, of the LoRA that the run starts from, and of its judges' own files."""
    run = recipe.run
    named = {"LoRA of lora.init": run.lora.init, "LoRA of sampling.lora": run.sampling.lora}
    places = {name: path for name, path in named.items() if path is not None}
    for plan in [*recipe.reward, *recipe.judges, *recipe.selection]:
        own = [value for value in vars(plan.config).values() if isinstance(value, Path)]
        for path in dict.fromkeys([*own, *plan.kind.locate(plan.config)]):
            places[f"judge's file {path}"] = path
    found = {name: files.glance(path) for name, path in places.items() if path.exists()}
    folder = Path(folders.resolve(run.model))
    if folder.is_dir():
        inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "prompts"))]
        parts = {path.name: files.glance(path) for path in [folder / "model_index.json", *sorted(inner)]}
        found[f"model {run.model}"] = content.key(list(parts.items()))
    return found


def _prompts(items: Sequence[Inputs]) -> str:
    """The key of prompts, each with what its pictures are known by."""
    return content.key(*(part for item in items for part in (item.prompt, *item.keys)))


def _clips(folder: Path, rated: Mapping[str, float], console: Console) -> str:
    """The key of what a folder of clips holds and says, in its order, whatever the files are called."""
    said = dict(clips.captions(folder))
    with look_through_bar(console) as progress:
        known = clips.look_through(folder, list(said), progress)
    return content.key(*([known[name].sha256, str(said[name]), rated.get(name)] for name in said if name in known))
