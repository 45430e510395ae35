"""An exam: which scene a request belongs to, when it is over, and the grades.

Knows: courses of attempts. Must not know: HTTP servers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.conformance.exam.roles import Role
from gateway.conformance.exam.scenes import Attempt, Course, Event, Scene
from gateway.conformance.exam.sent import Sent
from gateway.conformance.verdicts import Exchange, Outcome, Verdict

_AFTERWARDS = 8.0  # seconds that are watched after consent was taken back
_IDLE = 20.0  # seconds without an attempt after which a scene is over, whatever became of it
_WELL = Event("forward")
_NOT_REACHED = "the client sent too little for this: let it work longer, or with more to send"


@dataclass
class Exam:
    """One client's exam. `clock`: seconds that never go back."""

    role: Role
    clock: Callable[[], float] = time.monotonic
    courses: dict[str, Course] = field(default_factory=dict)
    _scenes: dict[str, Scene] = field(default_factory=dict)
    _ended: float | None = None

    def meet(self, sent: Sent) -> tuple[Attempt, Event]:
        """Take a request of the client's work; what is to happen to it."""
        if self._ended is not None:
            last = next(course for content, course in self.courses.items() if self._scenes.get(content) is self.role.scenes[-1])
            last.later.append(sent)
            return Attempt(sent, ""), self.role.scenes[-1].events[0]
        course = self.courses.get(sent.content)
        if course is None:
            course = self.courses[sent.content] = Course()
            scene = self._next_scene()
            if scene is not None:
                self._scenes[sent.content] = scene
                self._ended = sent.at if scene.is_last else None
        told = self._scenes.get(sent.content)
        attempted = len(course.attempts)
        event = told.events[attempted] if told is not None and attempted < len(told.events) else _WELL
        attempt = Attempt(sent, event.way)
        course.attempts.append(attempt)
        return attempt, event

    def asked_for_token(self) -> None:
        """The token endpoint was asked."""
        now = self.clock()
        for course in self.courses.values():
            course.tokens.append(now)

    def is_over(self) -> bool:
        """Whether every scene has been played and what followed was watched."""
        if self._ended is not None:
            return self.clock() - self._ended > _AFTERWARDS
        return len(self._scenes) == len(self.role.scenes) and all(map(self._is_over, self._scenes))

    def begun(self) -> Sequence[Scene]:
        """The scenes that have begun, in order."""
        return list(self._scenes.values())

    def _next_scene(self) -> Scene | None:
        played = len(self._scenes)
        if played == len(self.role.scenes):
            return None
        scene = self.role.scenes[played]
        return scene if not scene.is_last or all(map(self._is_over, self._scenes)) else None

    def _is_over(self, content: str) -> bool:
        course = self.courses[content]
        last = max((attempt.ended or attempt.sent.at for attempt in course.attempts), default=0.0)
        return course.is_delivered or self.clock() - last > _IDLE

    def verdicts(self) -> list[Verdict]:
        """The grades: one for each scene, and whether anything was lost or stored twice."""
        found = []
        by_scene = {id(scene): content for content, scene in self._scenes.items()}
        for scene in self.role.scenes:
            content = by_scene.get(id(scene))
            if content is None:
                found.append(_verdict(scene.rule, scene.strength, scene.text, "not reached", _NOT_REACHED))
            else:
                course = self.courses[content]
                wrong = scene.judge(course)
                outcome: Outcome = "failed" if wrong else "passed"
                found.append(_verdict(scene.rule, scene.strength, scene.text, outcome, wrong, course))
        return [*found, *self._sums()]

    def _sums(self) -> list[Verdict]:
        work = {
            content: course
            for content, course in self.courses.items()
            if course.attempts[0].sent.method != "GET" and not (content in self._scenes and self._scenes[content].is_last)
        }
        if not work:
            return []
        lost = [course for course in work.values() if not course.is_delivered]
        twice = [course for course in work.values() if sum(attempt.created > 0 for attempt in course.attempts) > 1]
        texts = ("Nothing is lost.", "Nothing is stored twice.")
        told = (f"{len(lost)} of {len(work)} things never arrived", f"{len(twice)} of {len(work)} things were created twice")
        return [
            _verdict(f"EXAM-{n}", "SHALL", text, "failed" if bad else "passed", reason if bad else "", bad[0] if bad else None)
            for n, text, reason, bad in zip((10, 11), texts, told, (lost, twice), strict=True)
        ]


def _verdict(rule: str, strength: str, text: str, outcome: Outcome, reason: str, course: Course | None = None) -> Verdict:
    said = [] if course is None else [_exchange(attempt, course.attempts[0]) for attempt in course.attempts[-10:]]
    return Verdict(rule, rule, "exam", strength, text, "house", "", outcome, reason, 0.0, said)


def _exchange(attempt: Attempt, first: Attempt) -> Exchange:
    when = attempt.sent.at - first.sent.at
    request = f"{when:.1f} s  {attempt.sent.method} {attempt.sent.target.split('?')[0]}  key {attempt.sent.key or '-'}"
    answer = {"lose": "done, and the answer was lost"}.get(attempt.event, f"{attempt.status or 'no answer'}")
    return Exchange(request, f"{answer}  ({attempt.event})", "")
