"""Scenes of an exam: what happens to one thing that a client sends, and how what it does then is judged.

Knows: RFC 9110, RFC 6585, RFC 6750: what a client owes a server. Must not know: how requests come and go.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Literal

from gateway.conformance.exam.reading import Correction, Pages
from gateway.conformance.exam.sent import Sent
from gateway.conformance.verdicts import Strength

Way = Literal["forward", "lose", "refuse", "delay", "twice", "expire", "corrects", "mix", "amend"]
_STORM = 5.0  # seconds after a new token came in which nobody needs another one
SOON = 0.3  # seconds: who comes back sooner did not wait


@dataclass(frozen=True, slots=True)
class Event:
    """What is done to one attempt. `lose`: the gateway does it, the answer is lost; `twice`: it arrives two times; `expire`: its
    token is good no more; `corrects`: it is answered as if it had corrected what was there; `mix`: pages in no order; `amend`: what was
    read is corrected afterwards. `behind`: seconds that the server's clock is behind; Retry-After is then a date of that clock.
    """

    way: Way
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    code: str = ""
    seconds: float = 0.0
    behind: float = 0.0

    def told_headers(self, now: datetime) -> dict[str, str]:
        """The headers of a refusal, at that time."""
        here = (now - timedelta(seconds=self.behind)).replace(microsecond=0)
        told = {"content-type": "application/fhir+json", "date": format_datetime(here, usegmt=True), **dict(self.headers)}
        if self.behind:
            told["retry-after"] = format_datetime(here + timedelta(seconds=self.seconds), usegmt=True)
        return told

    @property
    def body(self) -> bytes:
        """The OperationOutcome of a refusal."""
        issue = {"severity": "error", "code": self.code, "diagnostics": "an exam of the conformance kit: this is on purpose"}
        return json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()


@dataclass(slots=True)
class Attempt:
    """One time that something was sent. `status`: what the client was told, 0 where it was told nothing; `ended`: when."""

    sent: Sent
    event: str
    status: int = 0
    created: int = 0
    ended: float = 0.0


@dataclass(slots=True)
class Course:
    """All attempts at one thing, and what else was seen meanwhile. `tokens`: when the token endpoint was asked; `stale`: how
    often the expired token was shown.
    """

    attempts: list[Attempt] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    later: list[Sent] = field(default_factory=list)
    stale: int = 0
    pages: Pages | None = None
    correction: Correction | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the client was told that it is done."""
        return any(200 <= attempt.status < 300 for attempt in self.attempts)

    def gaps(self) -> list[float]:
        """Seconds between being answered and coming again."""
        return [again.sent.at - first.ended for first, again in pairwise(self.attempts)]


Judge = Callable[[Course], str]


@dataclass(frozen=True, slots=True)
class Scene:
    """One trial. `events`: what happens to the first attempt, the second, …; after that all goes well.

    `judge` says what was wrong with the course, or nothing. `is_last`: from then on nothing goes well any more. `fits`: whether
    it can be played with this request.
    """

    rule: str
    strength: Strength
    text: str
    events: Sequence[Event]
    judge: Judge
    is_last: bool = False
    fits: Callable[[Sent], bool] = lambda _: True


def _sent_again(course: Course) -> str:
    if len(course.attempts) < 2:
        return "it was never sent again: it is lost, or nobody knows whether it is"
    keys = {attempt.sent.key for attempt in course.attempts}
    if course.attempts[0].sent.method != "GET" and (len(keys) > 1 or "" in keys):
        return "it was sent again under another key (identifier, Idempotency-Key): to a server it is another thing"
    return "" if course.is_delivered else "it was sent again, and given up before it was taken"


def _waited(seconds: float) -> Judge:
    def judge(course: Course) -> str:
        early = [gap for gap in course.gaps() if gap < seconds]
        return _sent_again(course) or (f"it came again after {early[0]:.1f} s, not after {seconds:.1f} s" if early else "")

    return judge


def _backed_off(course: Course) -> str:
    gaps = course.gaps()
    if wrong := _sent_again(course) or ("it came again at once" if any(gap < SOON for gap in gaps) else ""):
        return wrong
    shrinking = any(later < 0.8 * former for former, later in pairwise(gaps))
    return "it came again sooner each time: one waits longer each time" if shrinking else ""


def _refreshed_once(course: Course) -> str:
    if wrong := _sent_again(course):
        return wrong
    began = course.attempts[0].sent
    again = next((attempt.sent for attempt in course.attempts[1:] if attempt.sent.token != began.token), None)
    asked = sum(began.at < at < (again.at if again else began.at) + _STORM for at in course.tokens)
    if again is None or asked != 1:
        return f"the token endpoint was asked {asked} times: once is right"
    shown = course.stale - 1
    return f"it came {shown} more times with the token that had been refused" if course.attempts[1].sent is not again else ""


def _took_known(course: Course) -> str:
    return "it was sent again though it had been taken" if len(course.attempts) > 1 else ""


def _was_patient(course: Course) -> str:
    keys = {attempt.sent.key for attempt in course.attempts}
    return "it did not wait, and came again under another key" if len(keys) > 1 else ("" if course.is_delivered else "given up")


def _took_corrected(course: Course) -> str:
    return "it was sent again though it had been taken, as a correction" if len(course.attempts) > 1 else ""


def _turned(course: Course) -> str:
    pages = course.pages
    if pages is None or not pages.turned:
        return "the second page was never asked for by its link: what stands there is lost"
    twice = len(pages.fetched) - len(set(pages.fetched))
    missing = len(pages.documents - set(pages.fetched)) if pages.fetched else 0
    if missing:
        return f"{missing} of {len(pages.documents)} documents were never fetched"
    return f"{twice} documents were fetched twice: what stands on two pages is one" if twice else ""


def _learnt(course: Course) -> str:
    if course.correction is None or course.correction.is_given:
        return ""
    return (
        f"{course.correction.searched} searches later it has not come to know: who asks for what was measured since, and not for "
        "what was changed since (_lastUpdated), misses corrections and what comes late"
    )


def _is_search(sent: Sent) -> bool:
    return re.search(r"/[A-Z][A-Za-z]+\?", sent.target) is not None


def _is_reading(sent: Sent) -> bool:
    return bool(sent.key) and b'"valueQuantity"' in sent.body


def _stopped(course: Course) -> str:
    more = len(course.later)
    return f"{more} more requests came though consent was taken back" if more > 1 else ""


_BUSY = Event("refuse", 503, (("retry-after", "1"),), "transient")
_DOWN = Event("refuse", 503, (), "transient")
_EXPIRED = Event("expire", 401, (("www-authenticate", 'Bearer error="invalid_token"'),), "expired")

LOST = Scene(
    "EXAM-01",
    "SHALL",
    "An answer is lost after the work was done: the same is sent again, under the same key.",
    [Event("lose")],
    _sent_again,
)
TOO_OFTEN = Scene(
    "EXAM-02",
    "SHALL",
    "429 with Retry-After: it waits as long as it is told, then goes on.",
    [Event("refuse", 429, (("retry-after", "2"),), "throttled")],
    _waited(1.9),
)
TOO_OFTEN_BARE = Scene(
    "EXAM-03", "SHOULD", "429 without Retry-After: it waits by itself.", [Event("refuse", 429, (), "throttled")], _waited(SOON)
)
UNAVAILABLE = Scene(
    "EXAM-04", "SHALL", "503 again and again: it waits longer each time, and loses nothing.", [_DOWN, _DOWN, _DOWN], _backed_off
)
MAINTENANCE = Scene("EXAM-05", "SHALL", "503 with Retry-After: it waits as long as it is told.", [_BUSY], _waited(0.9))
EXPIRED = Scene(
    "EXAM-06", "SHALL", "The token has expired: it gets another one, once, and goes on.", [_EXPIRED], _refreshed_once
)
TWICE = Scene("EXAM-07", "SHALL", "It arrives twice, and is answered as known: that is success.", [Event("twice")], _took_known)
CLOCK = Scene(
    "EXAM-12",
    "SHALL",
    "503, and the server's clock is an hour behind: Retry-After is a date of that clock, as Date is; it waits the difference.",
    [Event("refuse", 503, (), "transient", seconds=3, behind=3600)],
    _waited(1.9),
)
MIXED = Scene(
    "EXAM-13",
    "SHALL",
    "Pages come in no order, and a match on two of them: it follows each link as it is, and takes each match once.",
    [Event("mix")],
    _turned,
    fits=_is_search,
)
CORRECTS = Scene(
    "EXAM-14",
    "SHALL",
    "What it sends corrects what is there, and is answered so: that is success.",
    [Event("corrects")],
    _took_corrected,
    fits=_is_reading,
)
CORRECTED = Scene(
    "EXAM-14",
    "SHALL",
    "A reading is corrected after it was read: it comes to know.",
    [Event("amend")],
    _learnt,
    fits=_is_search,
)
SLOW = Scene(
    "EXAM-08",
    "SHOULD",
    "The answer takes long: it waits, or comes again under the same key.",
    [Event("delay", seconds=4.0)],
    _was_patient,
)
REVOKED = Scene(
    "EXAM-09",
    "SHALL",
    "The patient takes consent back: it stops.",
    [Event("refuse", 403, (), "forbidden")],
    _stopped,
    is_last=True,
)
GONE = Scene(
    "EXAM-09",
    "SHALL",
    "The patient takes consent back: it stops.",
    [Event("refuse", 404, (), "not-found")],
    _stopped,
    is_last=True,
)
