"""What can be said of a run before any weights are read: its data, its judges' files, what its model has and fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch._subclasses.fake_tensor import FakeTensorMode

from vpo_kit import folders
from vpo_kit.clips import named, ratings
from vpo_kit.config import Run
from vpo_kit.errors import ConfigError, DataError
from vpo_kit.inputs import Inputs, Shade
from vpo_kit.library import left_out, pair_source, sources
from vpo_kit.planning import skeleton
from vpo_kit.processes import Processes
from vpo_kit.rewards import loading
from vpo_kit.training.recipe import Recipe
from vpo_kit.training.run import settings_of


def check(recipe: Recipe) -> None:
    """Everything that needs no weights, the cheapest first. Raises `VpoError` for what training would stumble over."""
    loading.locate([*recipe.reward, *recipe.judges, *recipe.selection])
    loading.check_prompts(recipe.judges, [item.prompt for item in recipe.held_out])
    loading.check_prompts(recipe.selection, [item.prompt for item in recipe.validation])
    DATA[recipe.data](recipe)
    _model(recipe)


def check_processes(run: Run, processes: Processes) -> None:
    """Raises `ConfigError` for settings that do not go with so many processes, or with a sharded network."""
    if run.batch_size % processes.count:
        raise ConfigError(f"batch_size {run.batch_size} does not divide over {processes.count} processes")
    if processes.sharded and run.activation_offload:
        raise ConfigError("activation_offload: it has not been tried with FSDP: launch without it, or leave it out")
    if processes.sharded and run.group_offload:
        raise ConfigError("group_offload: FSDP spreads the network already: launch without it, or leave it out")
    if processes.sharded and run.quantise != "none":
        raise ConfigError("quantise: a quantised base cannot be sharded: launch without FSDP, or leave it out")


def unchecked(recipe: Recipe) -> list[str]:
    """A line for each thing that only the run itself can show."""
    local = Path(folders.resolve(recipe.run.model)).is_dir()
    lines = [f"the weights of {recipe.run.model}" + ("" if local else ", the size of its videos")]
    lines += {
        "prompts": [],
        "pairs": ["the pairs' files, by their hashes (vpo pair check)"],
        "videos": ["whether the clips can be decoded and are long enough"],
    }[recipe.data]
    judges = [*recipe.reward, *recipe.judges, *recipe.selection]
    away = [part.spec.name for part in judges if not part.spec.self_contained and not part.kind.locate(part.config)]
    lines += [f"the weights of {', '.join(dict.fromkeys(away))}"] if away else []
    return [*lines, "memory and time (vpo plan)"]


def _prompts(recipe: Recipe) -> None:
    left_out.apart(recipe, recipe.prompts, lambda item: item.prompt, "prompts", _quiet)


def _pairs(recipe: Recipe) -> None:
    found = pair_source.read_pairs(recipe)
    kept = [pair for pair in found.pairs if recipe.method.keeps(recipe.method_config, pair)]
    if not kept:
        why = found.broken[0] if found.broken else "all of its pairs are ties or have no label: vpo label SET labels it"
        raise DataError(f"{found.path} has nothing to learn from: {why}")
    left_out.apart(recipe, kept, lambda pair: pair.prompt, "pairs", _quiet)


def _videos(recipe: Recipe) -> None:
    folder = recipe.run.videos
    assert folder is not None
    listed = named(folder)
    usable = [(name, caption) for name, caption in listed if isinstance(caption, str)]
    wrong = [caption for _, caption in listed if isinstance(caption, DataError)]
    if not usable:
        raise DataError(f"{folder} holds no usable clip{f': {wrong[0]}' if wrong else ''}")
    kept = left_out.apart(recipe, usable, lambda one: one[1], "clips", _quiet)
    if recipe.method.needs.ratings:
        known = ratings(folder, recipe.run.data.dimension)
        if not any(name in known for name, _ in kept):
            raise sources.unrated(folder)


DATA: dict[str, Callable[[Recipe], None]] = {"prompts": _prompts, "pairs": _pairs, "videos": _videos}


def _model(recipe: Recipe) -> None:
    """Whether the videos fit the autoencoder and the method the model: a folder's configurations say so."""
    run = recipe.run
    if not Path(folders.resolve(run.model)).is_dir():
        return
    model = skeleton.build(run.model, FakeTensorMode(allow_non_fake_inputs=True), dtype=run.dtype)
    wanted = settings_of(model.settings, run.sampling)
    for size in (wanted.size, *sources.shapes(recipe)):
        model.check_size(size)
    recipe.method.check_model(recipe.method_config, model)
    items = recipe.prompts or [Inputs("of a clip", Shade() if run.data.first_frame else None)]
    for part in (items, recipe.held_out, recipe.validation):
        model.check_inputs(part)


def _quiet(line: str) -> None:
    """What is left out is said when the run begins."""
