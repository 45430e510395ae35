"""A plan in the making: what its steps hand on to each other.

Knows: what the names in a Bundle stand for. Must not know: how any of it is found out, HTTP, MongoDB.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.access.access import Access
from gateway.exchange.audit import existing
from gateway.exchange.entries import Entry
from gateway.problem import Problem
from gateway.store.conditions import Condition


class Refused(Exception):
    """Some entries of a plan were refused, each for itself; the others are to be planned again without them.

    `problems`: why, by the number of the entry.
    """

    def __init__(self, problems: Mapping[int, Problem]) -> None:
        super().__init__("refused")
        self.problems = problems


@dataclass(slots=True)
class Draft:
    """A plan in the making.

    `own`: the address of this service; `apart`: whether each entry stands for itself, so that what is wrong with one is
    gathered and does not fail the others; `urls`: what each fullUrl of the Bundle stands for, as `Type/id`; `ids`: what each
    `Type/id` as sent stands for; `patients`: which patient each identifier stands for; `born`: the patients that come to be
    with it; `both`: of references by search that find an entry and a stored resource its fullUrl, `Type/id` and the element;
    `conditions`: what those references rest on.
    """

    access: Access
    entries: list[Entry]
    own: str
    apart: bool = False
    urls: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    born: set[str] = field(default_factory=set)
    both: list[tuple[str, str, str]] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)

    def refuse(self, entry: Entry, problem: Problem) -> None:
        """What is wrong with one entry: that fails all, or is kept until `settle` where each stands for itself."""
        if not self.apart:
            raise problem
        if entry.refusal is None:
            about = [entry.patient] if entry.patient else []
            entry.refusal = problem.about(existing(self.access, about))

    def limit(self, new: Iterable[Entry], there: Callable[[str], int], most: int, refusal: Callable[[Entry], Problem]) -> None:
        """Refuse those of these new things of patients by which there are too many: those of one request count together.

        `there`: how many a patient has already; `refusal`: what to say of an entry.
        """
        count: Counter[str] = Counter()
        for entry in new:
            if entry.patient is not None:
                count[entry.patient] += 1
                if count[entry.patient] + there(entry.patient) > most:
                    self.refuse(entry, entry.locate(refusal(entry)))

    def settle(self) -> None:
        """Raise Refused where any entry has been refused so far: what is planned of the others may rest on it."""
        refused = {n: entry.refusal for n, entry in enumerate(self.entries) if entry.refusal is not None} if self.apart else {}
        if refused:
            raise Refused(refused)

    def localize(self, text: str, there: str | None = None) -> str:
        """What a link leads to here: `Type/id` where it is a fullUrl of the Bundle or below our own address; else itself.

        `there`: the address of the server whose ids the linking entry uses, where that is another one
        (https://hl7.org/fhir/R4/bundle.html#references). The number that a version has elsewhere means nothing here.
        """
        named = self.replace(text)
        if named != text:
            return named
        link, mark, fragment = text.partition("#")
        url = link.partition("/_history/")[0]
        found = self.urls.get(url) or self.ids.get(url) or (self.urls.get(there + url) if there else None)
        return (text.removeprefix(self.own) or text) if found is None else found + mark + fragment

    def replace(self, uri: str) -> str:
        """What stands for a uri that is a fullUrl of the Bundle, or a part of what that names; any other is kept as sent."""
        if uri in self.urls:
            return self.urls[uri]
        url, mark, fragment = uri.partition("#")
        return self.urls[url] + mark + fragment if url in self.urls else uri

    def server_of(self, entry: Entry) -> str | None:
        """The address of another server below which the entry's fullUrl lies."""
        address, slash, rest = (entry.full_url or "").rpartition(f"/{entry.kind.name}/")
        return f"{address}/" if slash and "/" not in rest and address.startswith("http") else None
