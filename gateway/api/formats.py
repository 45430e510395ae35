"""FHIR's formats by their media types: what a body is sent in, what an answer may be given in.

Knows: https://hl7.org/fhir/R4/http.html#mime-type; https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1.
Must not know: requests, how a format is read or written.
"""

import functools
import re
from collections.abc import Mapping

from gateway.exchange.call import Format
from gateway.fhir.capability import FHIR_JSON, FHIR_XML

JSON, XML = FHIR_JSON, FHIR_XML
_UTF8 = ("utf-8", "utf8")
_FORMATS: Mapping[str, Format] = {
    **dict.fromkeys((JSON, "application/json", "text/json", "json"), "json"),
    **dict.fromkeys((XML, "application/xml", "text/xml", "xml"), "xml"),
}
# How closely a media range names a format; one that names it alone does so most closely.
_CLOSENESS: Mapping[str, int] = {"*/*": 1, "application/*": 2}
_NAMED = 3
_QUALITY = re.compile(r"0(?:\.[0-9]*)?|1(?:\.0*)?|\.[0-9]+")


@functools.lru_cache(maxsize=256)
def accepted_formats(accept: str) -> tuple[Format, ...]:
    """The formats of FHIR 4.0 that these media ranges want most: of each, what the closest range says counts."""
    qualities: dict[Format, float] = {"json": 1.0, "xml": 1.0}
    if accept.strip():
        ranges = read_media_ranges(accept)
        qualities = {name: _quality(ranges, name) for name in qualities}
    most = max(qualities.values())
    return tuple(name for name, quality in qualities.items() if quality == most > 0)


@functools.lru_cache(maxsize=256)
def body_format(content_type: str) -> Format | None:
    """The format of a body of this type, None for anything but FHIR 4.0 in UTF-8."""
    media_type, parameters = read_media_type(content_type)
    return _FORMATS.get(media_type) if is_utf8(parameters) and _is_our_version(parameters) else None


def read_media_type(text: str) -> tuple[str, dict[str, str]]:
    """A media type or range and its parameters, all in lower case: https://www.rfc-editor.org/rfc/rfc9110#section-8.3.1."""
    media_type, *parameters = (part.strip().lower() for part in text.split(";"))
    split = (parameter.partition("=") for parameter in parameters)
    return media_type, {name.strip(): value.strip().strip('"') for name, _, value in split}


def read_media_ranges(text: str) -> list[tuple[str, dict[str, str]]]:
    """The media ranges of an `Accept` with their parameters: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1."""
    return [read_media_type(media_range) for media_range in text.split(",") if media_range.strip()]


def read_quality(parameters: Mapping[str, str]) -> float:
    """How much a media range with these parameters is wanted, from 0 (not at all) to 1."""
    asked = parameters.get("q", "1")
    return float(asked) if _QUALITY.fullmatch(asked) else 1.0


def is_utf8(parameters: Mapping[str, str]) -> bool:
    """Whether a media type with these parameters is in UTF-8."""
    return parameters.get("charset", "utf-8") in _UTF8


def _quality(ranges: list[tuple[str, dict[str, str]]], name: Format) -> float:
    closest, quality = 0, 0.0
    for media_type, parameters in ranges:
        closeness = _NAMED if _FORMATS.get(media_type) == name else _CLOSENESS.get(media_type, 0)
        if not closeness or closeness < closest or not _is_our_version(parameters):
            continue
        wanted = read_quality(parameters)
        closest, quality = closeness, wanted if closeness > closest else max(quality, wanted)
    return quality


def _is_our_version(parameters: Mapping[str, str]) -> bool:
    return parameters.get("fhirversion", "4.0") in ("4.0", "4.0.1")
