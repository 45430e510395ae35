"""A series of readings as CSV, or as JSON line by line, sent while it is read.

Knows: which of the two is asked for (`_format`, `Accept`), how a row is written in each. Must not know: where rows come from.
"""

import csv
import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.api.formats import read_media_ranges, read_quality
from gateway.api.negotiate import query_pairs
from gateway.exchange.operations.glucose_series import Row, Series
from gateway.problem import Problem

CSV, NDJSON = "text/csv", "application/x-ndjson"
# How closely a media range, or an `_format`, names each of them.
_CLOSENESS: Mapping[str, Mapping[str, int]] = {
    CSV: {"*/*": 1, "text/*": 2, **dict.fromkeys(("csv", CSV), 3)},
    NDJSON: {
        "*/*": 1,
        "application/*": 2,
        **dict.fromkeys(("ndjson", NDJSON, "application/ndjson", "application/fhir+ndjson"), 3),
    },
}
_ROWS = 500  # in one piece


def choose_table(request: Request) -> str:
    """The media type to answer with; of two that are wanted alike the first that is named. Raises Problem 406 for neither."""
    # An unescaped + arrives as a space.
    asked = [value.replace(" ", "+") for name, value in query_pairs(request) if name == "_format"]
    wanted: dict[str, tuple[int, float]] = {}
    for media_range, parameters in read_media_ranges(",".join(asked or request.headers.getlist("accept"))) or [("*/*", {})]:
        for table, closeness in _CLOSENESS.items():
            close = closeness.get(media_range, 0)
            if close > wanted.get(table, (0, 0.0))[0]:
                wanted[table] = (close, read_quality(parameters))
    best = max((quality for _, quality in wanted.values()), default=0.0)
    found = next((table for table, (_, quality) in wanted.items() if quality == best > 0), None)
    if found is None:
        raise Problem("not-supported", f"a series is given as {CSV} or {NDJSON}", status=406)
    return found


async def respond_table(request: Request, series: Series, media_type: str) -> Response:
    """The series, begun only when its first rows are there: what fails at once is still told as it is."""
    ending = "csv" if media_type == CSV else "ndjson"
    headers = {"content-disposition": f'attachment; filename="glucose.{ending}"', "vary": "Accept"}
    kind = f"{CSV}; charset=utf-8; header=present" if media_type == CSV else NDJSON
    if request.method == "HEAD":
        return Response(status_code=200, headers=headers, media_type=kind)
    pieces = _pieces(series, _as_csv if media_type == CSV else _as_json)
    first = await anext(pieces, b"")

    async def all_pieces() -> AsyncIterator[bytes]:
        yield (_as_csv([Row._fields]) if media_type == CSV else b"") + first
        async for piece in pieces:
            yield piece

    return StreamingResponse(all_pieces(), 200, headers, kind)


async def _pieces(series: Series, write: Callable[[Sequence[Sequence[object]]], bytes]) -> AsyncIterator[bytes]:
    rows: list[Row] = []
    async for row in series.rows():
        rows.append(row)
        if len(rows) == _ROWS:
            yield write(rows)
            rows = []
    if rows:
        yield write(rows)


def _as_csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_plain(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _as_json(rows: Sequence[Sequence[object]]) -> bytes:
    lines = (dict(zip(Row._fields, row, strict=True)) for row in rows)
    return b"".join(msgspec.json.encode({**line, "value": msgspec.Raw(str(line["value"]).encode())}) + b"\n" for line in lines)
