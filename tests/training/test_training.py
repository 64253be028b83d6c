"""The loop: repeatable, resumable, and honest when something is wrong."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.brief_runs import BRIEF, PROMPTS, nothing, run_once
from tests.support.brief_runs import model as model
from vpo_kit import config
from vpo_kit.cli import main
from vpo_kit.config import Lora
from vpo_kit.errors import CheckpointError, HealthError, InterruptedRunError, ModelError, VpoError
from vpo_kit.methods.base import Batch, StepOutput
from vpo_kit.methods.draft import Draft
from vpo_kit.methods.online import Online
from vpo_kit.models.base import VideoModel
from vpo_kit.processes import Processes
from vpo_kit.testing.rewards import Brightness
from vpo_kit.testing.runs import train_briefly
from vpo_kit.training import checkpoints, ending, health
from vpo_kit.training.budget import Spending
from vpo_kit.training.loop import Report
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.training.run_folder import RunFolder


@pytest.mark.parametrize("reference", ["never", "hard", "ema"])
def test_resume_is_exact(model: VideoModel, tmp_path: Path, reference: str) -> None:
    settings = {"reference_update": reference, "reference_every": 2}
    whole = run_once(model, tmp_path / "whole", 5, settings)
    run_once(model, tmp_path / "parts", 3, settings)  # a checkpoint in the middle of a rollout's updates
    parts = run_once(model, tmp_path / "parts", 5, settings)
    assert parts == whole
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    first, second = (load_file(tmp_path / n / "checkpoints/step-000005/lora.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(value.abs().max() > 0 for key, value in first.items() if "lora_B" in key)


def test_a_spent_budget_ends_the_run(model: VideoModel, tmp_path: Path) -> None:
    """After the step that reaches it, with a checkpoint of that step, so that a resumed run stays where it is."""
    free = run_once(model, tmp_path / "free", 2)
    passes = sum(row["passes"] for row in free)
    for name, limits, expected in (
        ("passes", {"max_passes": passes}, free),
        ("seconds", {"max_seconds": 1e-9}, free[:1]),
    ):
        folder = tmp_path / name
        for _ in range(2):
            assert run_once(model, folder, 9, every=4, limits=limits) == expected
            assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step-{len(expected):06d}"]
        read = checkpoints.latest(folder / "checkpoints")
        assert read is not None
        assert (read[0].seconds > 0) == (name == "seconds")


def test_seconds_go_on_from_the_checkpoint() -> None:
    limited = Spending(config.build({"steps": 9, "max_seconds": 100}), Processes())
    assert not limited.spent(1, [])
    limited.resume(99)
    assert (limited.seconds >= 99, limited.spent(1, [])) == (True, False)
    limited.resume(100)
    assert limited.spent(1, [])
    free = Spending(config.build({"steps": 9}), Processes())
    free.resume(100)
    assert (free.seconds, free.spent(8, []), free.spent(9, [])) == (0, False, True)


def test_looking_takes_no_seconds_away_from_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it takes no passes: a method that validates would else train for less of the same budget."""
    now = [0.0]
    monkeypatch.setattr("vpo_kit.training.budget.time.monotonic", lambda: now[0])
    limited = Spending(config.build({"steps": 9, "max_seconds": 100}), Processes())
    now[0] = 60.0
    with limited.looking():
        now[0] = 500.0
    now[0] = 530.0
    assert (limited.seconds, limited.spent(1, [])) == (90.0, False)


class Refusing(Draft):
    """Its judge cannot be reached when it looks at held-out data the second time."""

    looks = 0

    def validate(self, batches: Any) -> dict[str, float]:
        type(self).looks += 1
        if type(self).looks == 2:
            raise ModelError("nobody answers")
        return super().validate(batches)


def looking(model: VideoModel, folder: Path, kind: type[Draft], on_notice: Callable[[str], None]) -> list[Report]:
    """Three steps, each of which is followed by a look at one held-out prompt."""
    own: dict[str, Any] = {**BRIEF, "validation": {"every": 1, "share": 0.5}, "checkpoints": {"every": 9}}
    method = {"name": "draft"}
    return train_briefly(
        model, PROMPTS, folder, Brightness(), kind=kind, on_notice=on_notice, steps=3, method=method, **own
    )


def test_a_judge_that_fails_while_looking_takes_no_step_away(model: VideoModel, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(ModelError, match="nobody answers"):
        looking(model, tmp_path / "run", Refusing, said.append)
    found = checkpoints.latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found[0].step == 2
    assert said[-1] == "looking at step 2 failed: its state is saved, go on with --resume, without this look"
    rows = looking(model, tmp_path / "run", Refusing, said.append)
    whole = looking(model, tmp_path / "whole", Draft, said.append)
    assert [row["loss"] for row in rows] == [row["loss"] for row in whole]
    assert ["heldout_reward" in row for row in rows] == [True, False, True]


def test_reference_is_the_base_until_it_moves(model: VideoModel) -> None:
    x, t = torch.randn(1, *model.latent_shape(9, 32, 32)), torch.tensor([500.0])
    conditions = model.encode_prompts(PROMPTS[:1])
    base = model.predict(x, t, conditions)
    policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
    try:
        torch.testing.assert_close(model.predict(x, t, conditions), base, atol=0, rtol=0)
        with torch.no_grad():
            for parameter in policy.parameters:
                parameter.add_(0.05)
        moved = model.predict(x, t, conditions)
        assert not torch.allclose(moved, base, atol=1e-3)
        with policy.reference():
            assert torch.equal(model.predict(x, t, conditions), base)
        policy.refresh_reference(0.0)
        with torch.no_grad():
            for parameter in policy.parameters:
                parameter.add_(0.05)
        with policy.reference():
            torch.testing.assert_close(model.predict(x, t, conditions), moved)
        assert not torch.allclose(model.predict(x, t, conditions), moved, atol=1e-4)
        assert all(parameter.requires_grad for parameter in policy.parameters)
    finally:
        model.network.delete_adapters(["reference", "default"])


def test_lora_loads_into_the_pipeline(model: VideoModel, tiny_wan: Path, tmp_path: Path) -> None:
    """`pipe.load_lora_weights` gives the output of our own policy, alpha included (here twice the rank)."""
    from diffusers import WanPipeline

    x, t = torch.randn(1, *model.latent_shape(9, 32, 32)), torch.tensor([300.0])
    conditions = model.encode_prompts(PROMPTS[:1])
    base = model.predict(x, t, conditions)
    policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
    try:
        with torch.no_grad():
            for i, parameter in enumerate(policy.parameters):
                parameter.add_(0.03 * (i % 3))
        ours = model.predict(x, t, conditions)
        policy.export(tmp_path / "lora")
    finally:
        model.network.delete_adapters(["default"])
    pipeline = WanPipeline.from_pretrained(tiny_wan)
    pipeline.load_lora_weights(str(tmp_path / "lora"))
    theirs = pipeline.transformer(x, t, conditions.tensors["embeds"], return_dict=False)[0]
    assert not torch.allclose(ours, base, atol=1e-3)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_damaged_checkpoint_is_passed_over(model: VideoModel, tmp_path: Path) -> None:
    run_once(model, tmp_path, 4)
    newest = tmp_path / "checkpoints/step-000004/lora.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    found = checkpoints.latest(tmp_path / "checkpoints")
    assert found is not None
    state, damaged = found
    assert state.step == 2
    assert "lora.safetensors has changed" in damaged[0]
    (tmp_path / "checkpoints/step-000002/state.json").unlink()
    with pytest.raises(CheckpointError, match="--overwrite"):
        checkpoints.latest(tmp_path / "checkpoints")


def test_all_candidates_alike_is_a_tie(model: VideoModel, tmp_path: Path) -> None:
    rows = run_once(model, tmp_path, 2, {"min_margin": 1e9})
    assert [row["loss"] for row in rows] == [0.0, 0.0]
    assert rows[0]["skipped"] == 1.0
    assert rows[1]["grad_norm"] == 0.0


class Exploding(Online):
    """Good for two steps; then the loss is finite and its gradient is not."""

    def step(self, batch: Batch) -> StepOutput:
        output = super().step(batch)
        if batch.step < 2:
            return output
        assert output.loss is not None
        return StepOutput(loss=torch.sqrt(output.loss - output.loss.detach()) + 0.5, report=output.report)


def test_a_gradient_that_is_not_finite_changes_nothing(model: VideoModel, tmp_path: Path) -> None:
    with pytest.raises(HealthError, match=r"step 3: the gradient is .*no weight was changed") as caught:
        run_once(model, tmp_path, 4, kind=Exploding)
    assert caught.value.check == "not_finite"
    found = checkpoints.latest(tmp_path / "checkpoints")
    assert found is not None
    assert found[0].step == 2
    assert all(torch.isfinite(value).all() for value in found[0].policy.values())


class Large(Online):
    """Its third step asks for more than the GPU has."""

    def step(self, batch: Batch) -> StepOutput:
        if batch.step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nmore")
        return super().step(batch)


def test_a_full_gpu_takes_no_step_away_and_is_a_line(
    model: VideoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = r"CUDA out of memory: vpo plan --memory SIZE, with the run's own options, says what would make it fit"
    with pytest.raises(VpoError, match=rf"^step 3, items .*: {line}"):
        run_once(model, tmp_path, 4, kind=Large, every=9)
    found = checkpoints.latest(tmp_path / "checkpoints")
    assert found is not None
    assert found[0].step == 2

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("vpo_kit.library.train.run", full)
    with pytest.raises(SystemExit) as end:
        main(["train"])
    assert end.value.code == 1
    assert re.match(rf"vpo: {line} \(docs/memory.md\)\n$", capsys.readouterr().err)


def row(**values: float) -> dict[str, float]:
    healthy = {
        "loss": 0.6, "implicit_accuracy": 0.7, "labels": 16, "winner_error_change": 0.0, "loser_error_change": 0.01,
        "gradient_factor": 0.3, "motion": 0.02,
    }  # fmt: skip
    return {**healthy, **values}


FACTS = health.Facts(start=(math.log(2), 0.5), fixed_labels=True)
BLIND = {"implicit_accuracy": 0.5}


@pytest.mark.parametrize(
    ("name", "history"),
    [
        ("not_finite", [row(loss=math.nan)]),
        ("no_learning", [row(loss=math.log(2), **BLIND)] * 40),
        ("no_learning", [row(loss=0.75, labels=200, **BLIND)] * 100),
        ("winner_error", [row(winner_error_change=0.12)] * 20),  # also where the loser's does not rise
        ("margin_runaway", [row(gradient_factor=0.001)] * 20),
        ("no_advantage", [row(informative=0.0)] * 20),
        ("ratio_clipped", [row(ratio_clipped=0.95)] * 20),
        ("old_policy", [row(old_distance=0.7)] * 20),
        ("one_sided", [row(good_share=1.0)] * 20),
        ("motion_collapse", [row()] * 10 + [row(motion=0.005)] * 10),
    ],
)
def test_health_checks(name: str, history: list[dict[str, float]]) -> None:
    with pytest.raises(HealthError) as caught:
        health.check(history, FACTS, [])
    assert caught.value.check == name
    health.check(history, FACTS, [name])
    assert health.check([row()] * 50, FACTS, []) == {}


class TestHealthLooksAtEvidence:
    def quiet(self, history: list[dict[str, float]], facts: health.Facts) -> bool:
        """Whether nothing stops the run at any step."""
        for count in range(1, len(history) + 1):
            health.check(history[:count], facts, [])
        return True

    def test_a_warm_up_is_not_held_against_a_run(self) -> None:
        """DenseDPO's published settings: 250 steps of warm-up to a rate of 1e-5, the loss at ln 2, the order right."""
        facts = health.Facts(warmup_steps=250, start=(math.log(2), 0.5), fixed_labels=True)
        assert self.quiet([row(loss=math.log(2) + 1e-4, **BLIND)] * 270, facts)

    def test_a_loss_at_its_start_beside_an_order_that_is_learned(self) -> None:
        assert self.quiet([row(loss=math.log(2) - 2e-4, implicit_accuracy=0.57, labels=100)] * 60, FACTS)

    def test_an_order_that_is_learned_late(self) -> None:
        """As `dense` on guided pairs: 35 steps at chance over 1,786 labels, and at the 100th two thirds are right."""
        steps = [0.491] * 35 + [0.56] * 15 + [0.62] * 50
        history = [row(loss=0.69, labels=51, implicit_accuracy=accuracy) for accuracy in steps]
        assert self.quiet(history, FACTS)
        assert "49.1% are in the right order" in health.check(history[:35], FACTS, [])["no_learning"]
        assert "no_learning" not in health.check(history, FACTS, [])

    def test_few_labels_prove_nothing(self) -> None:
        assert self.quiet([row(loss=0.75, labels=4, **BLIND)] * 60, FACTS)

    def test_fresh_pairs_come_from_the_policy_itself(self) -> None:
        """Online accuracy stays near chance and the loss near ln 2 while the reward rises."""
        online = health.Facts(start=(math.log(2), 0.5), fixed_labels=False)
        assert self.quiet([row(loss=0.7, labels=200, **BLIND)] * 60, online)

    @pytest.mark.parametrize("start", [(1.0, 1.0), (0.25, 1.0)])
    def test_every_link_has_its_own_start(self, start: tuple[float, float]) -> None:
        """Hinge starts at 1 and ipo at .25: neither ever shows ln 2."""
        with pytest.raises(HealthError, match="no_learning"):
            health.check([row(loss=start[0], gradient_factor=1.0, **BLIND)] * 40, health.Facts(start=start), [])
        with pytest.raises(HealthError, match="the margin has run away"):
            health.check([row(gradient_factor=0.01)] * 20, health.Facts(start=start), [])

    def test_the_troubles_of_reinforcement_warn_before_they_stop(self) -> None:
        found = health.check([row(informative=0.05, old_distance=0.2)] * 20, FACTS, [])
        assert "in 95% of the prompts all candidates have the same score" in found["no_advantage"]
        assert "20% (squared) apart" in found["old_policy"]
        sound = row(informative=0.9, old_distance=0.01, ratio_clipped=0.3, good_share=0.4)
        assert health.check([sound] * 20, FACTS, []) == {}

    def test_a_rise_of_the_winners_error_warns_before_it_stops(self) -> None:
        found = health.check([row(winner_error_change=0.07 + 0.001 * (i % 2)) for i in range(20)], FACTS, [])
        assert "the errors of winners and losers have changed by +7% and +1%" in found["winner_error"]
        noisy = [row(winner_error_change=0.07 + 0.3 * (-1) ** i) for i in range(20)]
        assert health.check(noisy, FACTS, []) == {}


def command(tiny_wan: Path, output: Path, *more: str) -> list[str]:
    small = ["--set", "batch_size=2", "--set", "evaluation.num_prompts=2", "--set", "checkpoints.every=1"]
    method = ["--set", "method.num_candidates=2", "--set", "method.updates_per_rollout=3"]
    head = [sys.executable, "-m", "vpo_kit", "train", "--model", str(tiny_wan), "--output", str(output), "--steps", "6"]
    return [*head, *small, *method, *more]


@pytest.mark.slow  # every run of the tests kills and resumes in test_kill.py; here with processes of their own
def test_kill_9_and_resume(tiny_wan: Path, tmp_path: Path) -> None:
    """A killed run that is resumed leaves the files of an undisturbed one, which runs of one seed share."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = subprocess.run(
        command(tiny_wan, tmp_path / "whole"), env=environment, capture_output=True, text=True, check=False
    )
    assert whole.returncode == 0, whole.stderr
    log = tmp_path / "killed" / "metrics.jsonl"
    process = subprocess.Popen(command(tiny_wan, tmp_path / "killed"), env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.is_file() and log.read_text().count("\n") >= 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = subprocess.run(
        command(tiny_wan, tmp_path / "killed", "--resume"), env=environment, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert logs[0] == logs[1]
    # safetensors orders its metadata by chance, so tensors are compared and not files
    one, other = (load_file(tmp_path / n / "lora/pytorch_lora_weights.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    results = [json.loads((tmp_path / run / "summary.json").read_text()) for run in ("whole", "killed")]
    assert results[0]["after"] == results[1]["after"]
    assert results[0]["health"]["ok"]


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Signals as the main thread gets them: the workers of a parallel run of tests may be other threads."""
    handlers: dict[int, Any] = {}

    def install(number: int, handler: Any) -> Any:
        before = handlers.get(number, signal.default_int_handler)
        handlers[number] = handler
        return before

    monkeypatch.setattr(ending, "signal", SimpleNamespace(signal=install, SIGINT=signal.SIGINT))
    same = SimpleNamespace(current_thread=lambda: None, main_thread=lambda: None)
    monkeypatch.setattr(ending, "threading", same)
    return lambda number: handlers[number](number, None)


class TestEnding:
    """Ctrl-C and SIGTERM: the step is finished and saved, and the run goes on from there."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_step_is_finished_and_saved(
        self, model: VideoModel, tmp_path: Path, number: int, send: Callable[[int], None]
    ) -> None:
        whole, seen = run_once(model, tmp_path / "whole", 4), list[str]()
        with pytest.raises(InterruptedRunError, match=r"after step 1, which is saved: .*--resume") as caught:
            run_once(model, tmp_path / "ended", 4, every=100, watch=(lambda *_: send(number), seen.append))
        assert caught.value.exit_code == 128 + number
        assert "ending after this step, which is then saved; once more ends at once" in seen
        assert [path.name for path in (tmp_path / "ended/checkpoints").iterdir()] == ["step-000001"]
        assert run_once(model, tmp_path / "ended", 4, every=100) == whole

    def test_a_process_that_was_not_asked_ends_with_the_others(self) -> None:
        """`signals` is the sum over all: of one that was asked, and of none."""
        codes = [ending.Ending(asked).error(signals, 3, "runs/a").exit_code for asked, signals in ((15, 15), (0, 15))]
        assert codes == [128 + signal.SIGTERM, 128 + signal.SIGINT]

    def test_twice_ends_at_once(self, model: VideoModel, tmp_path: Path, send: Callable[[int], None]) -> None:
        def twice(*_: object) -> None:
            for _ in range(2):
                send(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            run_once(model, tmp_path / "ended", 4, every=100, watch=(twice, nothing))
        assert not (tmp_path / "ended/checkpoints").exists()

    def test_in_the_last_step_there_is_nothing_to_end(
        self, model: VideoModel, tmp_path: Path, send: Callable[[int], None]
    ) -> None:
        assert len(run_once(model, tmp_path / "run", 1, watch=(lambda *_: send(signal.SIGINT), nothing))) == 1

    def test_real_signals(self) -> None:
        """The first is noted, and the second does what it always did; afterwards all is as it was."""
        script = (
            "import os, signal\n"
            "from vpo_kit.training.ending import awaited\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
            "with awaited(print) as end:\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "    print(end.asked, flush=True)\n"
            "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)\n"
            "with awaited(print) as end:\n"
            "    for _ in range(2):\n"
            "        os.kill(os.getpid(), signal.SIGTERM)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGTERM, done.stderr
        assert done.stdout.splitlines()[1:3] == ["2", "True"]


def test_ctrl_c_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vpo_kit.library.train.run", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["train", "--method", "online", "--reward", "vqa"])
    assert end.value.code == 130
    assert "vpo: interrupted" in capsys.readouterr().err


def test_a_run_that_had_only_begun_is_written_over(tmp_path: Path) -> None:
    for name in ("config.yaml", "notes.md"):
        (tmp_path / name).write_text("method: {name: online}\n")
    RunFolder(tmp_path)._remove_run()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def test_a_run_that_goes_on_is_not_done(tmp_path: Path) -> None:
    """Killed now, it is listed as what it is, not as what it was at its first end."""
    folder, run = RunFolder(tmp_path), config.build({"steps": 4})
    folder.start(run, resume=False)
    folder.write("summary.json", "{}")
    folder.start(run, resume=True)
    assert not (tmp_path / "summary.json").exists()
