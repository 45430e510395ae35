"""Virtual people with diabetes, and the sensors they wear: glucose that looks like real one, and is the same for the same seed.

Knows: what moves glucose (meals, nights, exercise, hypos and what follows them) and what sensors make of it (bias, noise,
warm-up, lost signal, lows of an arm that is lain on). Every value is a function of seed, person and moment: no run depends on
another.
Must not know: FHIR, who is told.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

_MEALS = ((7.5, 60.0), (12.5, 75.0), (19.5, 80.0))  # hour of the day, rise in mg/dL
_KNOT = 900  # seconds between the points through which noise runs
_LEAST, _MOST = 40, 400  # what sensors show
_EPOCH = date(2020, 1, 1)
# How long a sensor is worn and warms up, by how often it measures (minutes).
_WORN = {1: (timedelta(days=14), timedelta(minutes=60)), 5: (timedelta(days=10), timedelta(minutes=120))}
_WORN_ELSE = (timedelta(days=14), timedelta(minutes=60))


@dataclass(frozen=True, slots=True)
class Bump:
    """Something that moves glucose: it begins at `start`, is greatest after `peak` hours, and fades."""

    start: datetime
    peak: float
    height: float

    def at(self, moment: datetime) -> float:
        """What it adds at a moment, in mg/dL."""
        hours = (moment - self.start).total_seconds() / 3_600
        if hours <= 0:
            return 0.0
        part = hours / self.peak
        return self.height * part * math.exp(1 - part)


@dataclass(frozen=True)
class VirtualPatient:
    """A person: `base` is the glucose of a calm hour, `control` how strongly meals act (1: as in most)."""

    seed: int
    number: int
    base: float = field(init=False)
    control: float = field(init=False)

    def __post_init__(self) -> None:
        dice = self.dice("person")
        object.__setattr__(self, "base", dice.uniform(120, 160))
        object.__setattr__(self, "control", dice.uniform(0.9, 2.1))

    def dice(self, *about: object) -> random.Random:
        """Chance, the same each time it is asked about the same."""
        return random.Random(":".join(map(str, (self.seed, self.number, *about))))  # noqa: S311 (nothing secret)

    def glucose_at(self, moment: datetime) -> float:
        """The glucose in the blood, in mg/dL."""
        hour = moment.hour + moment.minute / 60
        today = moment.date()
        bumps = (*day_of(self, today - timedelta(days=1)), *day_of(self, today))
        dawn = 14 * math.exp(-(((hour - 6.0) / 1.5) ** 2))
        calm = self.base - 12 * math.exp(-(((hour - 3.0) / 2.0) ** 2)) + dawn
        return max(38.0, calm + sum(bump.at(moment) for bump in bumps) + 7 * noise(self, "body", moment))


@lru_cache(maxsize=4_096)
def day_of(person: VirtualPatient, day: date) -> tuple[Bump, ...]:
    """What happens on a day: meals and the insulin for them; on some, exercise, or a hypo and what is eaten against it."""
    dice = person.dice("day", day)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found: list[Bump] = []
    for hour, rise in _MEALS:
        start = midnight + timedelta(hours=hour + dice.gauss(0, 0.5))
        height = max(15.0, rise * person.control * dice.uniform(0.9, 2.1))
        found += [Bump(start, 0.9, height), Bump(start + timedelta(hours=1.2), 1.6, -0.35 * height)]
    if dice.random() < 0.35:  # exercise
        found.append(Bump(midnight + timedelta(hours=dice.uniform(15, 19)), 1.0, -dice.uniform(20, 45)))
    if dice.random() < 0.3:  # a hypo, by night or by day
        start = midnight + timedelta(hours=dice.choice((dice.uniform(1, 5), dice.uniform(10, 18))))
        depth = person.base - dice.uniform(40, 58)
        found += [Bump(start, 0.6, -depth), Bump(start + timedelta(hours=0.9), 0.5, dice.uniform(40, 80))]
    return tuple(found)


def noise(person: VirtualPatient, of: str, moment: datetime) -> float:
    """A number around 0, mostly between -2 and 2, that changes smoothly."""
    knot, rest = divmod(moment.timestamp(), _KNOT)
    before, behind = _point(person, of, int(knot)), _point(person, of, int(knot) + 1)
    part = (1 - math.cos(math.pi * rest / _KNOT)) / 2
    return before + (behind - before) * part


@lru_cache(maxsize=65_536)
def _point(person: VirtualPatient, of: str, knot: int) -> float:
    return person.dice(of, knot).gauss(0, 1)


@dataclass(frozen=True)
class Sensor:
    """What somebody wears: it measures every `minutes`."""

    person: VirtualPatient
    minutes: int

    def number_at(self, moment: datetime) -> int:
        """Which sensor is worn at a moment, counted from the first."""
        return int((moment.date() - _EPOCH).days // self._worn[0].days)

    def readings(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, int]]:
        """What it shows between two moments, the second not included; nothing where it warms up or is not heard."""
        moment = start
        while moment < end:
            if not self._is_warming_up(moment) and not self._within(moment, "lost", 0.5, (10, 90)):
                yield moment, self.value_at(moment)
            moment += timedelta(minutes=self.minutes)

    def value_at(self, moment: datetime) -> int:
        """What it would show."""
        bias = self.person.dice("sensor", self.number_at(moment)).gauss(0, 0.05)
        # What is under the skin follows the blood by some minutes.
        shown = self.person.glucose_at(moment - timedelta(minutes=8)) * (1 + bias) + 3 * noise(self.person, "sensor", moment)
        if moment.hour < 6 and self._within(moment, "lain on", 0.25, (20, 45)):
            shown -= 45
        return max(_LEAST, min(_MOST, round(shown)))

    @property
    def _worn(self) -> tuple[timedelta, timedelta]:
        return _WORN.get(self.minutes, _WORN_ELSE)

    def _is_warming_up(self, moment: datetime) -> bool:
        worn, warming = self._worn
        begun = datetime(_EPOCH.year, _EPOCH.month, _EPOCH.day, 8, tzinfo=UTC) + self.number_at(moment) * worn
        return begun <= moment < begun + warming

    def _within(self, moment: datetime, of: str, chance: float, minutes: tuple[int, int]) -> bool:
        """Whether something that happens on some days, once and for some minutes, is happening."""
        dice = self.person.dice(of, moment.date())
        if dice.random() >= chance:
            return False
        begun = dice.uniform(0, 6 if of == "lain on" else 24) * 60
        return begun <= moment.hour * 60 + moment.minute < begun + dice.uniform(*minutes)
