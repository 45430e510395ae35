"""An exam: which scene a request belongs to, when it is over, and the grades.

Knows: courses of attempts. Must not know: HTTP servers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.conformance.exam.credentials import Expiry
from gateway.conformance.exam.reading import Correction, Pages, Resource, path_of, reference_of, resources_of, value_of
from gateway.conformance.exam.roles import Role
from gateway.conformance.exam.scenes import EXPIRED, Attempt, Course, Event, Scene
from gateway.conformance.exam.sent import Sent
from gateway.conformance.verdicts import Exchange, Outcome, Verdict

_AFTERWARDS = 8.0  # seconds that are watched after consent was taken back
_IDLE = 20.0  # seconds without an attempt after which a scene is over, whatever became of it
_LEARNING = 60.0  # seconds in which a client that reads comes to know of a correction
_WELL = Event("forward")
_NOT_REACHED = "the client sent too little for this: let it work longer, or with more to send"
_HELD = "the client did not say what it holds (POST /exam/held, a list of {reference, value})"


@dataclass
class Exam:
    """One client's exam. `clock`: seconds that never go back. `given`: what it was given to read, by reference; `held`: what
    it says it holds now.
    """

    role: Role
    clock: Callable[[], float] = time.monotonic
    courses: dict[str, Course] = field(default_factory=dict)
    expiry: Expiry = field(default_factory=Expiry)
    given: dict[str, Resource] = field(default_factory=dict)
    held: Sequence[Mapping[str, object]] | None = None
    _scenes: dict[str, Scene] = field(default_factory=dict)
    _ended: float | None = None

    def meet(self, sent: Sent) -> tuple[Attempt, Event]:
        """Take a request of the client's work; what is to happen to it."""
        if self._ended is not None:
            last = next(course for content, course in self.courses.items() if self._scenes.get(content) is self.role.scenes[-1])
            last.later.append(sent)
            return Attempt(sent, ""), self.role.scenes[-1].events[0]
        is_refused = self.expiry.refuses(sent)
        name = self._course_of(sent)
        course = self.courses.get(name)
        if course is None:
            course = self.courses[name] = Course()
            scene = None if is_refused else self._next_scene(sent)
            if scene is not None:
                self._scenes[name] = scene
                self._ended = sent.at if scene.is_last else None
                self._begin(scene, sent)
        told = self._scenes.get(name)
        attempted = len(course.attempts)
        event = told.events[attempted] if told is not None and attempted < len(told.events) else _WELL
        if is_refused:
            event = EXPIRED.events[0]
        self._count_stale(sent)
        attempt = Attempt(sent, event.way)
        course.attempts.append(attempt)
        return attempt, event

    def _course_of(self, sent: Sent) -> str:
        """What is sent again is the same thing; what is read again, after it was read, is another."""
        n = 0
        while sent.method == "GET" and f"{sent.content}{n or ''}" in self.courses:
            if not self.courses[f"{sent.content}{n or ''}"].is_delivered:
                break
            n += 1
        return f"{sent.content}{n or ''}"

    def _begin(self, scene: Scene, sent: Sent) -> None:
        if scene is EXPIRED:
            self.expiry.expire(sent)
            self.expiry.refuses(sent)

    def _count_stale(self, sent: Sent) -> None:
        for content, scene in self._scenes.items():
            if scene is EXPIRED:
                self.courses[content].stale = max(self.courses[content].stale, self.expiry.shown(sent))

    def give_back(self, attempt: Attempt) -> None:
        """The scene could not be played with this: it is played with something else."""
        for content, course in self.courses.items():
            if attempt in course.attempts:
                self._scenes.pop(content, None)

    def mixed(self, attempt: Attempt, pages: Pages) -> None:
        """This was answered with pages in no order."""
        self._course_with(attempt).pages = pages

    def corrected(self, attempt: Attempt, correction: Correction) -> None:
        """A reading of this answer was corrected afterwards."""
        self._course_with(attempt).correction = correction

    def _course_with(self, attempt: Attempt) -> Course:
        return next(course for course in self.courses.values() if attempt in course.attempts)

    def page(self, name: str) -> Resource | None:
        """The second page of this name, as it is asked for."""
        for course in self.courses.values():
            if course.pages is not None and course.pages.name == name:
                course.pages.turned += 1
                return course.pages.second
        return None

    def correction(self) -> Correction | None:
        """The correction that a client is to come to know."""
        return next((course.correction for course in self.courses.values() if course.correction is not None), None)

    def gave(self, sent: Sent, told: Resource | None) -> None:
        """An answer went to the client: what stood in it, or content that it fetched."""
        for resource in resources_of(told) if told is not None else ():
            self.given[reference_of(resource)] = resource
        for course in self.courses.values():
            if course.pages is not None and path_of(sent.target) in course.pages.documents:
                course.pages.fetched.append(path_of(sent.target))

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

    def _next_scene(self, sent: Sent) -> Scene | None:
        played = list(self._scenes.values())
        if any(scene is EXPIRED and not self._is_over(content) for content, scene in self._scenes.items()):
            return None  # (what others send meanwhile is refused for its token, and no scene of its own)
        for scene in self.role.scenes:
            if scene not in played and not scene.is_last and scene.fits(sent):
                return scene
        last = self.role.scenes[-1]
        is_free = last.is_last and last not in played and all(map(self._is_over, self._scenes))
        return last if is_free else None

    def _is_over(self, content: str) -> bool:
        course, now = self.courses[content], self.clock()
        last = max((attempt.ended or attempt.sent.at for attempt in course.attempts), default=0.0)
        if course.correction is not None:
            return course.correction.is_over or now - course.correction.at > _LEARNING
        if course.pages is not None:
            last = max(attempt.sent.at for each in self.courses.values() for attempt in each.attempts)
            return course.pages.is_done or now - last > _IDLE
        is_spent = self._scenes[content] is EXPIRED and self.expiry.is_spent
        return course.is_delivered or is_spent or now - last > _IDLE

    def verdicts(self) -> list[Verdict]:
        """The grades: one for each scene, and whether anything was lost or stored twice."""
        found = []
        by_scene = {id(scene): content for content, scene in self._scenes.items()}
        for scene in self.role.scenes:
            content = by_scene.get(id(scene))
            course = self.courses[content] if content is not None else None
            if course is None or (
                course.correction is not None and not course.correction.is_given + course.correction.searched
            ):
                found.append(_verdict(scene.rule, scene.strength, scene.text, "not reached", _NOT_REACHED))
            else:
                wrong = scene.judge(course)
                outcome: Outcome = "failed" if wrong else "passed"
                found.append(_verdict(scene.rule, scene.strength, scene.text, outcome, wrong, course))
        return [*found, *self._sums(), *self._holdings()]

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

    def _holdings(self) -> list[Verdict]:
        """Whether what the client says it holds is what it was given, of those that read."""
        if not self.given:
            return []
        rule, text = "EXAM-15", "What it holds in the end is what it was given: each once, as it was last corrected."
        if self.held is None:
            return [_verdict(rule, "SHALL", text, "not applicable", _HELD)]
        names = [str(one.get("reference", "")) for one in self.held]
        values = {str(one.get("reference", "")): one["value"] for one in self.held if "value" in one}
        missing = [name for name in self.given if name not in names]
        former = [name for name, value in values.items() if name in self.given and value != value_of(self.given[name])]
        wrong = {
            f"{len(missing)} of {len(self.given)} are missing: {', '.join(missing[:3])}": missing,
            f"{len(names) - len(set(names))} are there twice": len(names) - len(set(names)),
            f"{len(former)} have another value than the last one that was given: {', '.join(former[:3])}": former,
        }
        reason = "; ".join(told for told, is_wrong in wrong.items() if is_wrong)
        return [_verdict(rule, "SHALL", text, "failed" if reason else "passed", reason)]


def _verdict(rule: str, strength: str, text: str, outcome: Outcome, reason: str, course: Course | None = None) -> Verdict:
    said = [] if course is None else [_exchange(attempt, course.attempts[0]) for attempt in course.attempts[-10:]]
    return Verdict(rule, rule, "exam", strength, text, "house", "", outcome, reason, 0.0, said)


def _exchange(attempt: Attempt, first: Attempt) -> Exchange:
    when = attempt.sent.at - first.sent.at
    request = f"{when:.1f} s  {attempt.sent.method} {attempt.sent.target.split('?')[0]}  key {attempt.sent.key or '-'}"
    answer = {"lose": "done, and the answer was lost"}.get(attempt.event, f"{attempt.status or 'no answer'}")
    return Exchange(request, f"{answer}  ({attempt.event})", "")
