"""Paired statistics on planted and hand-worked cases, tables and pages that escape, and `vpo eval` that goes on."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.conftest import PROMPTS
from tests.support.browser import check_players
from tests.support.said import say
from vpo_kit import files, models
from vpo_kit.config import Lora
from vpo_kit.errors import ConfigError, DataError, OutputError
from vpo_kit.evaluation import people, plots, report, tables
from vpo_kit.evaluation import samples as evaluation_module
from vpo_kit.evaluation.eval_folder import EvalFolder
from vpo_kit.evaluation.measuring import check_names, measure
from vpo_kit.evaluation.metrics import known, verdict
from vpo_kit.evaluation.samples import Results, SamplePlan, compare, evaluate
from vpo_kit.evaluation.statistics import Paired, corrected, holm, jackknife, paired, sign_flip, wilson
from vpo_kit.library import evaluate as command
from vpo_kit.library.bench import EvaluateRequest
from vpo_kit.library.display import print_changes
from vpo_kit.registry import METRICS
from vpo_kit.rewards import loading as rewards
from vpo_kit.sprites import world
from vpo_kit.testing.rewards import stub
from vpo_kit.training.lora import LoraPolicy
from vpo_kit.truth import truth_of
from vpo_kit.video import motion, read_video, write_video


def test_identical_models_are_rarely_significant() -> None:
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        before, after = rng.normal(size=60), rng.normal(size=60)
        found += paired(before, after, range(60), resamples=1000).significant
    assert found <= 20  # 5% of 200 are 10; more than 20 has a chance of one in a thousand


def test_a_known_shift_is_found() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=80)
    change = paired(before, before + 0.3 + rng.normal(scale=0.3, size=80), range(80))
    assert change.significant
    assert change.low < 0.3 < change.high
    assert change.difference == pytest.approx(0.3, abs=0.1)


def test_videos_of_one_prompt_are_not_independent() -> None:
    # ten copies of each change add nothing: the interval must stay that of the ten prompts
    rng = np.random.default_rng(1)
    change = rng.normal(size=10)
    few = paired(np.zeros(10), change, range(10))
    many = paired(np.zeros(100), change.repeat(10), np.arange(10).repeat(10))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.1)


def test_win_rate_counts_ties_half() -> None:
    assert paired([0, 0, 0, 0], [1, 1, -1, 0], range(4)).win_rate == 0.625
    with pytest.raises(ValueError, match="one length"):
        paired([1], [1, 2], [0])


def test_sign_flips_by_hand() -> None:
    assert sign_flip(np.array([1.0, 2.0, 4.0])) == 2 / 8  # only all up and all down reach 7
    assert sign_flip(np.array([3.0, -1.0])) == 1  # 2 is reached by every pattern
    assert sign_flip(np.array([0.1, 0.2, -0.3])) == 1  # nothing changed: last bits must not count
    assert sign_flip(np.ones(40), resamples=999) == 1 / 1000  # the pattern that was seen is one of them


def test_permutation_p_is_uniform_where_nothing_changed() -> None:
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        before, after = rng.normal(size=60), rng.normal(size=60)
        found.append(paired(before, after, np.arange(20).repeat(3), resamples=300).p)
    for level in (0.1, 0.3, 0.5, 0.8):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=0.08)  # 2.8 standard errors at 0.5


def test_holm_by_hand() -> None:
    # ascending .005 .01 .03 .04, times 4 3 2 1, and never below the one before
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.4, "b": 0.9}) == {"a": 0.8, "b": 0.9}
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_metrics_that_cannot_be_found_do_not_weaken_the_others() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=30)
    risen = paired(before, before + 1 + rng.normal(scale=0.2, size=30), range(30))
    same = paired(before, before, range(30))
    alone, among = corrected({"vqa": risen}), corrected({"vqa": risen, **{f"same{i}": same for i in range(9)}})
    assert among["vqa"].adjusted == alone["vqa"].adjusted == risen.p
    assert among["same0"].adjusted == 1
    noise = paired(before, rng.permutation(before), range(30))
    assert corrected({"vqa": risen, "gold": noise})["vqa"].adjusted == 2 * risen.p


def test_wilson_interval() -> None:
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # 8 of 10, from the literature
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    many = paired(np.zeros(40), np.ones(40), np.arange(10).repeat(4))  # 40 videos of 10 prompts are 10 cases
    assert (many.win_low, many.win_high) == pytest.approx(wilson(1.0, 10))


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=25)
    low, high = jackknife(values.mean(), [np.delete(values, i).mean() for i in range(25)])
    half = NormalDist().inv_cdf(0.975) * values.std(ddof=1) / 5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_statistics_are_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.normal(size=50), rng.normal(size=50)
    assert paired(before, after, range(50)) == paired(before, after, range(50))
    assert paired(before, after, range(50), seed=1) != paired(before, after, range(50))


def change(difference: float, p: float, **values: float) -> Paired:
    low, high = difference - 0.1, difference + 0.1
    return Paired(
        before=1.0,
        after=1.0 + difference,
        difference=difference,
        low=low,
        high=high,
        win_rate=0.5,
        count=9,
        p=p,
        **{"spread": 1.0, **values},
    )


def test_verdicts_follow_direction_and_corrected_p() -> None:
    assert verdict("vqa", change(0.2, 0.01)) == "better"
    assert verdict("warp_error", change(0.2, 0.01)) == "worse"
    assert verdict("warp_error", change(-0.2, 0.01)) == "better"
    assert verdict("motion", change(-0.2, 0.01)) == "changed"
    assert verdict("vqa", change(0.2, 0.06)) == "unclear"
    assert verdict("vqa", replace(change(0.2, 0.01), adjusted=0.2)) == "unclear"


def clip(speed: str, seed: int = 0) -> torch.Tensor:
    scene = world.Scene(colour="red", shape="circle", motion="moving right", speed=speed, background="navy")
    return torch.from_numpy(world.render(scene, np.random.default_rng(seed)).video)


def test_motion_orders_speeds_and_ignores_a_flicker() -> None:
    slow, fast = clip("slowly")[None], clip("quickly")[None]
    still = slow[:, :1].expand_as(slow)
    flicker = still.clone()
    flicker[:, 4:8:2] *= 0.6
    assert motion(still).item() == motion(flicker).item() == 0
    assert 0 < 1.5 * motion(slow).item() < motion(fast).item()


class TestTruth:
    CAPTION = "a red circle moving right quickly on a navy background"

    def test_of_the_world_that_the_model_declares(self) -> None:
        model = models.load("sprites")
        truth = truth_of(model, model.settings, [self.CAPTION])
        known = measure(clip("quickly")[None], [self.CAPTION], [], fps=8, truth=truth)
        assert (known["text_accuracy"], known["flawed"]) == ([1.0], [0.0])
        assert truth_of(model, model.settings, [self.CAPTION, "a cat"]) is None  # it would say nothing of some videos
        for least in ({"frames": 5}, {"height": 16}, {"width": 16}):  # nothing can be followed in such clips
            assert truth_of(model, model.settings.changed(**least), [self.CAPTION]) is None

    def test_of_no_other_model_however_its_prompts_read(self, tiny_wan: Path) -> None:
        model = models.load(str(tiny_wan))
        assert model.truth is None
        assert truth_of(model, model.settings, [self.CAPTION]) is None
        assert set(measure(clip("quickly")[None], [self.CAPTION], [], fps=8)) == {"motion"}

    def test_evaluate_asks_the_model(self, tiny_wan: Path, tmp_path: Path) -> None:
        model = models.load(str(tiny_wan))
        plan = SamplePlan(inputs=[self.CAPTION], videos_per_prompt=1, settings=model.settings, batch_size=1, seed=0)
        assert set(evaluate(model, plan, [], tmp_path / "a", "a", lambda _: None).metrics) == {"motion"}
        model.truth = "sprites"
        assert "flawed" in evaluate(model, plan, [], tmp_path / "b", "b", lambda _: None).metrics

    def test_an_unknown_one_is_refused(self, tiny_wan: Path, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(tiny_wan, folder)
        extras = {"frames": 5, "height": 16, "width": 16, "fps": 8, "steps": 2, "guidance": 1, "truth": "nowhere"}
        (folder / "vpo.json").write_text(json.dumps(extras))
        other = models.load(str(folder))
        with pytest.raises(ConfigError, match="unknown truth 'nowhere'"):
            truth_of(other, other.settings, [self.CAPTION])


def test_video_round_trip(tmp_path: Path) -> None:
    video = clip("quickly")
    write_video(tmp_path / "a.mp4", video, fps=8)
    back = read_video(tmp_path / "a.mp4")
    assert (back.frames.shape, back.fps, back.notice) == (video.shape, 8.0, None)
    assert float((back.frames - video).abs().mean()) < 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def evaluation(name: str, values: list[float]) -> Results:
    return Results(
        name=name,
        prompts=["<script>alert(1)</script>", "b"],
        groups=[0, 1],
        files=["0.mp4", "1.mp4"],
        metrics={"vqa": values},
    )


def test_page_escapes_prompts_and_pairs_by_prompt() -> None:
    before, after = evaluation("before", [0.0, 0.0]), evaluation("after", [1.0, 0.5])
    page = report.Page(
        title="t",
        evaluations=[before, after],
        folders=["a", "b"],
        settings={"model": "<b>"},
        licences={"vqa": "Apache-2.0"},
        log=[{"step": 1, "loss": 0.5}],
    )
    text = report.render(page)
    assert "<script>alert" not in text
    assert "&lt;b&gt;" in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["clips"] == [["<script>alert(1)</script>", "0.mp4"], ["b", "1.mp4"]]
    assert [model["runs"]["0"]["folder"] for model in data["models"]] == ["a", "b"]
    assert "<svg" in text
    other = Results(
        name="after", prompts=["c", "b"], groups=[0, 1], files=["0.mp4", "1.mp4"], metrics={"vqa": [1.0, 2.0]}
    )
    with pytest.raises(DataError, match="same prompts"):
        compare(before, other)


Closed = stub("closed", licence="Some 1.0: non-commercial only")
Broken = stub("broken", lambda video, _: torch.full((len(video),), math.nan))
Motion = stub("motion")


@pytest.mark.parametrize(("damage", "said"), [
    ({"groups": [0, 2]}, "lists do not fit"), ({"groups": [-1, 0]}, "lists do not fit"),
    ({"groups": [0]}, "lists do not fit"), ({"metrics": {"vqa": [1.0]}}, "lists do not fit"),
    ({"pictures": [[]]}, "pictures are not those"), ({"files": ["0.mp4", "../1.mp4"]}, "do not lie beside it"),
])  # fmt: skip
def test_results_whose_lists_do_not_fit_together_are_refused(
    damage: dict[str, object], said: str, tmp_path: Path
) -> None:
    whole = Results(
        name="base", prompts=["a", "b"], groups=[0, 1], files=["0.mp4", "1.mp4"], metrics={"vqa": [1.0, 2.0]}
    )
    whole.save(tmp_path)
    assert Results.load(tmp_path) == whole
    row = json.loads((tmp_path / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps({**row, **damage}))
    with pytest.raises(DataError, match=said):
        Results.load(tmp_path)


def test_scores_must_be_finite_and_names_free() -> None:
    with pytest.raises(DataError, match="'broken' is not finite for the prompt 'a cat'"):
        measure(clip("slowly")[None], ["a cat"], [Broken()], fps=8)
    with pytest.raises(ConfigError, match="'motion' cannot be a judge"):
        check_names([Motion()])


def test_page_marks_licences_and_carries_numbers_for_sorting() -> None:
    log = [{"step": i + 1, "reward_mean": i / 10} for i in range(4)]
    for i, row in enumerate(log[::2]):
        row |= {"heldout_reward": float(i), "heldout_gold": 1.0 - i}
    page = report.Page(
        title="t",
        evaluations=[evaluation("base", [0.0, 0.0]), evaluation("</script>", [1.0, 0.5])],
        folders=["a", "b"],
        settings={},
        licences={
            "vqa": "Apache-2.0",
            "closed": Closed.spec.licence,
            "other": "CC-BY-NC-4.0",
            "plain": "a noncense licence",
        },
        runs={"run<": report.RunFacts("seed: <3", log)},
    )
    text = report.render(page)
    assert text.count('<span class="warn">non-commercial</span>') == 2
    assert text.count("</script>") == 2  # only the page's own: a name cannot end the script
    assert "seed: &lt;3" in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["metrics"] == ["vqa"]
    assert [model["runs"]["0"]["values"]["vqa"] for model in data["models"]] == [[0.0, 0.0], [1.0, 0.5]]
    assert "Held out, during training" in text
    assert "run&lt;: the run&#39;s settings" in text
    assert report.render(page) == text  # the same bytes: no date and no chance in the pictures


def test_judges_stay_in_the_order_in_which_they_were_asked_for() -> None:
    judges = ["technical", "vqa", "hpsv2", "clip", "aesthetic", "gold"]
    one = Results(
        name="base", prompts=["a"], groups=[0], files=["0.mp4"], metrics={name: [0.0] for name in [*judges, "motion"]}
    )
    page = report.Page(
        title="t", evaluations=[one, replace(one, name="run")], folders=["a", "b"], settings={}, licences={}
    )
    data = json.loads(report.render(page).split('id="data">')[1].split("</script>")[0])
    assert data["metrics"] == [*judges, "motion"]
    assert list(compare(one, one)) == [*judges, "motion"]


def test_a_run_has_one_look_in_the_legend_and_in_every_plot() -> None:
    rows = [{"step": i, "heldout_reward": 0.1 * i, "heldout_gold": 0.2 * i} for i in (1, 2)]
    looks = re.findall(r'class="c(\d)', plots.over_time({"not begun": [], "one": rows, "other": rows}))
    assert looks == ["1", "2"] * 4


def test_held_out_plots_need_what_they_show() -> None:
    rows = [{"step": 1, "heldout_reward": 0.1, "heldout_gold": 0.2}, {"step": 2}, {"step": 3, "heldout_reward": 0.3}]
    assert plots.over_time({"run": [{"step": 1, "loss": 1.0}]}) == plots.over_time({}) == ""
    assert plots.over_time({"run": rows}).count("<svg") == 2  # one row alone has both, so there is no path of them
    assert plots.over_time({"run": rows}).count("step 3, heldout reward 0.3") == 1
    assert plots.forest({"frechet": change(1, 0.5, spread=0.0)}) == ""
    assert "less is right" not in plots.forest({"vqa": change(1, 0.5)})


def all_metrics() -> dict[str, Paired]:
    """A change for every metric there is, with numbers as wide as they come."""
    found = {name: change(-0.1234, 0.0004) for name in ["vqa", "videoreward", *known(), "vbench_imaging_quality"]}
    found["frechet"] = replace(change(-123.4, 0.2), low=-223.4, high=-23.4, win_rate=None)
    found["pickscore"] = replace(change(0.04, 1.0), before=-21.43, after=-21.47, low=-0.02, high=0.1)
    return found


def test_terminal_table_fits_80_columns() -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=80)
    print_changes(console, all_metrics(), "base", "a-very-long-name-of-a-run-20260131-120000")
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in shown.getvalue()  # nothing was cut off
    assert any(line.startswith("background_consistency") and "-0.12 [-0.22, -0.02]" in line for line in lines)
    assert any(line.startswith("warp_error (lower)") and line.rstrip().endswith("<.001*") for line in lines)


def test_a_figure_is_never_cut() -> None:
    """Small changes have many digits: then wins give way, and then the means."""
    tiny = replace(change(6e-4, 1.0), before=21.898, after=21.8986, low=5.9e-4, high=6.1e-4)
    for width, heads in ((80, ["base", "moved", "change", "[95%]", "p"]), (60, ["change", "[95%]", "p"])):
        shown = io.StringIO()
        print_changes(Console(file=shown, width=width), {"flow_speed": tiny, "warp_error": tiny}, "base", "moved")
        assert "…" not in shown.getvalue()
        (head,) = [line for line in shown.getvalue().splitlines() if line.startswith("metric ")]
        assert head.split()[1:] == heads
        assert tables.span(tiny) in shown.getvalue()


def test_markdown_and_latex_escape_names() -> None:
    nasty = "a|b_c*`<x>\\{%}$#&~^\n"
    changes = {nasty: {"warp_error": change(-0.2, 0.001), nasty: change(0.2, 0.9)}}
    text = tables.markdown("base", changes)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| metric | better | base | a\\|b\\_c\\*\\`\\<x\\>\\\\{%}$\\#&\\~^ |"
    assert rows[2] == "| warp\\_error | ↓ | 1.00 | 0.80 (-0.20 [-0.30, -0.10])* |"
    assert len(rows) == 4
    latex = tables.latex("base", changes)
    name = (
        r"a\textbar{}b\_c*`\textless{}x\textgreater{}\textbackslash{}\{\%\}\$\#\&"
        r"\textasciitilde{}\textasciicircum{}"
    )
    assert rf"metric & better & base & {name} \\" in latex
    assert r"warp\_error & $\downarrow$ & 1.00 & 0.80 ($-$0.20 [$-$0.30, $-$0.10])* \\" in latex
    assert latex.count(r"\\") == 3


# vpo eval, from the first video to the page


@pytest.fixture(scope="module")
def lora(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA folder whose weights do something."""
    model = models.load(str(tiny_wan))
    policy = LoraPolicy(model, Lora(rank=4, alpha=8), seed=0)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(0.1)
    folder = tmp_path_factory.mktemp("runs") / "moved"
    policy.export(folder)
    return folder


def request_of(lora: Path, tiny_wan: Path, output: Path, **more: Any) -> EvaluateRequest:
    settings = {"sampling": {"batch_size": 3, "steps": 2}}
    wanted = {"num_prompts": 2, "videos_per_prompt": 2, "best_of": 2, "settings": settings, **more}
    return EvaluateRequest(runs=[lora], output=output, model=str(tiny_wan), **wanted)


def contents(folder: Path) -> dict[str, bytes]:
    """All files, but for what a page says of when and how it was made."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    made = re.compile(rb'<dl class="made">.*?</dl>', re.DOTALL)
    return {name: made.sub(b"", data) if name.endswith(".html") else data for name, data in found.items()}


def test_a_stopped_evaluation_goes_on_to_the_same_files(
    lora: Path, tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = (request_of(lora, tiny_wan, tmp_path / name, latex=True, best_of=0) for name in ("whole", "parts"))
    synced, sync = list[Path](), files.sync_folder
    monkeypatch.setattr(files, "sync_folder", lambda path: [synced.append(path), sync(path)])
    command.run(whole)
    # a name is on the disk once its folder is
    assert {path.parent for path in (tmp_path / "whole").rglob("*.mp4")} <= set(synced)
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert {"vqa", "gold", "motion", "flow_speed", "warp_error", "diversity"} <= set(results["changes"]["moved"])
    assert results["changes"]["moved"]["warp_error"]["direction"] == "lower"
    assert set(results["means"]) == {"base", "moved"}
    assert "moved" in (tmp_path / "whole" / "results.tex").read_text()
    assert "| diversity |" in (tmp_path / "whole" / "results.md").read_text()
    assert "diversity" in shown

    real, left = evaluation_module.write_video, [0]

    def stopping(path: Path, video: torch.Tensor, fps: float) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, video, fps)

    monkeypatch.setattr(evaluation_module, "write_video", stopping)
    made = []
    for videos in (2, 3, 2):  # in the first batch, of three; in the other model's first; in its second, of one
        left[0] = videos
        with pytest.raises(KeyboardInterrupt):
            command.run(parts)
        made.append(sum(path.suffix == ".json" and path.parent.name == ".parts" for path in tmp_path.rglob("*")))
        assert not (tmp_path / "parts" / "results.json").exists()
    assert made == [2, 1, 3]  # videos of a model that is not whole
    left[0] = 99
    command.run(parts)
    assert left[0] == 99 - 1  # what was there was not made again
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("everything is there: nothing must be loaded")

    monkeypatch.setattr(models, "load", never)
    monkeypatch.setattr(rewards, "load", never)
    # nor is what came after it was begun measured in it
    monkeypatch.setitem(METRICS._builtins, "newer", "vpo_kit.evaluation.temporal:MotionAmount")
    capsys.readouterr()
    command.run(parts)
    assert "was begun without: newer" in " ".join(capsys.readouterr().out.split())
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")

    # what people said of its rows since then is shown, and so is that they judged another
    people.join(tmp_path / "parts", "first", {"moved": {"quality": say()}, "gone": {"quality": say()}})
    facts = command.run(parts)
    assert facts["people"] == {"moved": {"quality": asdict(say())}}
    shown = " ".join(capsys.readouterr().out.split())
    assert "62% [55%, 70%]* +0.49 [+0.20, +0.85] 90 4 0.41" in shown
    assert "gone, which is no row here" in shown
    for name, line in (("results.md", "| moved | quality | 62% "), ("results.tex", r"moved & quality & 62\% ")):
        assert line in (tmp_path / "parts" / name).read_text()


def test_prompts_that_are_put_in_after_a_stop(
    lora: Path, tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sampled stays with its prompt, each prompt is measured once, and the end is that of a whole one."""
    prompts = tmp_path / "prompts.txt"
    settings = {"sampling": {"batch_size": 1, "steps": 1}}  # one at a time: no batch changes with its neighbours
    more: dict[str, Any] = {"prompts": prompts, "num_prompts": 9, "best_of": 0, "settings": settings}
    whole, stopped = (request_of(lora, tiny_wan, tmp_path / name, **more) for name in ("whole", "stopped"))
    real, made = evaluation_module.write_video, list[Path]()

    def noting(path: Path, video: torch.Tensor, fps: float) -> None:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(path)
        real(path, video, fps)

    monkeypatch.setattr(evaluation_module, "write_video", noting)
    prompts.write_text("one\ntwo\n")
    with pytest.raises(KeyboardInterrupt):
        command.run(stopped)
    prompts.write_text("none before\ntwo\none\n")
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        command.run(stopped)  # the first of the base that was missing, and two of the new prompt
    monkeypatch.undo()
    command.run(stopped)
    command.run(whole)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    prompts.write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match="prompts that are left out now, 'none before' for one: more may be added"):
        command.run(stopped)
    # what was whole is sampled for the new prompt alone
    prompts.write_text("none before\nfour\ntwo\none\n")
    monkeypatch.setattr(evaluation_module, "write_video", lambda *given: made.append(given[0]) or real(*given))
    made.clear()
    command.run(stopped)
    assert len(made) == 2 * 2  # of the base and of the LoRA
    found = Results.load(tmp_path / "stopped/videos/base")
    assert found.prompts == ["none before", "four", "two", "one"]


@pytest.mark.slow
def test_kill_9_and_go_on(lora: Path, tiny_wan: Path, tmp_path: Path) -> None:
    """Killed while it samples the second model: the first one's videos stay, and the end is that of a whole one."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = ["--num-prompts", 3, "--videos-per-prompt", 2, "--set", "sampling.batch_size=1", "--model", tiny_wan]
    launch = [sys.executable, "-m", "vpo_kit", "eval", lora, *words, "--output"]
    subprocess.run([*map(str, launch), whole], check=True, capture_output=True)
    process = subprocess.Popen([*map(str, launch), killed], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300

    def finished() -> list[Path]:
        return [path for path in killed.rglob("*.mp4") if not path.name.startswith(".")]

    while len(finished()) < 7 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    made = {path: path.stat().st_mtime_ns for path in finished()}
    assert 7 <= len(made) < 12
    assert not (killed / "results.json").exists()
    subprocess.run([*map(str, launch), killed], check=True, capture_output=True)
    again = [path for path, written in made.items() if path.stat().st_mtime_ns != written]
    assert len(again) <= 1  # at most the batch that was under way
    assert contents(killed) == contents(whole)


def test_the_page_in_a_browser(lora: Path, tiny_wan: Path, tmp_path: Path) -> None:
    command.run(request_of(lora, tiny_wan, tmp_path / "out"))
    check_players(tmp_path / "out" / "report.html", PROMPTS[0], 2)


def test_an_evaluation_with_other_settings_is_refused(
    lora: Path, tiny_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = request_of(lora, tiny_wan, tmp_path / "out", videos_per_prompt=1)
    command.run(base)
    before = contents(tmp_path)
    others: Sequence[tuple[dict[str, Any], str]] = (
        ({"seed": 1}, "another seed"),
        ({"num_prompts": 1}, "prompts that are left out now"),
        ({"rewards": ["technical"]}, "another rewards"),
        ({"settings": {"sampling": {"steps": 3}}}, "another sampling"),
        ({"seed": 1, "videos_per_prompt": 2}, "another seed"),
    )
    for values, message in others:
        with pytest.raises(ConfigError, match=message):
            command.run(replace(base, **values))
    moved = tmp_path / "other" / "moved"
    moved.mkdir(parents=True)
    name = "pytorch_lora_weights.safetensors"
    (moved / name).write_bytes((lora / name).read_bytes() + b" ")
    with pytest.raises(ConfigError, match=r"'moved' in .* come from another LoRA"):
        command.run(replace(base, runs=[moved]))
    with pytest.raises(OutputError, match="holds no evaluation"):
        command.run(replace(base, output=tmp_path / "other"))
    with pytest.raises(ConfigError, match="unknown setting lora"):
        command.run(replace(base, settings={"lora": {"rank": 3}}))
    assert {path: data for path, data in contents(tmp_path).items() if path in before} == before
    # one more run joins what is there, and the base is not sampled again
    again = tmp_path / "again"
    again.mkdir()
    (again / name).write_bytes((lora / name).read_bytes())
    written: list[str] = []
    real = evaluation_module.write_video

    def noting(path: Path, video: torch.Tensor, fps: float) -> None:
        written.append(path.parent.parent.name)
        real(path, video, fps)

    monkeypatch.setattr(evaluation_module, "write_video", noting)
    command.run(replace(base, runs=[lora, again]))
    assert set(written) == {"again"}
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["means"]["again"] == found["means"]["moved"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<option value="2">again</option>' in page


def test_reference_and_reward_settings(
    lora: Path, tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(4):
        write_video(tmp_path / "clips" / f"{i}.mp4", clip("slowly", i), fps=8)
    write_video(tmp_path / "clips" / "short.mp4", clip("slowly")[:4], fps=8)
    request = request_of(
        lora, tiny_wan, tmp_path / "out", reference=tmp_path / "clips", rewards=["technical"],
        settings={"sampling": {"steps": 2}, "reward": {"noise": [0, 0.5]}},
    )  # fmt: skip
    command.run(request)
    found = json.loads((tmp_path / "out" / "results.json").read_text())["changes"]["moved"]
    assert list(found)[:3] == ["technical", "gold", "motion"]
    for name in ("frechet", "kernel"):
        assert found[name]["before"] != found[name]["after"]
        assert (found[name]["direction"], found[name]["win_rate"]) == ("lower", None)
        assert found[name]["adjusted"] >= found[name]["p"]
    assert "4 of 5 clips are long enough" in " ".join(capsys.readouterr().out.split())
    command.run(replace(request, features="pixels"))  # features are free: no video is made for them
    other = json.loads((tmp_path / "out" / "results.json").read_text())["changes"]["moved"]
    assert other["frechet"]["before"] != found["frechet"]["before"]
    assert other["technical"] == found["technical"] | {"adjusted": other["technical"]["adjusted"]}


def test_sampling_leaves_the_gradient_on(tiny_wan: Path) -> None:
    model = models.load(str(tiny_wan))
    made = evaluation_module.videos(
        model,
        SamplePlan(
            inputs=["a", "b"], videos_per_prompt=1, settings=model.settings.changed(steps=1), batch_size=1, seed=0
        ),
    )
    _, video = next(made)  # and no further, as where a judge raises
    assert torch.is_grad_enabled()
    assert not video.requires_grad


def test_batches_cover_all_items() -> None:
    settings = models.loading.Settings(frames=9, height=32, width=32, fps=8, steps=1, guidance=1)
    plan = SamplePlan(inputs=["a", "b", "c"], videos_per_prompt=3, settings=settings, batch_size=4, seed=0)
    assert [plan.files[batch] for batch in plan.batches] == [plan.files[:4], plan.files[4:8], plan.files[8:]]
    assert plan.files[:4] == ["000-0.mp4", "000-1.mp4", "000-2.mp4", "001-0.mp4"]


@pytest.mark.parametrize("damage", [{"prompts": 3}, {"prompts": 0.5}, {"videos_per_prompt": "2"}, [], 1])
def test_damaged_settings_of_an_evaluation_are_one_line(tmp_path: Path, damage: object) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(damage))
    with pytest.raises(DataError, match=r"settings\.json is not what vpo eval writes: give another --output$"):
        EvalFolder(tmp_path).begun({"prompts": ["a"], "videos_per_prompt": 1})
