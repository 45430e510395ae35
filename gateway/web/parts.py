"""Parts of a type in words that people understand.

Knows: how the query of a scope reads. Must not know: where the words stand on a page.
"""

import re
from urllib.parse import unquote

from gateway.web.texts import Texts

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")


def words_for(texts: Texts, query: str) -> str:
    """What a query (`category=…|laboratory&code=…`) finds; a code for which there are no words stands as it is."""
    return ", ".join(_words(texts, *pair.partition("=")[::2]) for pair in query.split("&"))


def _words(texts: Texts, name: str, value: str) -> str:
    plain = unquote(value)
    # What is no code could look like a sentence of the page, or be a line of its own: it stays as it was sent.
    codes = [one.rpartition("|")[2] for one in plain.split(",")]
    if not all(map(_CODE.fullmatch, codes)):
        codes = [value]
    return " / ".join(texts.get(f"part_{name}.{code}") or texts[f"part.{name}"].format(code=code) for code in codes)
