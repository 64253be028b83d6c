"""Several processes, launched as `accelerate launch` and `torchrun` do it, give what one process gives."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from tests.support import shared_steps, train_runs
from tests.support.forks import Fork, side_by_side
from tests.support.offline_run import make_set
from tests.support.places import ROOT
from vpo_kit import models
from vpo_kit.errors import ConfigError
from vpo_kit.evaluation.samples import Results
from vpo_kit.processes import Processes
from vpo_kit.testing.families import FAMILIES

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
LAUNCHES = {"ddp": {}, "fsdp": FSDP}
METHODS = ["online", "dense"]
SHARED = ["nft", "grpo", "rwr", "kto", "mapo"]
"""Methods whose three steps in two processes are those in one."""
NETWORKS = ["wan2.2-a14b", "modelscope", "hunyuan"]  # two experts; a UNet; two kinds of blocks


def start(commands: Sequence[Sequence[str]], variables: dict[str, str], count: int = 2) -> list[Fork]:
    """`count` processes that run the same commands, with the variables that a launcher sets."""
    return side_by_side(count, partial(Fork, train_runs.run, commands), **variables)


def finish(processes: Sequence[Fork]) -> list[tuple[int, str]]:
    """Exit code and standard error of each."""
    return [(process.wait(), process.errors) for process in processes]


class Bench:
    """The commands of all runs: `root`/LAUNCH/METHOD."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root = root
        self._model = model
        self._pairs = make_set(root / "pairs")

    def command(self, launch: str, name: str) -> list[str]:
        settings = {
            "online": ["method={num_candidates: 2, reference_every: 3, beta: 20.0}", "batch_size=2"],
            "dense": [
                "method={beta: 20.0}",
                "micro_batch_size=1",
                "batch_size=4",
                "validation={every: 2, share: 0.25}",
            ],
            # what sharding has to get along with: checkpointing by the sampler and in the blocks, mixed types, kept
            # reference errors
            "draft": ["method={grad_steps: 2}", "batch_size=2", "gradient_checkpointing=true"],
            "structural": ["method={fixed_draws: 1, beta: 20.0}", "batch_size=2", "dtype=bfloat16"],
            "nft": ["method={num_candidates: 2, old_growth: 0.5}", "batch_size=2", "micro_batch_size=1"],
            "kto": ["method={beta: 20.0, reference_update: ema}", "batch_size=4", "micro_batch_size=1"],
            "mapo": ["batch_size=4"],
            "grpo": ["method={num_candidates: 2, kl: 0.1, same_start: true}", "batch_size=2", "micro_batch_size=1"],
            "rwr": ["method={num_candidates: 2, of: reward}", "batch_size=2"],
        }[name]
        judged = name in ("online", "draft", "nft", "grpo", "rwr")
        source = ["--reward", "tests.support.train_runs:SomeTies"] if judged else ["--pairs", str(self._pairs)]
        main = name in METHODS
        common = [
            "optimiser={lr: 1e-3, warmup_steps: 5}", "sampling.batch_size=2", "lora={rank: 4, alpha: 8}",
            "checkpoints={every: 3, keep: 5}",
            "evaluation.judges=[]", f"evaluation.num_prompts={3 if main else 0}",
            "health.disable=[no_learning, margin_runaway, winner_error, motion_collapse]",
        ]  # fmt: skip
        return [
            "train", "--method", name, "--model", str(self._model), "--output", str(self.folder(launch, name)),
            *source, "--steps", "6" if main else "3",
            *(part for setting in [*common, *settings] for part in ("--set", setting)),
        ]  # fmt: skip

    def resume(self, launch: str, name: str, target: str) -> list[str]:
        """The command that goes on, as `target`, with a run killed after its checkpoint of step 3."""
        old, new = self.folder(launch, name), self.folder(target, name)
        shutil.copytree(old, new)
        for path in (new / "checkpoints/step-000006", new / "samples/step-000006", new / "lora"):
            shutil.rmtree(path)
        return ["train", "--resume", "--output", str(new)]

    def folder(self, launch: str, name: str) -> Path:
        return self.root / launch / name

    def rows(self, launch: str, name: str) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.folder(launch, name) / "metrics.jsonl").read_text().splitlines()]

    def lora(self, launch: str, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder(launch, name) / "lora/pytorch_lora_weights.safetensors")


@pytest.fixture(scope="module")
def bench(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One process, two, two sharded; and each resumed by another."""
    made = Bench(tmp_path_factory.mktemp("runs"), tiny_wan)
    others = ["draft", "structural"]
    for name in NETWORKS:
        FAMILIES[name].build().save_pretrained(made.root / "families" / name, safe_serialization=True)
    train_runs.run([made.command("one", name) for name in METHODS])
    running = []
    for launch, variables in LAUNCHES.items():
        commands = [made.command(launch, name) for name in METHODS]
        commands += [made.resume("one", name, f"one-{launch}") for name in METHODS]
        if launch == "fsdp":
            commands += [made.command(launch, name) for name in others]
            commands.append(["families", str(made.root / "families"), *NETWORKS])
        running += start(commands, variables)
    train_runs.run([made.command("one", name) for name in others])
    assert [(code, shown[-2000:]) for code, shown in finish(running) if code] == []
    train_runs.run([made.resume(launch, name, f"{launch}-one") for launch in LAUNCHES for name in METHODS])
    return made


@pytest.fixture(scope="module")
def shared(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The methods that share the above's code, three steps each, in one process, two, and two sharded."""
    made = Bench(tmp_path_factory.mktemp("shared"), tiny_wan)
    for launch, variables in LAUNCHES.items():
        running = start([made.command(launch, name) for name in SHARED], variables)
        assert [(code, shown[-2000:]) for code, shown in finish(running) if code] == []
    train_runs.run([made.command("one", name) for name in SHARED])
    return made


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("launch", [*LAUNCHES, "one-ddp", "ddp-one", "one-fsdp", "fsdp-one"])
def test_the_same_run(bench: Bench, launch: str, name: str) -> None:
    """Losses and the final LoRA, whole or saved and resumed with another number of processes."""
    one, other = bench.rows("one", name), bench.rows(launch, name)
    for row, row2 in zip(one, other, strict=True):
        assert row2["loss"] == pytest.approx(row["loss"], rel=1e-5)
        assert row2["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-4)
        for key in ("reward_mean", "skipped", "heldout_loss", "heldout_accuracy"):
            assert row2.get(key, 0.0) == pytest.approx(row.get(key, 0.0), rel=1e-5), key
    lora, lora2 = bench.lora("one", name), bench.lora(launch, name)
    assert max(float(value.abs().max()) for key, value in lora.items() if "lora_B" in key) > 3e-3
    for key, value in lora.items():
        torch.testing.assert_close(lora2[key], value, rtol=0, atol=1e-5)


def test_processes_had_uneven_work(bench: Bench) -> None:
    """Else the runs above would not show that it does no harm: half of a rollout's prompts gave no pair."""
    skipped = [row["skipped"] for row in bench.rows("one", "online")]
    assert 0.5 in skipped
    assert any(value < 0.5 for value in skipped)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_evaluation_is_shared_file_for_file(bench: Bench, launch: str) -> None:
    for name in METHODS:
        first, second = (bench.folder(at, name) / "samples/step-000000" for at in ("one", launch))
        assert sorted(p.name for p in first.iterdir()) == sorted(p.name for p in second.iterdir())
        one, other = (Results.load(folder) for folder in (first, second))
        assert (other.prompts, other.files) == (one.prompts, one.files)
        for key, values in one.metrics.items():
            assert other.metrics[key] == pytest.approx(values, rel=1e-5), key
        for path in first.iterdir() if launch == "ddp" else ():  # a sharded weight lies at another address: last bits
            assert path.read_bytes() == (second / path.name).read_bytes(), path.name


@pytest.mark.parametrize(("name", "tolerance"), [("draft", 1e-5), ("structural", 1e-2)])
def test_sharding_gets_along_with(bench: Bench, name: str, tolerance: float) -> None:
    for row, row2 in zip(bench.rows("one", name), bench.rows("fsdp", name), strict=True):
        assert row2["loss"] == pytest.approx(row["loss"], rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_few_steps_are_the_same(shared: Bench, launch: str, name: str) -> None:
    one, other = shared.rows("one", name), shared.rows(launch, name)
    for row, row2 in zip(one, other, strict=True):
        assert row2["loss"] == pytest.approx(row["loss"], rel=1e-4, abs=1e-6)
        assert row2["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-4)
        assert row2.get("reward_mean", 0.0) == pytest.approx(row.get("reward_mean", 0.0), rel=1e-5)
    assert one[-1]["grad_norm"] > 1e-4


def test_a_sharded_network_gives_the_same(bench: Bench) -> None:
    """In families of other shapes, also where each process needs another expert; and half of its weights are here."""
    for rank in range(2):
        found = json.loads((bench.root / f"families/{rank}.json").read_text())
        assert sorted(found) == sorted(NETWORKS)
        for name, (output, gradient, share) in found.items():
            assert output < 1e-5, name
            assert gradient < 1e-5, name
            assert share < 0.6, name


@pytest.mark.parametrize("launch", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_a_dead_process_ends_the_run(tiny_wan: Path, tmp_path: Path, launch: str) -> None:
    """Without a launcher, which would end the other process too: it must end by itself, and say why."""
    bench = Bench(tmp_path, tiny_wan)
    command = [*bench.command(launch, "online"), "--set", "evaluation.num_prompts=0", "--steps", "100000"]
    log, (first, second) = bench.folder(launch, "online") / "metrics.jsonl", start([command], LAUNCHES[launch])
    try:
        end = time.monotonic() + 300
        while not (log.is_file() and log.read_text().count("\n") > 3):
            assert (first.code, second.code) == (None, None)
            assert time.monotonic() < end
            time.sleep(0.2)
        second.kill()
        code, shown = first.wait(60), first.errors
    finally:
        first.kill()
        second.kill()
    assert code == 1, shown
    (line,) = [line for line in shown.splitlines() if line.startswith("vpo:")]
    assert line.startswith("vpo: process 0 of 2 lost another one")
    assert "Traceback" not in shown


@pytest.mark.parametrize("name", ["1gpu", "8gpu-ddp", "8gpu-fsdp2", "2x8gpu-fsdp2"])
def test_config_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate reads them, and what it would set in the processes' environment is what `Processes` understands."""
    path = str(ROOT / f"configs/accelerate/{name}.yaml")
    found = load_config_from_file(path)
    assert found.num_processes == {"1": 1, "8": 8, "2": 16}[name[0]]
    arguments = launch_command_parser().parse_args(["--config_file", path, "-m", "vpo_kit", "train"])
    arguments, _, _ = _validate_launch_command(arguments)
    for key, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(key, value)
    assert os.environ.get("ACCELERATE_USE_FSDP", "false") == str("fsdp2" in name).lower()
    Processes()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({**FSDP, "FSDP_VERSION": "1"}, "fsdp_version: 2"),
        ({**FSDP, "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
        ({"VPO_TIMEOUT": "soon"}, "VPO_TIMEOUT=soon"),
    ],
)
def test_a_launch_that_is_not_supported(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=message):
        Processes()


def test_one_step_of_every_method_by_two_processes_is_that_of_one(tiny_wan: Path, tmp_path: Path) -> None:
    """Whatever is averaged where shares are to be added, or the other way round, shows."""
    pairs = make_set(tmp_path / "pairs")
    started = side_by_side(2, partial(Fork, shared_steps.compare, str(tiny_wan), str(pairs), str(tmp_path)))
    alone = {
        name: (gradient, logged)
        for name, gradient, logged in shared_steps.steps(
            models.load(str(tiny_wan)), pairs, shared_steps.SETTINGS, Processes()
        )
    }
    assert [(code, shown[-2000:]) for code, shown in finish(started) if code] == []
    together = json.loads((tmp_path / "losses.json").read_text())
    assert set(alone) == set(together)
    for name, (gradient, logged) in alone.items():
        assert float(gradient.norm()) > 1e-4, name
        found = load_file(tmp_path / f"{name}.safetensors")["gradient"]
        assert float((found - gradient).norm() / gradient.norm()) < 1e-4, name
        for key in ("loss", "implicit_accuracy", "reward_mean", "skipped", "good_share", "informative"):
            assert together[name].get(key, 0.0) == pytest.approx(logged.get(key, 0.0), rel=1e-4), (name, key)
    for rank, own in enumerate(json.loads((tmp_path / f"sums-{rank}.json").read_text()) for rank in (0, 1)):
        assert own == {
            "share": [[0, 2, 4], [1, 3]][rank],
            "total": 3.0,
            "gather": [1, 2, 2],
            "agree": 1,
            "mean": {"all": pytest.approx(5 / 3), "second": 7.0},
            "gradients": [[3.0, 3.0], [5.0, 5.0], None],
            "lockstep": rank + 1,
        }


def test_processes_wait_for_each_other(tmp_path: Path) -> None:
    started = side_by_side(2, partial(Fork, shared_steps.in_turn, str(tmp_path)))
    assert [(code, shown[-2000:]) for code, shown in finish(started) if code] == []
    assert [(tmp_path / f"seen-{rank}").read_text() for rank in (0, 1)] == ["", "by-0"]
    assert [(tmp_path / f"waited-{rank}").read_text() for rank in (0, 1)] == ["True", "True"]


def test_processes_with_unequal_work_make_equal_passes(tiny_wan: Path, tmp_path: Path) -> None:
    """A sharded base needs all of them for each pass, in validation and where one has fewer fresh pairs, or none, too:
    and what those are that only keep step shows in no gradient.
    """
    pairs = make_set(tmp_path / "pairs")
    target = partial(Fork, shared_steps.uneven, str(tiny_wan), str(pairs), str(tmp_path))
    started = side_by_side(2, target, **FSDP, VPO_TIMEOUT="20")
    one = dict(shared_steps.unequal(models.load(str(tiny_wan)), pairs, Processes()))
    assert [(code, shown[-2000:]) for code, shown in finish(started) if code] == []
    first, second = (json.loads((tmp_path / f"uneven-{rank}.json").read_text()) for rank in (0, 1))
    for name, alone in one.items():
        assert first[name]["passes"] == second[name]["passes"], name
        assert first[name]["logged"] == second[name]["logged"] == pytest.approx(alone["logged"], rel=1e-4), name
        if "norm" in alone:
            assert first[name]["norm"] > 1e-4, name
            assert (second[name]["norm"] == 0) == name.startswith("none"), name
            both, whole = torch.tensor(first[name]["gradient"]), torch.tensor(alone["gradient"])
            assert float((both - whole).norm() / whole.norm()) < 1e-4, name
