"""The tracker against the world it reads: accuracy, detection and false alarms, sharp and softened."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vpo_kit.sprites import tracker, world

WORDS = ("colour", "shape", "direction", "speed_class")
SCENES = world.scenes(held_out=False) + world.scenes(held_out=True)
COUNT = 200
MOTTLE = world.blur(np.random.default_rng(6).normal(size=(17, 1, 64, 64)), 1.0)
MOTTLE /= MOTTLE.std()


def _soften(video: world.Array, rng: np.random.Generator) -> world.Array:
    """What a lossy autoencoder does to ``[F, 3, H, W]``: soft edges, mottling, a shift of colour."""
    soft = world.blur(video.astype(np.float64), 0.8)
    mottle = np.roll(MOTTLE, rng.integers(64, size=3), (0, 2, 3))
    shift = rng.uniform(-0.03, 0.03, (1, 3, 1, 1))
    return np.asarray(np.clip(soft + 0.012 * mottle + shift, 0, 1), np.float32)


def _wobble(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Draw every shape 0.2 px off, after the flaws of the path: a frozen shape wobbles too."""
    tracker._references()  # they must not wobble
    cover = world.coverage

    def wobbly(shape: str, path: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
        return cover(shape, path + rng.normal(0, 0.2, path.shape), radius)

    monkeypatch.setattr(world, "coverage", wobbly)


def _flaws(scene: world.Scene, rng: np.random.Generator) -> tuple[world.Flaw, ...]:
    while not (flaws := world.draw_flaws(scene, rng)):
        pass
    return flaws


def _judged(soft: bool, flawed: bool, patch: pytest.MonkeyPatch) -> list[tuple[world.WorldClip, dict[str, float]]]:
    rng = np.random.default_rng([7, soft, flawed])
    if soft:
        _wobble(patch, np.random.default_rng(8))
    rows = []
    for _ in range(COUNT):
        scene = SCENES[int(rng.integers(len(SCENES)))]
        clip = world.render(scene, rng, _flaws(scene, rng) if flawed else ())
        rows.append((clip, tracker.judge(_soften(clip.video, rng) if soft else clip.video, scene)))
    return rows


def _mean(rows: list[tuple[world.WorldClip, dict[str, float]]], key: str) -> float:
    return float(np.mean([scores[key] for _, scores in rows]))


@pytest.mark.parametrize("soft", [False, True])
def test_clean_clips_are_read_right_and_rarely_called_flawed(soft: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _judged(soft, False, monkeypatch)
    for key in (*WORDS, "background"):
        assert _mean(rows, key) >= 0.98, key
    assert _mean(rows, "flawed") < 0.08


@pytest.mark.parametrize("soft", [False, True])
def test_flawed_clips_are_read_right_and_found(soft: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _judged(soft, True, monkeypatch)
    for key in (*WORDS, "background"):
        assert _mean(rows, key) >= 0.93, key
    assert _mean(rows, "flawed") >= 0.85
    kinds = defaultdict(list)
    for clip, scores in rows:
        if len(clip.flaws) == 1:
            kinds[clip.flaws[0].kind].append(scores["flawed"])
    assert set(kinds) == set(world.FLAWS)
    assert min(float(np.mean(found)) for found in kinds.values()) >= 0.8, kinds


@pytest.mark.parametrize("kind", world.FLAWS)
def test_a_strong_flaw_is_named(kind: str) -> None:
    rng = np.random.default_rng(3)
    scene = world.Scene(colour="blue", shape="circle", motion="moving right", speed="quickly", background="gray")
    clip = world.render(scene, rng, (world.Flaw(kind, 5, 12, 0.8),))
    assert kind in tracker.track(_soften(clip.video, rng)).flaws


def test_speed_and_path_match_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[NDArray[np.float64]] = []
    draw = world.draw_path

    def recorded(*args: Any) -> NDArray[np.float64]:
        drawn.append(draw(*args))
        return drawn[-1]

    monkeypatch.setattr(world, "draw_path", recorded)
    rng = np.random.default_rng(4)
    for scene in SCENES[::40]:
        seen = tracker.track(world.render(scene, rng).video)
        steps = np.linalg.norm(np.diff(drawn[-1], axis=0), axis=1)
        assert seen.speed == pytest.approx(steps.mean(), abs=0.06)
        assert seen.pace == scene.speed
        assert np.diff(seen.path - drawn[-1], axis=0) == pytest.approx(0, abs=0.25)  # sharp triangles alias by 0.17


def test_judge_counts_wrong_words() -> None:
    scene = world.Scene(colour="red", shape="cross", motion="moving up", speed="slowly", background="navy")
    other = world.Scene(colour="green", shape="cross", motion="moving down", speed="slowly", background="navy")
    scores = tracker.judge(world.render(scene, np.random.default_rng(0)).video, other)
    assert [scores[key] for key in WORDS] == [0.0, 1.0, 0.0, 1.0]
    assert scores["text_accuracy"] == 0.5
    assert scores["background"] == 1.0
    assert scores["flawed"] == 0.0


def test_circling_clip_that_stops_halfway_is_frozen() -> None:
    scene = world.Scene(colour="white", shape="square", motion="circling", speed="quickly", background="black")
    video = world.render(scene, np.random.default_rng(1)).video
    assert tracker.track(video[np.minimum(np.arange(17), 9)]).flaws == ("freeze",)


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_empty_clips_are_flawed(level: float) -> None:
    seen = tracker.track(np.full((17, 3, 64, 64), level, np.float32))
    assert {"fade", "freeze"} <= set(seen.flaws)
    assert np.isnan(seen.path).all()
    assert seen.speed == 0.0


def test_degenerate_clips_are_flawed() -> None:
    rng = np.random.default_rng(2)
    noise = rng.random((17, 3, 64, 64), dtype=np.float32)
    assert "noise" in tracker.track(noise).flaws
    assert tracker.track(noise * 0.02).flaws
    assert tracker.track(np.full((17, 3, 64, 64), np.nan, np.float32)).flaws
    sprite = world.render(SCENES[0], rng).video
    assert "freeze" in tracker.track(np.repeat(sprite[8:9], 17, 0)).flaws
    late = np.where(np.arange(17)[:, None, None, None] < 15, sprite[:1, :, :1, :1], sprite)
    assert "fade" in tracker.track(late).flaws


@pytest.mark.parametrize("shape", [(17, 64, 64), (17, 1, 64, 64), (5, 3, 64, 64), (17, 3, 8, 64)])
def test_other_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected a clip"):
        tracker.track(np.zeros(shape, np.float32))


def test_fast_enough() -> None:
    video = world.render(SCENES[0], np.random.default_rng(0)).video
    tracker.track(video)
    start = time.process_time()
    for _ in range(20):
        tracker.track(video)
    assert (time.process_time() - start) / 20 < 0.03  # 5 ms on a free core; leave room for a busy machine
