"""Profiles: extra rules for a resource that claims one in `meta.profile`, compiled from TOML to plain checks.

Knows: the few kinds of rule a profile file may use. Must not know: StructureDefinitions, stores, who is calling.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import msgspec

from gateway.fhir.path import Branch, PathError, compile_path
from gateway.fhir.types import Types
from gateway.fhir.values import token_values
from gateway.problem import Issue
from gateway.schemas import SchemaError, read_schema


class _RuleFile(msgspec.Struct, forbid_unknown_fields=True):
    path: str | None = None
    required: bool = False
    forbidden: bool = False
    code: list[str] = msgspec.field(default_factory=list)
    unit: list[str] = msgspec.field(default_factory=list)
    minimum: float | None = None
    maximum: float | None = None
    any_of: list[str] = msgspec.field(default_factory=list)
    all_codes: list[str] = msgspec.field(default_factory=list)
    text: list[str] = msgspec.field(default_factory=list)
    at_least: int | None = None
    at_most: int | None = None
    contained: bool = False


class _ProfileFile(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    type: str
    source: str
    rule: list[_RuleFile]
    includes: list[str] = msgspec.field(default_factory=list)


_CODED = frozenset({"CodeableConcept", "Coding"})
_MEASURED = frozenset({"Quantity", "Age", "Count", "Distance", "Duration"})

_TEXTS = frozenset({"code", "string", "uri", "canonical"})
_LIMITS = "required, forbidden, contained, code, all_codes, text, at_least, at_most, unit, minimum or maximum"

Rule = Callable[[Any], Issue | None]
Read = Callable[[Any], list[Any]]


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile by its canonical `url`, for resources of `type`."""

    url: str
    type: str
    rules: tuple[Rule, ...]

    def check(self, resource: Any) -> list[Issue]:
        """Every rule that the resource breaks."""
        return [issue for rule in self.rules if (issue := rule(resource)) is not None]


def read_profiles(folder: FilePath, types: Types) -> Mapping[str, Profile]:
    """The profiles of a folder by file name. Raises SchemaError naming file and key."""
    found: dict[str, Profile] = {}
    files = {file.stem: (file, read_schema(file, _ProfileFile)) for file in sorted(folder.glob("*.toml"))}
    for name, (file, raw) in files.items():
        try:
            types.struct(raw.type)
        except KeyError:
            raise SchemaError(file, "type", f"'{raw.type}' is not an R4 resource type") from None
        if raw.url in (profile.url for profile in found.values()):
            raise SchemaError(file, "url", "is the url of another profile")
        rules = (
            rule
            for one in _with_included(file, name, files)
            for n, each in enumerate(files[one][1].rule)
            for rule in _compile(files[one][0], types, raw, f"rule[{n}]", each)
        )
        found[name] = Profile(raw.url, raw.type, tuple(rules))
    return found


def _with_included(file: FilePath, name: str, files: Mapping[str, tuple[FilePath, _ProfileFile]]) -> list[str]:
    """The profiles whose rules one has: those that it includes, with what they include, and its own."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        one = waiting.pop()
        found.insert(0, one)
        for other in files[one][1].includes:
            if other not in files or files[other][1].type != files[name][1].type:
                raise SchemaError(file, "includes", f"'{other}' is no profile of {files[name][1].type}")
            if other in found or other in waiting:
                raise SchemaError(file, "includes", f"'{other}' is included twice")
            waiting.append(other)
    return found


def _compile(file: FilePath, types: Types, profile: _ProfileFile, key: str, rule: _RuleFile) -> Iterator[Rule]:
    """The checks of one rule: one for each kind of limit it sets."""

    def branches(path: str, kinds: frozenset[str] = frozenset()) -> tuple[Branch, ...]:
        try:
            found = compile_path(types, profile.type, path)
        except PathError as error:
            raise SchemaError(file, key, str(error)) from error
        wrong = sorted({branch.type for branch in found if kinds and branch.type not in kinds})
        if wrong:
            raise SchemaError(file, key, f"such a rule cannot be held against {', '.join(wrong)}")
        return found

    amounts = tuple(one is not None for one in (rule.minimum, rule.maximum, rule.at_least, rule.at_most))
    told = (rule.required, rule.forbidden, rule.contained, rule.code, rule.all_codes, rule.text, rule.unit)
    limits = (*told, *amounts)
    if bool(rule.any_of) == (rule.path is not None) or (rule.any_of and any(limits)):
        raise SchemaError(file, key, "has either any_of alone or a path with its limits")
    if rule.path is None:
        yield _any_of(profile.type, rule.any_of, [_reader(branches(path)) for path in rule.any_of])
        return
    if not any(limits) or (rule.required and rule.forbidden):
        raise SchemaError(file, key, f"says nothing: {_LIMITS}")
    expression, at = f"{profile.type}.{rule.path}", _reader(branches(rule.path))
    if rule.required or rule.forbidden:
        yield _presence(expression, at, required=rule.required)
    if rule.code:
        branches(rule.path, _CODED)
        yield _one_of_codes(expression, at, rule.code)
    if rule.all_codes:
        branches(rule.path, _CODED)
        yield _each_code_once(expression, at, rule.all_codes)
    if rule.text:
        branches(rule.path, _TEXTS)
        yield _one_of_texts(expression, at, rule.text)
    if rule.at_least is not None:
        yield _at_least(expression, at, rule.at_least)
    if rule.at_most is not None:
        yield _at_most(expression, at, rule.at_most)
    if rule.contained:
        branches(rule.path, frozenset({"Reference"}))
        yield _contained(expression, at)
    if rule.unit:
        branches(rule.path, _MEASURED)
        yield _one_of_units(expression, at, rule.unit)
    if rule.minimum is not None or rule.maximum is not None:
        branches(rule.path, _MEASURED)
        if rule.minimum is not None and rule.maximum is not None and rule.minimum > rule.maximum:
            raise SchemaError(file, key, "its minimum is above its maximum")
        yield _in_range(expression, at, rule.minimum, rule.maximum)


def _reader(branches: tuple[Branch, ...]) -> Read:
    if len(branches) == 1:
        return branches[0].read
    return lambda resource: [value for branch in branches for value in branch.read(resource)]


def _presence(expression: str, at: Read, *, required: bool) -> Rule:
    code, text = (
        ("required", "the profile requires this element") if required else ("value", "the profile forbids this element")
    )

    def rule(resource: Any) -> Issue | None:
        return None if bool(at(resource)) is required else Issue(code, text, expression)

    return rule


def _any_of(type_name: str, paths: list[str], readers: list[Read]) -> Rule:
    text = f"the profile requires one of {', '.join(paths)}"

    def rule(resource: Any) -> Issue | None:
        return None if any(at(resource) for at in readers) else Issue("required", text, type_name)

    return rule


def _one_of_codes(expression: str, at: Read, codes: list[str]) -> Rule:
    allowed = set(codes)
    text = f"the profile requires one of {', '.join(codes)}"

    def rule(resource: Any) -> Issue | None:
        found = {token for it in at(resource) for token in _tokens(it)}
        return None if found & allowed else Issue("code-invalid", text, expression)

    return rule


def _tokens(concept: Any) -> list[str]:
    codings = getattr(concept, "coding", (concept,)) or ()
    return [token for coding in codings for token in token_values(coding.system, coding.code)]


def _each_code_once(expression: str, at: Read, codes: list[str]) -> Rule:
    text = f"the profile requires each of these once: {', '.join(codes)}"

    def rule(resource: Any) -> Issue | None:
        found = [{*_tokens(concept)} for concept in at(resource)]
        wrong = any(sum(code in tokens for tokens in found) != 1 for code in codes)
        return Issue("code-invalid", text, expression) if wrong else None

    return rule


def _one_of_texts(expression: str, at: Read, texts: list[str]) -> Rule:
    allowed = set(texts)
    text = f"the profile requires {' or '.join(texts)}"

    def rule(resource: Any) -> Issue | None:
        return None if allowed.issuperset(at(resource)) else Issue("value", text, expression)

    return rule


def _at_least(expression: str, at: Read, least: int) -> Rule:
    text = f"the profile requires {least} of this element at least"

    def rule(resource: Any) -> Issue | None:
        return None if len(at(resource)) >= least else Issue("required", text, expression)

    return rule


def _at_most(expression: str, at: Read, most: int) -> Rule:
    text = f"the profile allows {most} of this element at most"

    def rule(resource: Any) -> Issue | None:
        return None if len(at(resource)) <= most else Issue("structure", text, expression)

    return rule


def _contained(expression: str, at: Read) -> Rule:
    text = "the profile requires a reference to what the resource contains"

    def rule(resource: Any) -> Issue | None:
        wrong = any(not (reference.reference or "").startswith("#") for reference in at(resource))
        return Issue("value", text, expression) if wrong else None

    return rule


def _one_of_units(expression: str, at: Read, units: list[str]) -> Rule:
    allowed = set(units)
    text = f"the profile requires the unit {' or '.join(units)}"

    def rule(resource: Any) -> Issue | None:
        wrong = any(not allowed & set(token_values(q.system, q.code)) for q in at(resource))
        return Issue("code-invalid", text, expression) if wrong else None

    return rule


def _in_range(expression: str, at: Read, minimum: float | None, maximum: float | None) -> Rule:
    low = float("-inf") if minimum is None else minimum
    high = float("inf") if maximum is None else maximum
    text = f"the profile allows values from {low:g} to {high:g}"

    def rule(resource: Any) -> Issue | None:
        wrong = any(q.value is not None and not low <= float(q.value) <= high for q in at(resource))
        return Issue("value", text, expression) if wrong else None

    return rule
