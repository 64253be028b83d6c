"""The command line. Nothing heavy is imported here: each command imports its own module when it is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vpo_kit import __version__
from vpo_kit.errors import ConfigError, VpoError

app = typer.Typer(
    name="vpo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Align text-to-video diffusion models to preferences.",
)
pair_app = typer.Typer(
    rich_markup_mode=None, invoke_without_command=True, help="Make preference pairs, and look after sets of them."
)
app.add_typer(pair_app, name="pair")
reward_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Check rewards, train the built-in judges, serve over HTTP."
)
app.add_typer(reward_app, name="reward")

Model = Annotated[
    str | None, typer.Option(help="sprites, a diffusers pipeline folder or a hub id", show_default="sprites")
]
Config = Annotated[Path | None, typer.Option("--config", help="YAML recipe")]
PairSet = Annotated[Path, typer.Argument(help="a pair set", metavar="SET")]
Set = Annotated[list[str] | None, typer.Option("--set", help="any field of the recipe: section.field=value")]
Prompts = Annotated[Path | None, typer.Option(help="text file, one prompt a line", show_default="the model's own")]
Seed = Annotated[int | None, typer.Option(min=0, help="seed", show_default="0")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vpo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    method: Annotated[str | None, typer.Option(help="training method (vpo methods)", show_default="online")] = None,
    reward: Annotated[
        str | None, typer.Option(help="vqa, a mixture vqa:0.7+other:0.3, or package.module:Class", show_default="vqa")
    ] = None,
    model: Model = None,
    prompts: Prompts = None,
    pairs: Annotated[Path | None, typer.Option(help="pair set (vpo pair), for dense, structural, dpo, sft")] = None,
    videos: Annotated[Path | None, typer.Option(help="folder of real clips, for sft")] = None,
    output: Annotated[Path | None, typer.Option(help="run folder", show_default="runs/METHOD-DATE")] = None,
    steps: Annotated[int | None, typer.Option(help="optimiser steps")] = None,
    init_lora: Annotated[
        Path | None, typer.Option(help="run, LoRA folder or file to start from; it is then the reference")
    ] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in --output")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the run in --output")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, print the recipe, load no weights")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="with --dry-run: also what the run needs (vpo plan)")] = False,
) -> None:
    """Align a model, with its measurement before and after on held-out prompts."""
    options = {
        "method": method, "reward": reward, "model": model, "prompts": prompts, "pairs": pairs, "videos": videos,
        "output": output, "steps": steps, "seed": seed, "lora": {"init": init_lora} if init_lora else None,
    }  # fmt: skip
    from vpo_kit.commands import train as command

    command.run(options, config, set_ or [], resume=resume, overwrite=overwrite, dry_run=dry_run, plan=plan)


@app.command()
def plan(
    method: Annotated[str | None, typer.Option(help="training method (vpo methods)", show_default="online")] = None,
    reward: Annotated[str | None, typer.Option(help="as for vpo train", show_default="vqa")] = None,
    model: Model = None,
    prompts: Prompts = None,
    pairs: Annotated[Path | None, typer.Option(help="pair set; it need not be there")] = None,
    videos: Annotated[Path | None, typer.Option(help="folder of real clips; it need not be there")] = None,
    output: Annotated[Path | None, typer.Option(help="run folder; nothing is written")] = None,
    steps: Annotated[int | None, typer.Option(help="optimiser steps")] = None,
    init_lora: Annotated[Path | None, typer.Option(help="run, LoRA folder or file to start from")] = None,
    seed: Seed = None,
    config: Config = None,
    set_: Set = None,
    memory: Annotated[
        str | None, typer.Option(help="of one device, as 24GB or 80GiB", show_default="this GPU's")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="processes that share a batch, a device each")] = 1,
) -> None:
    """What a run needs, estimated without weights: memory by part, passes, time; and what to switch on first."""
    options = {
        "method": method, "reward": reward, "model": model, "prompts": prompts, "pairs": pairs, "videos": videos,
        "output": output, "steps": steps, "seed": seed, "lora": {"init": init_lora} if init_lora else None,
    }  # fmt: skip
    from vpo_kit.commands import plan as command

    command.run(options, config, set_ or [], memory, processes)


@pair_app.callback()
def pair(
    context: typer.Context,
    strategy: Annotated[
        Literal["independent", "guided"], typer.Option(help="from prompts alone, or from noised real clips")
    ] = "independent",
    output: Annotated[Path | None, typer.Option(help="folder of the set; the same command goes on with it")] = None,
    prompts: Prompts = None,
    videos: Annotated[
        Path | None, typer.Option(help="guided: a videofolder, or videos with a .txt beside each")
    ] = None,
    model: Model = None,
    label: Annotated[str, typer.Option(help="reward:NAME, segment by segment, or none")] = "reward:vqa",
    seed: Seed = None,
    set_: Set = None,
) -> None:
    """Make pairs of videos and label them."""
    if context.invoked_subcommand is not None:
        return
    from vpo_kit.commands import pair as command

    if output is None:
        raise ConfigError("vpo pair: give --output DIR for the set")
    command.run(strategy, output, prompts, videos, model or "sprites", label, seed or 0, set_ or [])


@pair_app.command("inspect")
def pair_inspect(
    path: PairSet,
    page: Annotated[Path | None, typer.Option(help="the HTML page", show_default="SET/inspect.html")] = None,
    limit: Annotated[int, typer.Option(min=1, help="pairs on the page")] = 200,
) -> None:
    """Labels, margins, motion and duplicates in numbers, and a page with the videos."""
    from vpo_kit.commands import pair_tools as command

    command.inspect(path, page, limit)


@pair_app.command("check")
def pair_check(
    path: PairSet,
    decode: Annotated[bool, typer.Option("--decode", help="also decode every video and count its frames")] = False,
) -> None:
    """Name every pair that is wrong; exit code 1 when there is one."""
    from vpo_kit.commands import pair_tools as command

    command.check_set(path, decode)


@pair_app.command("export")
def pair_export(
    path: PairSet,
    output: Annotated[Path, typer.Option(help="JSON lines file to write")],
    format_: Annotated[Literal["trl"], typer.Option("--format", help="prompt, chosen, rejected")] = "trl",
) -> None:
    """Write the pairs for another trainer; whole-clip ties are left out and counted."""
    from vpo_kit.commands import pair_tools as command

    command.export_set(path, output)


@pair_app.command("merge")
def pair_merge(
    sets: Annotated[list[Path], typer.Argument(help="pair sets of one model", metavar="SET...")],
    output: Annotated[Path, typer.Option(help="folder of the new set")],
) -> None:
    """Make one set of several; the old ones stay."""
    from vpo_kit.commands import pair_tools as command

    command.merge(sets, output)


@pair_app.command("split")
def pair_split(
    path: PairSet,
    output: Annotated[Path, typer.Option(help="folder for the sets train and heldout")],
    share: Annotated[float, typer.Option(help="about this share of the pairs is held out")] = 0.1,
    seed: Seed = None,
) -> None:
    """Split a set by prompt, so that no prompt is on both sides; the old set stays."""
    from vpo_kit.commands import pair_tools as command

    command.split(path, share, seed or 0, output)


@app.command(name="label")
def label_set(
    path: Annotated[Path, typer.Argument(help="a pair set", metavar="SET")],
    with_: Annotated[
        str | None, typer.Option("--with", help="reward:NAME, people or vlm", show_default="reward:vqa")
    ] = None,
    set_: Set = None,
    base_url: Annotated[str | None, typer.Option(help="vlm: chat endpoint, http://HOST:PORT/v1")] = None,
    model: Annotated[str | None, typer.Option(help="vlm: the model's name on that server")] = None,
    judge_against: Annotated[Path | None, typer.Option(help="a set to compare labels with; labels stay")] = None,
    gold: Annotated[Path | None, typer.Option(help="people: JSON lines of id, segment, label: known answers")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="people: of order and sides", show_default="0")] = None,
    host: Annotated[str, typer.Option(help="people: address of the page; traffic is not encrypted")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="people: 0 takes a free one")] = 8001,
    finish: Annotated[bool, typer.Option("--finish", help="people: write the labels, ask nobody")] = False,
    agreement: Annotated[bool, typer.Option("--agreement", help="how well people agree; labels stay")] = False,
) -> None:
    """Label a pair set anew; its videos stay."""
    if judge_against is not None:
        if with_ is not None:
            raise ConfigError("vpo label: --judge-against compares labels that are there: leave --with out")
        from vpo_kit.commands import judge

        judge.run(path, judge_against)
        return
    if with_ != "people" and (finish or gold or seed is not None):
        raise ConfigError("vpo label: --gold, --seed and --finish go with --with people")
    if with_ == "vlm":
        from vpo_kit.commands import label_vlm

        label_vlm.run(path, base_url, model, set_ or [])
        return
    if base_url or model:
        raise ConfigError("vpo label: --base-url and --model go with --with vlm")
    if agreement or with_ == "people":
        from vpo_kit.commands import label_people

        label_people.run(path, set_ or [], seed, gold, host, port, finish=finish, agreement=agreement)
        return
    from vpo_kit.commands import pair as command

    command.relabel(path, with_ or "reward:vqa", set_ or [])


@app.command()
def sample(
    output: Annotated[Path, typer.Option(help="folder for the videos")],
    prompt: Annotated[list[str] | None, typer.Option(help="a prompt; may be given several times")] = None,
    prompts: Annotated[Path | None, typer.Option(help="text file, one prompt a line")] = None,
    model: Model = None,
    lora: Annotated[Path | None, typer.Option(help="LoRA folder, or a run folder")] = None,
    seed: Seed = None,
    set_: Set = None,
) -> None:
    """Make videos, one for each prompt."""
    from vpo_kit.commands import sample as command

    command.run(output, prompt or [], prompts, model or "sprites", lora, seed or 0, set_ or [])


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


@app.command()
def score(
    videos: Annotated[list[Path], typer.Argument(help="clips, or folders of clips")],
    reward: Annotated[str, typer.Option(help="reward or mixture")] = "vqa",
    prompt: Annotated[str | None, typer.Option(help="the clips' prompt, where the reward needs one")] = None,
    set_: Set = None,
) -> None:
    """Score clips with a reward: higher is better."""
    from vpo_kit.commands import score as command

    command.run(videos, reward, prompt, set_ or [])


@app.command(name="eval")
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="run folders or LoRA folders, all of one model")],
    output: Annotated[
        Path, typer.Option(help="folder for videos, results and report.html; the same command goes on with it")
    ],
    model: Annotated[str | None, typer.Option(help="base model", show_default="the first run's")] = None,
    prompts: Prompts = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="at most so many prompts")] = 48,
    videos_per_prompt: Annotated[int, typer.Option(min=1, help="from 2 on, diversity is measured")] = 1,
    reward: Annotated[
        list[str] | None, typer.Option(help="reward to report; may be given several times", show_default="vqa")
    ] = None,
    dino: Annotated[str | None, typer.Option(help="DINO model folder or hub id, for subject consistency")] = None,
    reference: Annotated[Path | None, typer.Option(help="folder of clips, for Frechet and kernel distance")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="judge, pixels, dino or package.module:Class", show_default="diversity: pixels, distances: judge"
        ),
    ] = None,
    latex: Annotated[bool, typer.Option("--latex", help="also write results.tex")] = False,
    vbench_export: Annotated[Path | None, typer.Option(help="write the videos as VBench's input")] = None,
    vbench_results: Annotated[
        list[Path] | None, typer.Option(help="VBench's *_eval_results.json; may be given several times")
    ] = None,
    seed: Seed = None,
    set_: Set = None,
) -> None:
    """Compare the base model with runs: same prompts, same seeds, paired intervals, a page of videos."""
    from vpo_kit.commands import bench
    from vpo_kit.commands import evaluate as command

    request = bench.Request(
        runs, output, model, prompts, num_prompts, videos_per_prompt, reward or ["vqa"], seed or 0, set_ or [],
        dino, features, reference, latex, vbench_export, vbench_results or [],
    )  # fmt: skip
    command.run(request)


@app.command()
def compare(
    output: Annotated[Path, typer.Option(help="folder; the same command goes on with it")],
    methods: Annotated[
        str | None, typer.Option(help="online,dense,... (vpo methods)", show_default="those of the recipe")
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="optimiser_steps=N, network_passes=N, labelled_segments=N, or several joined by commas",
            show_default="the recipe's steps",
        ),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="runs of each method")] = 3,
    config: Config = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.field=value for all, METHOD:section.field=value for one"),
    ] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="section.field=value,value: a row for each, as --set for all or one")
    ] = None,
    model: Model = None,
    reward: Annotated[str | None, typer.Option(help="reward of all methods that need one", show_default="vqa")] = None,
    prompts: Prompts = None,
    pairs: Annotated[Path | None, typer.Option(help="pair set, guided, for dense, structural, sft, instruct")] = None,
    independent_pairs: Annotated[Path | None, typer.Option(help="pair set from independent noise, for dpo")] = None,
    videos: Annotated[Path | None, typer.Option(help="folder of real clips, for sft, instruct")] = None,
) -> None:
    """Train methods on one base, budget and data, several seeds each; one board of gains and costs."""
    from vpo_kit.commands import compare as command
    from vpo_kit.comparison.plan import Given

    given = Given(prompts, pairs, independent_pairs, videos)
    command.run(
        command.Request(
            methods, output, budget, seeds, given, model, reward, config, tuple(set_ or ()), tuple(vary or ())
        )
    )


@app.command()
def clips(
    output: Annotated[Path, typer.Option(help="folder for the videos and metadata.jsonl")],
    count: Annotated[int, typer.Option(min=1, help="how many")] = 64,
    seed: Seed = None,
) -> None:
    """Write real clips of the embedded model's world as a videofolder, flawed ones among them."""
    from vpo_kit.commands import clips as command

    command.run(output, count, seed or 0)


@app.command()
def methods() -> None:
    """List the training methods."""
    from vpo_kit.commands import lists

    lists.methods()


@app.command()
def rewards() -> None:
    """List the rewards, with their licences."""
    from vpo_kit.commands import lists

    lists.rewards()


@app.command()
def models() -> None:
    """List the embedded models and the supported pipeline classes."""
    from vpo_kit.commands import lists

    lists.models()


@reward_app.command("train-vqa")
def train_vqa(
    output: Annotated[Path, typer.Option(help="folder for the weights and the report")],
    kind: Annotated[Literal["vqa", "gold"], typer.Option(help="gold is the held-out judge")] = "vqa",
    steps: Annotated[int, typer.Option(min=1)] = 1250,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    attacks: Annotated[bool, typer.Option(help="train against gradient attacks, too")] = True,
) -> None:
    """Train the built-in video quality judge on procedural clips."""
    from vpo_kit.rewards import train_vqa as command

    command.train(kind, output, steps, seed, attacks=attacks)


@reward_app.command("check")
def check_reward(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="rewards (vpo rewards), or package.module:Class", show_default="all that need no download"),
    ] = None,
    clips: Annotated[int, typer.Option(min=2, help="sprite clips to look at")] = 12,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    output: Annotated[Path | None, typer.Option(help="write the findings as JSON, too")] = None,
    set_: Set = None,
) -> None:
    """Look at rewards before training on them: direction, frozen copies, gradient, batches, time, licence."""
    from vpo_kit.commands import check_reward as command

    command.run(names or [], clips, seed, set_ or [], output)


@reward_app.command("serve")
def serve_reward(
    name: Annotated[str, typer.Argument(help="a reward (vpo rewards), or package.module:Class")],
    host: Annotated[str, typer.Option(help="address to listen on; traffic is not encrypted")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="VPO_REWARD_TOKEN", help="what clients must send", show_default="a new one")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="let every user of this machine in")] = False,
    max_body_mb: Annotated[int, typer.Option(min=1, help="largest request")] = 256,
    set_: Set = None,
) -> None:
    """Serve a reward to runs elsewhere: vpo train --reward remote:http://HOST:PORT."""
    from vpo_kit.commands import serve_reward as command

    command.run(name, host, port, token, set_ or [], open_to_all=no_token, max_body_mb=max_body_mb)


def main(arguments: list[str] | None = None) -> Any:
    """The `vpo` script: an error that a user can mend is one line and an exit code, never a traceback."""
    try:
        app(args=arguments, standalone_mode=True)
    except VpoError as error:
        print(f"vpo: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # a disk that fills up can strike anywhere
        where = f"{error.filename}: " if error.filename else ""
        print(f"vpo: {where}{error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("vpo: interrupted; a run goes on with --resume", file=sys.stderr)
        raise SystemExit(130) from None
