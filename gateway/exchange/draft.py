"""A plan in the making: what its steps hand on to each other.

Knows: what the names in a Bundle stand for. Must not know: how any of it is found out, HTTP, MongoDB.
"""

from dataclasses import dataclass, field

from gateway.access.access import Access
from gateway.exchange.entries import Entry
from gateway.store.conditions import Condition


@dataclass(slots=True)
class Draft:
    """A plan in the making.

    `own`: the address of this service; `urls`: what each fullUrl of the Bundle stands for, as `Type/id`; `ids`: what each
    `Type/id` as sent stands for; `patients`: which patient each identifier stands for; `born`: the patients that come to be
    with it; `both`: of references by search that find an entry and a stored resource its fullUrl, `Type/id` and the element;
    `conditions`: what those references rest on.
    """

    access: Access
    entries: list[Entry]
    own: str
    urls: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    born: set[str] = field(default_factory=set)
    both: list[tuple[str, str, str]] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)

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
