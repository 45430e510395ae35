"""Parts of a type in words that people understand.

Knows: how the query of a scope reads. Must not know: where the words stand on a page.
"""

from urllib.parse import unquote

from gateway.web.texts import Texts


def words_for(texts: Texts, query: str) -> str:
    """What a query (`category=…|laboratory&code=…`) finds; a code for which there are no words stands as it is."""
    return ", ".join(_words(texts, *pair.partition("=")[::2]) for pair in query.split("&"))


def _words(texts: Texts, name: str, value: str) -> str:
    plain = unquote(value)
    # What could look like something else on the page, or be a line of its own, stays as it was sent.
    codes = [one.rpartition("|")[2] for one in (plain if plain.isascii() and plain.isprintable() else value).split(",")]
    return " / ".join(texts.get(f"part_{name}.{code}") or texts[f"part.{name}"].format(code=code) for code in codes)
