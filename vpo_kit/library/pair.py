"""Pair sets: made, labelled, labelled again."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from vpo_kit import files, formats
from vpo_kit.config import Model, validate
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.report import versions
from vpo_kit.folders import prompts_of, resolve
from vpo_kit.inputs import inputs_of
from vpo_kit.labelling import base as labellers
from vpo_kit.labelling.base import Labeller, Surroundings
from vpo_kit.labelling.by_scores import summary
from vpo_kit.library.display import count_bar, terminal
from vpo_kit.library.sources import find_clips
from vpo_kit.models.encoding import PromptCache
from vpo_kit.models.tokens import cut_short
from vpo_kit.pairing import make, store
from vpo_kit.pairing.guided import GuidedMaker
from vpo_kit.pairing.independent import IndependentMaker
from vpo_kit.pairing.job import Job, Task
from vpo_kit.pairing.make import Folder
from vpo_kit.pairing.real import RealMaker
from vpo_kit.pairing.settings import Labelling, PairSettings
from vpo_kit.pairing.store import PairSet
from vpo_kit.processes import Processes
from vpo_kit.prompts import read_inputs
from vpo_kit.training import loras, sections
from vpo_kit.training.run import load_model, use

OF_THE_WEIGHTS = set(Model.model_fields) - {"model", "sampling"}


def make_pairs(
    output: Path | str,
    *,
    strategy: Literal["independent", "guided", "local", "real"] = "independent",
    prompts: Path | str | None = None,
    videos: Path | str | None = None,
    model: str | None = None,
    lora: Path | str | None = None,
    label: str = "reward:vqa",
    seed: int = 0,
    config: Path | str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> PairSet:
    """Make the pairs that are missing in the folder `output`, then their labels, by any labeller or ``none``.

    Independent pairs come from the file `prompts` (default: the model's own), all others from the clips of the folder
    `videos`. With `lora`, a run, LoRA folder or file, they are videos of the trained model, and the run's own model,
    precision and sampling are the defaults. `settings` are those of `PairSettings`. Raises `VpoError`.
    """
    weights, file = Path(lora) if lora is not None else None, Path(config) if config is not None else None
    given = settings if model is None else {**settings, "model": model}
    found = sections.read(PairSettings, given, file, weights)
    label = "none" if strategy in ("local", "real") else label  # a real clip wins over what stands in its place
    labeller = None if label == "none" else labellers.plan(label, found.labelling, "labelling.")
    own = labeller.config if labeller else validate(Labelling, found.labelling, "labelling.")
    found = found.model_copy(update={"labelling": own.model_dump(mode="json")})
    texts, clips = (Path(path) if path is not None else None for path in (prompts, videos))
    data = _data(strategy, texts, clips, found.model)
    if (
        strategy == "independent"
        and not (labeller and labeller.chooses)
        and (found.independent.num_candidates > 2 or found.independent.pairs != "best")
    ):
        raise ConfigError(
            f"--label {label} makes one pair of two candidates: choosing among more needs --label reward:NAME"
        )
    resolve(found.model)
    if labeller:
        labeller.locate()
    processes, folder = Processes(), Folder(Path(output))
    facts: dict[str, Any] = {
        "format": formats.SETS,
        "strategy": strategy,
        "model": found.model,
        "lora": _hashes(weights),
        "data": str(data),
        "seed": seed,
        "label": label,
        "settings": _plain(found),
        "versions": versions(),
        "skipped": [],
    }
    console = terminal(quiet=quiet or not processes.is_main)
    folder.check(facts)
    _doubt(labeller, found.model, console)
    processes.wait()  # all have looked before the first one writes
    with files.claimed(folder.path, "vpo pair") if processes.is_main else nullcontext():
        folder.check(facts)  # again, as another one may have begun here meanwhile
        if not folder.finished:
            _make(folder, strategy, data, facts, found, weights, labeller, processes, console)
        elif processes.is_main:
            folder.tidy()
    made = store.read(Path(output))
    if labeller and not any(pair.labels for pair in made.pairs):
        return labeller.label(made, _around(processes, console))
    for line in summary(made):
        console.print(line, soft_wrap=True, highlight=False)
    return made


def _hashes(lora: Path | None) -> dict[str, str] | None:
    """The LoRA's files by what is in them: a run that was trained on makes other pairs."""
    return None if lora is None else {name: files.sha256(path) for name, path in loras.weights_of(lora).items()}


def _plain(settings: PairSettings) -> dict[str, Any]:
    """The settings as sets of older versions have them, with no more of the model section than was changed."""
    whole = settings.model_dump(mode="json", exclude=set(Model.model_fields) - {"sampling"})
    return whole | settings.model_dump(mode="json", include=OF_THE_WEIGHTS, exclude_defaults=True)


def label(path: Path | str, by: str = "reward:vqa", *, quiet: bool = False, **settings: Any) -> PairSet:
    """Label a finished set anew by a labeller (``reward:NAME``, ``vlm:MODEL``, ``people``, or one of your own), whose
    own settings `settings` are. With ``people`` this lasts until somebody ends it. Raises `VpoError`.
    """
    if by == "none":
        raise ConfigError("--with none: give reward:NAME, vlm:MODEL or people")
    labeller = labellers.plan(by, settings)
    processes = Processes()
    found, console = store.read(Path(path)), terminal(quiet=quiet or not processes.is_main)
    _doubt(labeller, found.model, console)
    return labeller.label(found, _around(processes, console))


def _doubt(labeller: Labeller | None, model: str, console: Console) -> None:
    for line in labeller.doubts(model) if labeller else ():
        console.print(line, soft_wrap=True, highlight=False)


def _around(processes: Processes, console: Console) -> Surroundings:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False)

    return Surroundings(processes, say, lambda name, total: count_bar(console, name, total))


def _make(
    folder: Folder,
    strategy: str,
    data: Path,
    facts: dict[str, Any],
    settings: PairSettings,
    lora: Path | None,
    labeller: Labeller | None,
    processes: Processes,
    console: Console,
) -> None:
    model = load_model(settings)
    sampling = use(model, settings.sampling)
    task = Task(model=model, sampling=sampling, encode=PromptCache(model), settings=settings, seed=int(facts["seed"]))
    if strategy != "independent":
        clips = find_clips(data, sampling, processes, console, settings.guided.max_windows)
        facts["skipped"] = clips.skipped
        model.check_inputs(inputs_of(task.inputs(clip)) for clip in clips.clips)
        maker = (
            GuidedMaker(task, clips.clips)
            if strategy == "guided"
            else RealMaker(task, clips.clips, local=strategy == "local")
        )
        job: Job = maker.job()
        made_from = [task.inputs(clip) for clip in clips.clips]
    else:
        inputs = read_inputs(data)
        model.check_inputs(inputs)
        judge = labeller.judge(model.device, offload=settings.offload) if labeller else None
        job = IndependentMaker(task, inputs, judge).job()
        made_from = list(inputs)
    if line := cut_short(model, made_from):
        console.print(line, soft_wrap=True, highlight=False)
    task.encode.ahead([(item, sampling) for item in (sampling.negative_prompt, *made_from)], console.print)
    if processes.is_main:
        folder.start({**facts, "sampling": asdict(sampling)})
    processes.wait()
    total = sum(len(batch) for batch in processes.share(job.batches))
    with (
        loras.loaded(model, lora) if lora is not None else nullcontext(),
        count_bar(console, "pairs", total) as tick,
    ):
        make.run(folder, job, task, {**facts, "sampling": asdict(sampling)}, processes, tick)


def _data(strategy: str, prompts: Path | None, videos: Path | None, model_name: str) -> Path:
    if strategy != "independent":
        if videos is None:
            raise ConfigError(f"--strategy {strategy} starts from real clips: give --videos DIR")
        return videos
    if videos is not None:
        raise ConfigError("--strategy independent takes prompts, not --videos")
    found = prompts or prompts_of(model_name, "train")
    if found is None:
        raise ConfigError(f"model {model_name!r} ships no prompts: give --prompts FILE, one prompt a line")
    return found
