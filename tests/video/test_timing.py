"""Frames' own times, the even grid they are given out on, and which frame stands where: closed forms, no files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import pytest

from vpo_kit.errors import DataError
from vpo_kit.video.timing import MOST_HELD, at, grid, places, timing

MS, CS = Fraction(1, 1000), Fraction(1, 100)


def rounded(count: int, fps: float, tick: Fraction) -> list[int]:
    """The times of an even clip as a container of that `tick` writes them."""
    return [round(i / fps / tick) for i in range(count)]


class TestRate:
    @pytest.mark.parametrize("fps", [8, 10, 12, 15, 16, 24, 25, 30, 50, 60])
    @pytest.mark.parametrize("tick", [Fraction(1, 90000), MS])
    def test_a_whole_rate_is_found_through_rounding(self, fps: int, tick: Fraction) -> None:
        found = timing(rounded(3 * fps, fps, tick), 0, tick)
        assert (found.even, found.fps, found.count, found.duration) == (True, fps, 3 * fps, 3.0)

    def test_so_are_the_rates_of_television_and_gifs(self) -> None:
        assert timing(rounded(100, 24000 / 1001, MS), 42, MS).fps == 24000 / 1001
        assert timing([i * 1001 for i in range(9)], 1001, Fraction(1, 30000)).fps == 30000 / 1001
        assert timing(rounded(24, 24, CS), 4, CS).fps == 24

    def test_any_other_rate_is_what_it_is(self) -> None:
        found = timing([i * 7 for i in range(10)], 7, CS)
        assert (found.fps, found.duration) == (pytest.approx(100 / 7), pytest.approx(0.7))

    def test_rate_and_duration_agree(self) -> None:
        rng = random.Random(0)
        for _ in range(200):
            ticks = [0]
            for _ in range(rng.randint(1, 40)):
                ticks.append(ticks[-1] + rng.choice([1, 10, 33, 34, 100, 900]))
            found = timing(ticks, rng.choice([0, 33, 2000]), MS)
            assert found.count / found.fps == pytest.approx(found.duration)
            assert found.duration >= ticks[-1] / 1000
            assert len(found.picks) == found.count
            assert found.picks == sorted(found.picks)


class TestDuration:
    def test_the_last_frame_lasts_as_long_as_the_others(self) -> None:
        """A last length of one tick, of none, or of half as much again is the writer's, not the film's."""
        for last in (0, 1, 125, 180):
            assert timing([0, 125, 250, 375], last, MS).duration == 0.5

    def test_or_for_its_own_time_where_it_is_held(self) -> None:
        found = timing([0, 100, 200, 300], 2000, MS)
        assert (found.duration, found.fps, found.even) == (2.3, 10, False)
        assert found.picks == [0, 1, 2] + [3] * 20

    def test_six_seconds_stay_six_seconds(self) -> None:
        """Thirty a second, two seconds of ten a second in between: 362 frames would be 12 s at the first rate said."""
        times = [i / 30 for i in range(60)] + [2 + i / 10 for i in range(20)] + [4 + i / 30 for i in range(60)]
        found = timing([round(t * 90000) for t in times], 3000, Fraction(1, 90000))
        assert (found.even, found.duration, found.fps, found.count) == (False, 6.0, 30.0, 180)
        shown = [times[i] for i in found.picks]
        assert all(t <= k / 30 + 1e-4 for k, t in enumerate(shown))
        assert all(k / 30 - t < 0.1 for k, t in enumerate(shown))

    def test_a_single_frame_has_a_rate(self) -> None:
        found = timing([700], 0, MS)
        assert (found.fps, found.duration, found.picks) == (1.0, 1.0, [0])
        assert found.said == "a single frame, taken for one second"


class TestDamage:
    def test_a_dropped_frame_is_not_closed_up(self) -> None:
        ticks = [i * 100 for i in range(40) if i != 5]
        found = timing(ticks, 100, MS)
        assert (found.even, found.fps, found.duration) == (False, 10, 4.0)
        assert found.picks[4:7] == [4, 4, 5]

    def test_times_that_jump_back_give_way_to_the_usual_step(self) -> None:
        found = timing([0, 40, 80, 120, 0, 40, 80, 120], 40, MS)
        assert (found.fps, found.duration, found.picks) == (25, 0.32, list(range(8)))
        assert "times jump" in str(found.said)
        assert timing([0, 40, None, 120], 40, MS).fps == 25

    def test_a_time_of_days_fills_no_memory(self) -> None:
        found = timing([0, 40, 80, 120, 10**9], 40, MS)
        assert found.count == MOST_HELD * 5
        assert found.count / found.fps == pytest.approx(found.duration)

    def test_no_times_are_an_error(self) -> None:
        for ticks in ([None, None], [5, 5, 5], [None, 3]):
            with pytest.raises(DataError, match="no times"):
                timing(ticks, 0, MS)

    def test_two_frames_at_once_are_no_error(self) -> None:
        found = timing([0, 100, 100, 200, 300], 100, MS)
        assert (found.duration, found.fps) == (0.4, 10)
        assert found.picks == [0, 2, 3, 4]


def picks(source: float, wanted: float, count: int, start: float = 0.0) -> list[int]:
    frames = ((i / source, i) for i in range(1000))
    return list(at(grid(start, count, wanted), frames, 1e-4))


class TestPicking:
    def test_newest_that_has_begun(self) -> None:
        assert picks(24, 8, 17) == [3 * k for k in range(17)]
        assert picks(30, 8, 5) == [0, 3, 7, 11, 15]
        assert picks(10, 24, 6) == [0, 0, 0, 1, 1, 2]
        assert picks(30, 8, 3, start=2.125) == [63, 67, 71]

    @pytest.mark.parametrize(
        ("source", "wanted", "tick"),
        [(30, 15, 0.001), (60, 24, 0.001), (24, 12, 0.001), (50, 10, 0.001), (30, 15, 0.01), (24, 12, 0.01)],
    )
    def test_rounding_does_not_shift_a_frame(self, source: int, wanted: int, tick: float) -> None:
        frames = [(round(i / source / tick) * tick, i) for i in range(200)]
        assert list(at(grid(0, 40, wanted), frames, tick)) == picks(source, wanted, 40)

    def test_no_frame_is_asked_for_needlessly(self) -> None:
        asked = []

        def frames() -> Sequence[tuple[float, int]]:
            for i in range(100):
                asked.append(i)
                yield i / 10, i

        assert list(at(grid(0, 3, 10), frames(), 1e-3)) == [0, 1, 2]
        assert asked == [0, 1, 2, 3]

    def test_places_of_a_grid(self) -> None:
        """49 frames at 24 hold the 17 at 8 whose last one is at 2.0 s; 48 frames hold 16."""
        assert places(49 / 24, 8) == 17
        assert places(48 / 24, 8) == 16
        assert places(2.0005, 8) == 16
        assert [places(n / 8, 8) for n in range(20)] == list(range(20))
