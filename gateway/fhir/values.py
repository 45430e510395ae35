"""The index values of a resource: what a search, a scope or a Consent is compared with.

Knows: how each FHIR type is spelled as each kind of search parameter (https://hl7.org/fhir/R4/search.html#table).
Must not know: clauses, stores, which parameters a type has.

Spellings, made so that no two things share one: a token is `system|code` and, for a search without system, `code`; without
a system it is `|code`; `|` and `\\` inside the parts are escaped. A string is its folded text, then NUL, then the text as
sent. A reference is `Type/id` or the absolute URL.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from gateway.fhir.dates import EARLIEST, LATEST, Span, read_span

UCUM = "http://unitsofmeasure.org"  # the system of units: https://hl7.org/fhir/R4/ucum.html

Convert = Callable[[Any], Sequence[Any]]

# Nearly all dates are moments or days. They can be found in an index by where they begin, give or take this much; the few
# that cover more are marked, and the record that holds them is searched exactly.
COMMON_SPAN = timedelta(days=1)

_PART_TO_ESCAPE = re.compile(r"([\\|])")
_VERSION = re.compile(r"/_history/[^/]+\Z")
_SYSTEM_FIRST = re.compile(r"(?:[^\\|]|\\.)+\|", re.DOTALL)


def escape(part: str) -> str:
    """A system or code with `|` and `\\` escaped."""
    return _PART_TO_ESCAPE.sub(r"\\\1", part) if "|" in part or "\\" in part else part


@functools.lru_cache(maxsize=4_096)
def token_values(system: str | None, code: str | None) -> tuple[str, ...]:
    """Both spellings of a token; none without a code."""
    if not code:
        return ()
    plain = escape(code)
    return (f"{escape(system) if system else ''}|{plain}", plain)


def has_system(token: str) -> bool:
    """Whether a token's spelling begins with a system."""
    return token.find("|") > 0 if "\\" not in token else _SYSTEM_FIRST.match(token) is not None


# Strings are compared by so many of their first characters: putting marks in order takes time quadratic in their number, and
# one character can decompose into eighteen.
_COMPARED = 1_024
_MOST_FROM_ONE = 4


def fold(text: str) -> str:
    """Text as strings are compared: without case, accents and surplus white space, and no longer than is worth comparing."""
    beginning = text[:_COMPARED]
    # Compatibility forms have case of their own ("℡" is "TEL"), so that is removed twice.
    folded = unicodedata.normalize("NFKD", beginning.casefold())[: _MOST_FROM_ONE * len(beginning)]
    decomposed = unicodedata.normalize("NFKD", folded.casefold())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


def without_version(reference: str) -> str:
    """A reference to a resource, whichever version of it was named."""
    return _VERSION.sub("", reference) if "/_history/" in reference else reference


def string_value(text: str) -> str:
    """A string's spelling: folded, NUL, as sent."""
    return f"{fold(text)}\0{text}"


def hull(spans: list[Span]) -> dict[str, Any]:
    """One span over all of these, as it is stored: marked `wide` where it covers more than a common span."""
    low, high = spans[0] if len(spans) == 1 else (min(s.low for s in spans), max(s.high for s in spans))
    return {"low": low, "high": high, "wide": True} if high - low > COMMON_SPAN else {"low": low, "high": high}


def _codeable_concept(it: Any) -> Sequence[str]:
    return [value for coding in it.coding or () for value in token_values(coding.system, coding.code)]


def _coding(it: Any) -> Sequence[str]:
    return token_values(it.system, it.code)


def _identifier(it: Any) -> Sequence[str]:
    return token_values.__wrapped__(it.system, it.value)  # each one is another: nothing to remember


def _contact_point(it: Any) -> Sequence[str]:
    return token_values(it.use, it.value)


def _bare(it: Any) -> Sequence[str]:
    return [escape(it)]


def _boolean(it: bool) -> Sequence[str]:
    return ["true" if it else "false"]


def _date(it: str) -> Sequence[Span]:
    return [read_span(it)]


def _period(it: Any) -> Sequence[Span]:
    return [Span(read_span(it.start).low if it.start else EARLIEST, read_span(it.end).high if it.end else LATEST)]


def _timing(it: Any) -> Sequence[Span]:
    spans = [read_span(moment) for moment in it.event or () if moment]
    if it.repeat is not None and it.repeat.boundsPeriod is not None:
        spans.extend(_period(it.repeat.boundsPeriod))
    return spans


def _reference(it: Any) -> Sequence[str]:
    reference = it.reference
    if not reference or reference.startswith("#"):
        return []
    return [without_version(reference)]


def _human_name(it: Any) -> Sequence[str]:
    parts = (it.text, it.family, *(it.given or ()), *(it.prefix or ()), *(it.suffix or ()))
    return [string_value(part) for part in parts if part]


def _address(it: Any) -> Sequence[str]:
    parts = (it.text, *(it.line or ()), it.city, it.district, it.state, it.postalCode, it.country)
    return [string_value(part) for part in parts if part]


def _quantity(it: Any) -> Sequence[dict[str, Any]]:
    if it.value is None:
        return []
    units = [*token_values(it.system, it.code), *([escape(it.unit)] if it.unit else ())]
    return [{"v": float(it.value), "u": list(dict.fromkeys(units))}]


def _money(it: Any) -> Sequence[dict[str, Any]]:
    return [] if it.value is None else [{"v": float(it.value), "u": token_values("urn:iso:std:iso:4217", it.currency)}]


def _number(it: Any) -> Sequence[float]:
    return [float(it)]


def _uri(it: str) -> Sequence[str]:
    return [it]


# What each kind of search parameter can be read from, and how.
CONVERTERS: dict[str, dict[str, Convert]] = {
    "token": {
        "CodeableConcept": _codeable_concept,
        "Coding": _coding,
        "Identifier": _identifier,
        "ContactPoint": _contact_point,
        "boolean": _boolean,
        **dict.fromkeys(("code", "id", "string", "uri"), _bare),
    },
    "date": {
        "Period": _period,
        "Timing": _timing,
        **dict.fromkeys(("date", "dateTime", "instant"), _date),
    },
    "reference": {"Reference": _reference, **dict.fromkeys(("canonical", "uri"), _uri)},
    "string": {
        "HumanName": _human_name,
        "Address": _address,
        **dict.fromkeys(("string", "markdown"), lambda it: [string_value(it)]),
    },
    "quantity": {
        "Money": _money,
        **dict.fromkeys(("Quantity", "Age", "Count", "Distance", "Duration"), _quantity),
    },
    "number": dict.fromkeys(("decimal", "integer", "positiveInt", "unsignedInt"), _number),
    "uri": dict.fromkeys(("uri", "url", "canonical", "oid", "uuid"), _uri),
}


@functools.lru_cache(maxsize=4_096)
def _called(texts: tuple[str | None, ...]) -> tuple[str, ...]:
    """What something is called, folded. (The same few texts stand beside a code over and over again.)"""
    return tuple(dict.fromkeys(fold(text) for text in texts if text))


def _concept_texts(it: Any) -> Sequence[str]:
    return _called((it.text, *[coding.display for coding in it.coding or ()]))


def _coding_texts(it: Any) -> Sequence[str]:
    return _called((it.display,))


def _identifier_texts(it: Any) -> Sequence[str]:
    return () if it.type is None else _concept_texts(it.type)


def _typed_identifiers(it: Any) -> Sequence[str]:
    if it.type is None or not it.value:
        return []
    named = [c for c in it.type.coding or () if c.system and c.code]
    return ["|".join(map(escape, (c.system, c.code, it.value))) for c in named]


def reference_identifiers(it: Any) -> Sequence[str]:
    """The tokens of a logical reference (`Reference.identifier`), for the modifier `:identifier`."""
    return [] if it.identifier is None else _identifier(it.identifier)


# The modifiers of tokens that look at values of their own, by the types that have some.
MODIFIERS: dict[str, dict[str, Convert]] = {
    "text": {"CodeableConcept": _concept_texts, "Coding": _coding_texts, "Identifier": _identifier_texts},
    "of-type": {"Identifier": _typed_identifiers},
}


def pair(parts: Sequence[tuple[str, bool, Sequence[tuple[Callable[[Any], list[Any]], Convert]]]]) -> Convert:
    """The conversion of an element that holds the parts of a composite parameter: name, whether a date, how it is read."""

    def convert(it: Any) -> Sequence[dict[str, Any]]:
        values: dict[str, Any] = {}
        for name, is_date, readers in parts:
            found = [value for read, one in readers for item in read(it) for value in one(item)]
            if not found:
                return []  # without one of the parts there is no pair
            values[name] = hull(found) if is_date else found
        return [values]

    return convert
