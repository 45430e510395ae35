"""Holds the two readers of a clause together: what MongoDB finds by the filter is what `matches` says in memory (design §3)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.fhir.clause import EVERYTHING, NOTHING, All, Clause, Interval, Measure, Not, matches, negate
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.clause import Test as Compare
from gateway.fhir.dates import EARLIEST, LATEST, Span
from gateway.fhir.values import COMMON_SPAN, hull
from gateway.store import filter as filter_reader
from gateway.store.filter import to_filter
from gateway.store.mongo import Document
from tests.world import World, unique

# The whole example is large; the assertion shows the part that matters.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

COMPARISONS = ("eq", "ne", "lt", "gt", "le", "ge", "sa", "eb", "overlaps")
START = datetime(2026, 11, 20, tzinfo=UTC)
HALF = COMMON_SPAN / 2

# Texts that share prefixes, at the boundaries of UTF-8 and of MongoDB's types, and what a regular expression would trip over.
TEXTS = [
    *("http://loinc.org|99504-3", "99504-3", "http://loinc.org|", "http://loinc.org|9", "|x", "x", "a\\|b|c\\\\", "a\\"),
    *("mull\0Müll", "mull", "mul", "$where", "^.*", "", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ud7ffx", "\ue000"),
    *("\uffff", "\uffffx", "\U00010000", "\U0010fffe", "\U0010ffff", "\U0010ffffx", "a\U0010ffff", "a\U0010ffffb", "b", "?"),
]
texts = st.sampled_from(TEXTS) | st.text(max_size=3)
# References as events name them: some begin like others, some hold what means something in a pattern.
REFERENCES = ["List/a-1", "List/a-12", "Binary/a.1", "Binary/a-1", "List/a(1"]
versions = st.builds(
    lambda one, tail: one + tail, st.sampled_from(REFERENCES), st.sampled_from(["", "/_history/1", "/_history"])
)
patients = st.sampled_from(["0a1-a", "0a1-b", "fff-a", "fff-ab"])
ids = patients | st.sampled_from(["00", "no id"])
moments = st.sampled_from(
    [EARLIEST, START, START + timedelta(milliseconds=1), START + HALF, START + COMMON_SPAN, START + 2 * COMMON_SPAN, LATEST]
) | st.integers(-300, 300).map(lambda quarters: START + quarters * timedelta(minutes=15))
units = st.sampled_from(["http://unitsofmeasure.org|mg/dL", "mg/dL", "mmol/L", "%"])
numbers = st.sampled_from([0.0, -0.0, 5.4, 5.35, 5.45, 1e308, -1e-300, float("inf")]) | st.integers(-5, 5).map(float)


def spans(widest: timedelta) -> st.SearchStrategy[Span]:
    """Half-open spans, from a millisecond to `widest`, at either end of time too."""
    widths = st.sampled_from([timedelta(milliseconds=1), timedelta(seconds=1), HALF, COMMON_SPAN, widest])
    return st.builds(_span, moments, widths)


def _span(low: datetime, width: timedelta) -> Span:
    return Span(LATEST - width, LATEST) if LATEST - low < width else Span(low, low + width)


open_spans = st.builds(lambda moment: Span(EARLIEST, moment), moments.filter(lambda m: m > EARLIEST)) | st.builds(
    lambda moment: Span(moment, LATEST), moments.filter(lambda m: m < LATEST)
)
all_spans = spans(30 * COMMON_SPAN) | open_spans
intervals = st.builds(
    lambda point, half: Interval(point - half, point, point + half), numbers, st.sampled_from([0.5, 0.05, 5.0])
).filter(lambda interval: interval.low < interval.high)
quantities = st.lists(st.builds(lambda v, u: {"v": v, "u": u}, numbers, st.lists(units, unique=True)), min_size=1, max_size=3)


pairs = st.fixed_dictionaries(
    {"code": st.lists(texts, min_size=1, max_size=2), "quantity": quantities},
    optional={"date": st.builds(lambda span: hull([span]), spans(COMMON_SPAN))},
)


def documents(stored: st.SearchStrategy[Span]) -> st.SearchStrategy[Document]:
    """What the store keeps of a resource, as far as a clause can look at it. What is empty is absent."""
    dates = st.lists(stored, min_size=1, max_size=1).map(hull)
    search = st.fixed_dictionaries(
        {},
        optional={
            "code": st.lists(texts, min_size=1, max_size=3),
            "name": st.lists(texts, min_size=1, max_size=3),
            "date": dates,
            "issued": dates,
            "count": st.lists(numbers, min_size=1, max_size=3),
            "quantity": quantities,
            "pair": st.lists(pairs, min_size=1, max_size=3),
        },
    )
    return st.fixed_dictionaries(
        {"updated": moments.filter(lambda m: m < LATEST), "source": texts, "search": search},
        optional={
            "patient": patients,
            "labels": st.lists(texts, min_size=1, max_size=3),
            "depositor": texts,
            "hidden_until": moments.filter(lambda m: m < LATEST),
            "event": st.fixed_dictionaries({}, optional={"entities": st.lists(versions, min_size=1, max_size=3)}),
        },
    )


within = st.one_of(
    st.builds(Compare, st.just("code"), st.sampled_from(["is", "starts", "contains"]), texts),
    st.builds(
        Compare, st.just("quantity"), st.sampled_from(COMPARISONS[:-1]), st.builds(Measure, intervals, units | st.none())
    ),
    st.builds(Compare, st.just("date"), st.sampled_from(COMPARISONS), spans(COMMON_SPAN)),
)
parts = st.one_of(
    st.builds(lambda one, other: All((one, other)), within, within),
    st.builds(lambda one, other: AnyOf((one, other)), within, within),
    st.builds(lambda one, other: All((one, Not(other))), within, within),
    within,
)
tests = st.one_of(
    st.builds(
        Compare,
        st.sampled_from(["code", "name", "_security", "_source", "_depositor", "_id"]),
        st.sampled_from(["is", "starts", "contains"]),
        texts,
    ),
    st.builds(Compare, st.just("pair"), st.just("holds"), parts),
    st.builds(
        Compare, st.just("_entity"), st.just("beyond"), st.frozensets(st.sampled_from(REFERENCES), min_size=1, max_size=3)
    ),
    st.builds(Compare, st.sampled_from(["_id", "patient"]), st.just("is"), ids),
    st.builds(
        Compare,
        st.sampled_from(
            [
                "code",
                "date",
                "count",
                "quantity",
                "pair",
                "patient",
                "_security",
                "_depositor",
                "_hiddenUntil",
                "_entity",
                "unheard-of",
            ]
        ),
        st.just("missing"),
        st.booleans(),
    ),
    st.builds(
        Compare, st.sampled_from(["date", "issued", "_lastUpdated", "_hiddenUntil"]), st.sampled_from(COMPARISONS), all_spans
    ),
    st.builds(Compare, st.just("count"), st.sampled_from(COMPARISONS[:-1]), intervals),
    st.builds(
        Compare, st.just("quantity"), st.sampled_from(COMPARISONS[:-1]), st.builds(Measure, intervals, units | st.none())
    ),
)
clauses: st.SearchStrategy[Clause] = st.recursive(
    tests | st.sampled_from([NOTHING, EVERYTHING]),
    lambda inner: st.one_of(
        st.builds(All, st.lists(inner, max_size=4).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=4).map(tuple)),
        st.builds(Not, inner),
        st.builds(negate, inner),
    ),
    max_leaves=8,
)


async def check(world: World, found: list[Document], asked: list[Clause], *, common: bool) -> None:
    """Store the documents and ask both readers."""
    batch = unique("batch")
    stored = [d | {"_id": f"{n:03x}-{batch}", "bucket": f"{n:03x}", "batch": batch} for n, d in enumerate(found)]
    for document in stored:
        if "patient" in document:
            document["bucket"] = document["patient"][:3]
            document["_id"] = f"{document['bucket']}{document['_id']}"
    await world.gateway.mongo.insert("two_readers", stored)
    asked = [*asked, *(Compare("_id", "is", document["_id"]) for document in stored[:1])]
    for clause in asked:
        expected = {document["_id"] for document in stored if matches(clause, document)}
        for option in (False, True) if common else (False,):
            where = {"$and": [{"batch": batch}, to_filter(clause, common_spans=option)]}
            ids_found = {document["_id"] for document in await world.gateway.mongo.find("two_readers", where)}
            differing = [document for document in stored if document["_id"] in ids_found ^ expected][:3]
            assert not differing, (option, clause)


@pytest.fixture(scope="module", autouse=True)
async def collection(session_world: World) -> None:
    """A collection without any of the gateway's own indexes."""
    await session_world.gateway.mongo.create_collection("two_readers")
    await session_world.gateway.mongo.create_index("two_readers", [("batch", 1)], "batch")


def examples(number: int) -> Callable[[Any], Any]:
    """So many batches of documents and clauses; what fails names its one clause, so nothing needs shrinking."""
    phases = (Phase.reuse, Phase.generate)
    return settings(max_examples=number, deadline=None, phases=phases, suppress_health_check=list(HealthCheck))


wide = (st.lists(documents(all_spans), min_size=5, max_size=25), st.lists(clauses, min_size=10, max_size=10))
narrow = (st.lists(documents(spans(COMMON_SPAN)), min_size=5, max_size=25), st.lists(clauses, min_size=10, max_size=10))


@examples(40)
@given(*wide)
async def test_both_readers_agree(session_world: World, found: list[Document], asked: list[Clause]) -> None:
    await check(session_world, found, asked, common=False)


@examples(40)
@given(*narrow)
async def test_they_agree_where_all_dates_cover_a_common_span_at_most(
    session_world: World, found: list[Document], asked: list[Clause]
) -> None:
    await check(session_world, found, asked, common=True)


async def test_they_agree_where_more_is_named_than_one_pattern_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_reader, "_PATTERN", 1)
    named = [f"{one}{version}" for one in REFERENCES for version in ("", "/_history/2")]
    pairs = [[one, other] for one in named for other in named]
    found = [{"updated": START, "source": "s", "search": {}, "event": {"entities": pair}} for pair in pairs]
    asked = [Compare("_entity", "beyond", frozenset(REFERENCES[:n])) for n in range(1, len(REFERENCES) + 1)]
    await check(world, found, asked, common=False)


@pytest.mark.slow
@examples(2_000)
@given(*wide)
async def test_both_readers_agree_on_many_more(session_world: World, found: list[Document], asked: list[Clause]) -> None:
    await check(session_world, found, asked, common=False)


@pytest.mark.slow
@examples(2_000)
@given(*narrow)
async def test_they_agree_on_many_more_common_spans(session_world: World, found: list[Document], asked: list[Clause]) -> None:
    await check(session_world, found, asked, common=True)


@pytest.mark.parametrize("prefix", TEXTS)
async def test_prefixes_at_the_boundaries_of_unicode(world: World, prefix: str) -> None:
    longer = [{"updated": START, "source": text, "search": {"name": [text]}} for text in (*TEXTS, *(t + "z" for t in TEXTS))]
    await check(world, longer, [Compare("name", "starts", prefix), Compare("_source", "starts", prefix)], common=True)


@pytest.mark.parametrize("inside", [*TEXTS, *"[]\\^$.|?*+(){}-#/ \n\t", "\\E", "\\x41", "(?i)a", "a{0}", "É", "\U0001f489"])
async def test_what_means_something_in_a_pattern_is_text(world: World, inside: str) -> None:
    stored = [{"updated": START, "source": "s", "search": {"name": [f"a{text}b\0{inside}"]}} for text in {*TEXTS, inside, "A"}]
    await check(world, stored, [Compare("name", "contains", inside), Compare("name", "contains", f"a{inside}b")], common=False)


@pytest.mark.parametrize("op", COMPARISONS)
async def test_both_readers_agree_at_every_bound(world: World, op: str) -> None:
    """Whatever begins or ends exactly where what is asked for does, for all common spans there are between five moments."""
    ends = [START + n * HALF for n in range(5)]
    between = [Span(low, high) for n, low in enumerate(ends) for high in ends[n + 1 :]]
    stored = [hull([span]) for span in between if span.high - span.low <= COMMON_SPAN]
    found = [{"updated": START, "source": "s", "search": {"date": date}} for date in stored]
    await check(world, found, [Compare("date", op, span) for span in between], common=True)


async def test_a_denial_is_exact_even_where_spans_were_thought_common(world: World) -> None:
    """A wide span that arrives between looking up the record and searching it must not slip past a denial."""
    period = Span(START, START + COMMON_SPAN)
    arrived = {"updated": START, "source": "s", "search": {"date": hull([Span(START - 9 * COMMON_SPAN, START + HALF)])}}
    await check(world, [arrived], [Not(Compare("date", "overlaps", period))], common=True)


def test_a_clause_that_nothing_satisfies_is_seen_without_the_database() -> None:
    nothing: Document = {"_id": {"$in": []}}
    assert to_filter(NOTHING) == nothing
    assert to_filter(All((Compare("code", "is", "x"), NOTHING))) == nothing
    assert to_filter(AnyOf((NOTHING, NOTHING))) == nothing
    assert to_filter(EVERYTHING) == {}


def test_several_values_of_one_field_are_one_scan() -> None:
    either = AnyOf((Compare("_id", "is", "0a1-a"), Compare("_id", "is", "fff-b"), Compare("_id", "is", "0a1-a")))
    assert to_filter(either) == {"bucket": {"$in": ["0a1", "fff"]}, "_id": {"$in": ["0a1-a", "fff-b"]}}
    assert to_filter(AnyOf((Compare("code", "is", "x"), Compare("code", "is", "y")))) == {"search.code": {"$in": ["x", "y"]}}
