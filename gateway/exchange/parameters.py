"""Parameters as they are sent: in a URL, in the form of a search, in a condition, in the request of a Bundle's entry.

Knows: how they are decoded. Must not know: what any of them means.
"""

from urllib.parse import parse_qsl

from gateway.problem import Problem

Pairs = tuple[tuple[str, str], ...]

# Of every request (https://hl7.org/fhir/R4/http.html#parameters), and about how an answer is written: `api/` sees to them.
PRESENTATION = frozenset({"_format", "_pretty"})

_MOST = 1_000  # decoded at all; how many are carried out, `gateway.toml` says


def format_asked(pairs: Pairs) -> Pairs:
    """The parameter that says in which format an answer is: a link in it leads to an answer in the same."""
    return tuple(pair for pair in pairs if pair[0] == "_format")


def read_number(text: str, digits: int) -> int | None:
    """The number that a value is, None where it is anything else or of more digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else None


def read_pairs(text: bytes) -> Pairs:
    """The decoded parameters, in order.

    Raises Problem where they are not percent-encoded UTF-8 and where a token is among them: URLs are logged all along the way,
    and what is asked for is kept in the audit.
    """
    try:
        pairs = tuple(parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST))
    except ValueError:
        raise Problem("invalid", "the parameters are not percent-encoded UTF-8, or too many") from None
    for name, _ in pairs:
        if name == "access_token":
            raise Problem("invalid", "a token is sent in the Authorization header only", name)
    return pairs
