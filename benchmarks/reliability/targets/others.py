"""Other people's sets, and runs whose data have changed since they began."""

from __future__ import annotations

from pathlib import Path

from benchmarks.reliability.targets.stage import Read, Stage


def foreign_set(folder: Path) -> Read:
    """Other people's sets in ten layouts, tables and videos damaged: what is imported is whole."""
    from tests.support import foreign
    from vpo_kit import formats
    from vpo_kit.judged.layouts import Reading
    from vpo_kit.judged.reader import read as read_set
    from vpo_kit.pairing import imported, store

    known = foreign.PAIRS | foreign.ONE_SIDED | foreign.RATED
    sound = {name: make(folder / name) for name, (make, _) in known.items() if name not in foreign.OPTIONS}

    def read(stage: Stage) -> None:
        name = stage.rng.choice(list(sound))
        source = sound[name]
        path = stage.copy(folder / name)
        tables = [file for file in path.rglob("*") if file.suffix in (".csv", ".json", ".jsonl")]
        target = stage.rng.choice([*tables, *tables, stage.rng.choice(sorted(path.rglob("*.mp4")))])
        target.write_bytes(stage.damage(target.read_bytes(), json_too=target.suffix.startswith(".json")))
        found = read_set(path / source.relative_to(folder / name), Reading(layout=name))
        output = stage.folder / "output"
        try:
            made = imported.write(found, output, {"format": formats.SETS, "strategy": "imported", "model": "people"})
        finally:
            assert not list(stage.folder.glob(".*part*"))
        if not made.rated:
            again = store.read(output)
            assert not again.broken
            assert len(again.pairs) == made.count

    return read


def changed_data(folder: Path) -> Read:
    """A run that goes on after its data were damaged: refused where they say something else, and only there."""
    import torch
    from rich.console import Console

    from vpo_kit.clips import captions
    from vpo_kit.errors import ConfigError, VpoError
    from vpo_kit.library import contents
    from vpo_kit.prompts import read_inputs
    from vpo_kit.training import recipe as recipes
    from vpo_kit.video import write_video

    run, console = folder / "run", Console(quiet=True)
    write_video(run / "clips" / "a.mp4", torch.rand(9, 3, 16, 16), 8)
    (run / "clips" / "a.txt").write_text("a dog runs")
    (run / "held.txt").write_text("a cat sits\na bird flies\n")

    def recipe(path: Path) -> recipes.Recipe:
        own = {"prompts": path / "held.txt", "num_prompts": 9}
        return recipes.read({"method": "sft", "videos": path / "clips", "evaluation": own}, None, [])

    def said(path: Path) -> object:
        return read_inputs(path / "held.txt"), [str(text) for _, text in captions(path / "clips")]

    contents.keep(contents.of(recipe(run), console), run)
    before = said(run)

    def read(stage: Stage) -> None:
        path = stage.copy(run)
        name = stage.rng.choice(["held.txt", "clips/a.txt", "clips/a.mp4", "contents.json"])
        old = (path / name).read_bytes()
        (path / name).write_bytes(stage.damage(old))
        same = (path / name).read_bytes() == old or (
            name in ("held.txt", "clips/a.txt") and _says(said, path) == before
        )
        try:
            contents.check(contents.of(recipe(path), console), path)
        except ConfigError:
            assert not same
            raise
        assert same or name == "contents.json"

    def _says(ask: object, path: Path) -> object:
        try:
            return said(path)
        except VpoError:
            return None

    return read
