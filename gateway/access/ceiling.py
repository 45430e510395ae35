"""The most that a client may ever be granted, whatever it asks for.

Knows: which letters of a SMART scope read and which write; how a wider scope is cut down to what is allowed.
Must not know: consents, who decides what is allowed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.access.scope import V1, Scope

READING, WRITING = "rs", "cud"
_ORDER = "cruds"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The types that may be read and written, at these levels (`patient`, `user`, `system`)."""

    levels: frozenset[str]
    read: frozenset[str]
    write: frozenset[str]

    def narrow(self, scopes: Iterable[Scope]) -> list[str]:
        """What is left of these scopes, in their own notation: version 1 stays version 1.

        `*` becomes the types that are allowed: it would stand for those to come as well.
        """
        found: dict[str, None] = {}
        for scope in scopes:
            if scope.level in self.levels:
                if scope.text.partition(".$")[1]:
                    if self.write:  # who deposits may be given the right to address
                        found[scope.text] = None
                    continue
                types = sorted(self.read | self.write) if scope.type == "*" else [scope.type]
                for name in types:
                    letters = scope.permissions & self._letters(name)
                    if letters:
                        found[_write(scope, name, letters)] = None
        return list(found)

    def _letters(self, type_name: str) -> frozenset[str]:
        return frozenset((READING if type_name in self.read else "") + (WRITING if type_name in self.write else ""))


def _write(scope: Scope, type_name: str, letters: frozenset[str]) -> str:
    _, _, permissions = scope.text.partition(".")
    permissions, query, parameters = permissions.partition("?")
    if permissions in V1:
        permissions = next(word for word, meant in V1.items() if letters == frozenset(meant))
    else:
        permissions = "".join(letter for letter in _ORDER if letter in letters)
    return f"{scope.level}/{type_name}.{permissions}{query}{parameters}"
