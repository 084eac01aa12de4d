"""Schedules over plain integers: revolve's optimum for equal stages, brute force for unequal ones, and what they promise."""

from __future__ import annotations

from functools import cache
from math import comb, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxchain.memory.schedule import Again, Kept, Links, Tables, Way

STATE, TAPE = 10, 1000


def equal(count: int) -> Links:
    """Equal stages whose tape is so large that never two of them are kept."""
    way = Way(TAPE, 0.0, TAPE)
    return Links(
        (0,) + (STATE,) * (count - 1), (1.0,) * count, (0,) * count, (0,) * count, ((way,),) * count, (False,) * count
    )


def revolve(steps: int, checkpoints: int) -> int:
    """Forward steps beside those of the adjoint steps: r·l − C(c + r, r − 1), Griewank and Walther, 2000."""
    r = next(r for r in range(steps) if comb(checkpoints + r, checkpoints) >= steps)
    return r * steps - comb(checkpoints + r, r - 1) if r else 0


@pytest.mark.parametrize(("steps", "checkpoints"), [(8, 1), (8, 2), (8, 3), (64, 4), (64, 8), (512, 8), (512, 16)])
def test_equal_stages_run_as_often_as_revolve_runs_them(steps, checkpoints):
    # One state more than the checkpoints is there while it is worked on; the first one is an argument.
    limit = checkpoints * STATE + TAPE
    tables = Tables(equal(steps), limit)
    assert tables.work()[-1] == revolve(steps, checkpoints)
    assert runs(tables.parts(limit)) - steps == revolve(steps, checkpoints)


def test_64_equal_stages_take_the_optimum_where_a_tape_is_as_large_as_a_state():
    """At 16 states kept 1.27 times the work of a gradient (three evaluations), at 8 less than 1.5 times."""
    links = Links((0,) + (1,) * 63, (1.0,) * 64, (0,) * 64, (0,) * 64, ((Way(0, 0.0, 0),),) * 64, (False,) * 64)
    assert 1 + Tables(links, 16).work()[-1] / 64 / 3 == pytest.approx(1.27, abs=0.01)
    assert 1 + Tables(links, 8).work()[-1] / 64 / 3 < 1.5


def runs(parts: tuple, depth: int = 0) -> int:
    """How many evaluations of a stage a schedule asks for."""
    return sum(runs(part.parts, depth + 1) if isinstance(part, Again) else 1 + depth for part in parts)


# ------------------------------------------------------------------------------------------------------- unequal stages


@st.composite
def unequal(draw: st.DrawFn) -> Links:
    count = draw(st.integers(2, 6))
    sizes = st.integers(0, 6)

    def way(work: float, *states: bool) -> Way:
        kept = draw(sizes)
        return Way(kept, work, kept + draw(sizes), *states)

    ways = [
        (way(0.0, draw(st.booleans()), draw(st.booleans())), way(float(draw(st.integers(1, 5))))) for _ in range(count)
    ]
    return Links(
        (0, *(draw(sizes) for _ in range(count - 1))),
        tuple(float(draw(st.integers(1, 9))) for _ in range(count)),
        tuple(draw(sizes) for _ in range(count)),
        tuple(draw(st.integers(0, 2)) for _ in range(count)),
        tuple(ways),
        tuple(draw(st.sampled_from([False, False, False, True])) for _ in range(count)),
        draw(st.integers(0, 2)),
    )


def least(links: Links, limit: int) -> float:
    """The recurrence as it is in the paper, at one number of bytes, by trying every choice."""
    waits = np.cumsum([0, *links.waiting])

    @cache
    def paid(first: int, last: int, room: int) -> float:
        options = [keep(first, last, room, way) for way in links.ways[first]]
        for stop in range(first, last):
            if any(links.once[first : stop + 1]):
                break
            again = paid(first, stop, room - int(waits[last + 1] - waits[stop + 1]) - links.sums)
            options.append(sum(links.work[first : stop + 1]) + unpaid(stop + 1, last, room) + again)
        return min(options) if room >= 0 else inf

    @cache
    def unpaid(first: int, last: int, room: int) -> float:
        if room < 0:
            return inf
        free = [keep(first, last, room, way) for way in links.ways[first] if not way.reads_state]
        return min([paid(first, last, room - links.states[first]), *free])

    def keep(first: int, last: int, room: int, way: Way) -> float:
        if room < max(way.peak + int(waits[last + 1] - waits[first]), links.running[first]):
            return inf
        if first == last:
            return way.work
        if way.holds_next:
            return way.work + paid(first + 1, last, room - way.kept - links.states[first + 1])
        return way.work + unpaid(first + 1, last, room - way.kept)

    return paid(0, len(links) - 1, limit)


def held(links: Links, parts: tuple, room: int) -> tuple[float, int]:
    """Work and the most bytes of a schedule, by running it: what is alive while each stage's derivative is taken."""
    work, most, alive, entries = 0.0, 0, 0, []
    for number, part in enumerate(parts):
        first = part.stages[0] if isinstance(part, Again) else part.stage
        before = parts[number - 1] if number else None
        reads = isinstance(part, Again) or links.ways[part.stage][part.way].reads_state
        holds = isinstance(before, Kept) and links.ways[before.stage][before.way].holds_next
        own = links.states[first] if number and (reads or holds) else 0
        own += 0 if isinstance(part, Again) else links.ways[part.stage][part.way].kept
        alive += own
        entries.append((part, alive, own))
        most = max(most, alive)
    waiting = 0
    for part, alive, own in reversed(entries):
        if isinstance(part, Again):
            work += sum(links.work[k] for k in part.stages)
            inner, peak = held(links, part.parts, room)
            work, most = work + inner, max(most, alive + peak + waiting + links.sums)
            waiting += sum(links.waiting[k] for k in part.stages)
        else:
            way = links.ways[part.stage][part.way]
            waiting += links.waiting[part.stage]
            work, most = work + way.work, max(most, alive - way.kept + way.peak + waiting)
        del own
    return work, most


@settings(max_examples=40, deadline=None)
@given(links=unequal(), limit=st.integers(1, 40))
def test_no_choice_takes_less_work(links, limit):
    tables = Tables(links, limit)
    assert tables.work()[-1] == least(links, limit)


@settings(max_examples=40, deadline=None)
@given(links=unequal(), limit=st.integers(1, 40))
def test_a_schedule_takes_the_work_and_the_bytes_that_it_says(links, limit):
    tables = Tables(links, limit)
    if np.isfinite(promised := tables.work()[-1]):
        work, most = held(links, tables.parts(limit), limit)
        assert work == promised
        assert most <= limit


def test_more_memory_never_takes_more_work():
    work = Tables(equal(20), 10 * STATE + TAPE).work()
    assert np.all(np.diff(work[np.isfinite(work)]) <= 0)
