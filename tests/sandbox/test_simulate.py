"""`gateway simulate`: virtual glucose looks like real one and is the same for a seed; phones push it as apps do."""

import itertools
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.sandbox.glucose import Sensor, VirtualPatient
from gateway.sandbox.uploads import SYSTEM, Wearer, corrections, uploads
from tests.process import environment, free_port, process_world, refused, run_apart
from tests.world import Actor, World

START = datetime(2026, 11, 1, tzinfo=UTC)
WEEKS = timedelta(days=28)


def people() -> Iterator[VirtualPatient]:
    return (VirtualPatient(7, number) for number in range(4))


@pytest.mark.parametrize("minutes", [1, 5, 15])
def test_the_same_seed_shows_the_same(minutes: int) -> None:
    span = (START, START + timedelta(days=2))
    one, again = (list(Sensor(VirtualPatient(3, 1), minutes).readings(*span)) for _ in range(2))
    other = list(Sensor(VirtualPatient(4, 1), minutes).readings(*span))
    assert one == again != other
    late = list(Sensor(VirtualPatient(3, 1), minutes).readings(START + timedelta(days=1), span[1]))
    assert late == [reading for reading in one if reading[0] >= START + timedelta(days=1)]
    steps = {(behind[0] - before[0]).total_seconds() for before, behind in itertools.pairwise(one)}
    assert minutes * 60 in steps


def test_it_looks_like_glucose() -> None:
    for person in people():
        shown = list(Sensor(person, 5).readings(START, START + WEEKS))
        values = [value for _, value in shown]
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        assert 110 < mean < 220
        assert 0.12 < deviation / mean < 0.5
        assert all(40 <= value <= 400 for value in values)
        assert 0 < sum(value < 70 for value in values) / len(values) < 0.15
        jumps = [abs(b[1] - a[1]) for a, b in itertools.pairwise(shown) if b[0] - a[0] == timedelta(minutes=5)]
        assert sorted(jumps)[int(0.95 * len(jumps))] <= 15  # mg/dL in five minutes
        meals = [value for moment, value in shown if moment.hour in (8, 9, 13, 20)]
        nights = [value for moment, value in shown if moment.hour in (2, 3, 4)]
        assert sum(meals) / len(meals) > sum(nights) / len(nights) + 15


def test_sensors_warm_up_and_are_not_always_heard() -> None:
    for minutes, share in ((1, 0.9), (5, 0.9), (15, 0.9)):
        shown = list(Sensor(VirtualPatient(7, 2), minutes).readings(START, START + WEEKS))
        expected = WEEKS.total_seconds() / 60 / minutes
        assert share < len(shown) / expected < 1
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(shown)]
    assert max(gaps) >= timedelta(hours=1)


def test_phones_send_late_again_and_corrected() -> None:
    wearer = Wearer("p", Sensor(VirtualPatient(7, 1), 5))
    end = START + timedelta(days=7)
    sent = list(uploads(wearer, START, end, 0))
    assert sent == list(uploads(wearer, START, end, 0)) != list(uploads(wearer, START, end, 1))
    readings = [reading for batch in sent for reading in batch.readings]
    assert sorted(set(readings)) == list(wearer.sensor.readings(START, end))  # all of them
    assert len(readings) > len(set(readings))  # some again
    assert max(len(batch.readings) for batch in sent) > 12  # some late
    changed = [reading for batch in corrections(wearer, START, end) for reading in batch.readings]
    assert changed
    assert not {*changed} & {*readings}


async def test_it_is_pushed_and_pushed_again(mongo_url: str, tmp_path: Path) -> None:
    async with process_world(mongo_url) as world:
        url = world.gateway.settings.base_url
        apps = [await _paired(world) for _ in range(2)]
        tokens = tmp_path / "tokens"
        tokens.write_text("".join(f"{app.patient} {app.token}\n" for app in apps), "utf-8")
        options = ("--tokens", str(tokens), "--days", "2", "--until", "2026-11-20", "--step", "15", "--seed", "5")
        env = environment(None)
        ended = run_apart("simulate", url, *options, env=env)
        assert ended.returncode == 0, ended
        first = _told(ended.stdout)
        stored = await world.stored("Observation", patient=apps[0].patient)
        expected = list(
            Sensor(VirtualPatient(5, 0), 15).readings(datetime(2026, 11, 18, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC))
        )
        assert len(stored) == len(expected)
        assert first["created"] == len(await world.stored("Observation"))
        assert first["known"] > first["created"]  # from the other phone, and sent again
        assert first["refused"] == 0
        formers = await world.stored("Observation_history")
        assert first["corrected"] >= len(formers)
        again = _told(run_apart("simulate", url, *options, env=env).stdout)
        assert (again["created"], again["refused"]) == (0, 0)
        assert len(await world.stored("Device", **{"search.identifier": f"{SYSTEM}|5-0-15min"})) == 1


async def _paired(world: World) -> Actor:
    owner = await world.patient()
    app = await world.app(owner, "patient/Observation.crs patient/Device.crs")
    for action in ("collect", "access"):
        await world.consent(owner, app, action, ["Observation", "Device"])
    return app


def _told(text: str) -> dict[str, int]:
    return {name: int(count) for count, name in re.findall(r"([0-9]+) (created|known|corrected|refused)", text)}


def test_what_cannot_be_simulated_is_said_in_one_line(tmp_path: Path) -> None:
    env = environment(None)
    wrong = tmp_path / "tokens"
    wrong.write_text("a b c\n", "utf-8")
    assert "line 1" in refused(run_apart("simulate", "--tokens", str(wrong), env=env))
    assert "every 1, 5 or 15" in refused(run_apart("simulate", "--step", "7", env=env))
    assert "http(s)" in refused(run_apart("simulate", "ftp://x/fhir", env=env))
    port, began = free_port(), time.monotonic()
    assert (
        f"nothing answers at http://127.0.0.1:{port}" in run_apart("simulate", f"http://127.0.0.1:{port}/fhir", env=env).stderr
    )
    assert time.monotonic() - began < 15, "a wrong address is told at once, not after every attempt (more than 20 s)"
