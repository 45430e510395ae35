"""The R4 types as msgspec Structs, derived by walking the fields of the R4B classes of fhir.resources.

Knows: element names, cardinalities, primitive patterns, choice groups, required bindings, invariants of one resource.
Must not know: profiles, search, stores, HTTP. What R4B adds to R4 (4.0.1) is left out here.
"""

import importlib
import sys
import types
import typing
import weakref
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Literal, cast

import msgspec

from gateway.fhir.invariants import INVARIANTS, Check
from gateway.fhir.primitives import primitive_types

# What came with R4B and does not exist in 4.0.1, or has another shape there (https://hl7.org/fhir/R4B/diff.html).
NOT_IN_R4 = frozenset(
    "AdministrableProductDefinition Citation ClinicalUseDefinition CodeableReference Evidence EvidenceReport EvidenceVariable"
    " Ingredient ManufacturedItemDefinition MedicinalProductDefinition NutritionProduct PackagedProductDefinition RatioRange"
    " RegulatedAuthorization SubscriptionStatus SubscriptionTopic SubstanceDefinition subjectCanonical".split()
)
# Where R4B allows more targets than 4.0.1 does.
_TARGETS_IN_R4: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("DiagnosticReport", "subject"): ("Patient", "Group", "Device", "Location"),
    ("Observation", "subject"): ("Patient", "Group", "Device", "Location"),
}
# What fhir.resources adds: comments, and the twin of a narrative's div, which holds its id itself and no extension.
_NOT_HERE = frozenset({"fhir_comments", "div__ext"})
_ABSTRACT = frozenset({"Resource", "DomainResource"})

# A nested resource stays undecoded bytes: whoever needs it decodes it as its own type and reports its own errors.
NESTED = "Resource"

_EXTENDED = "FHIRPrimitiveExtension"  # what `_name` holds


class Element(msgspec.Struct, frozen=True):
    """One element of a type: how it is called in JSON and in Python, and what it may hold."""

    name: str
    attribute: str
    type: str
    many: bool
    required: bool
    choice: str | None
    choice_required: bool
    targets: tuple[str, ...]
    codes: tuple[str, ...]
    summary: bool

    @property
    def is_primitive(self) -> bool:
        """FHIR's own convention: primitive types start with a small letter."""
        return self.type[0].islower()


class Resource(msgspec.Struct, kw_only=True):
    """What every derived type has in common. Attributes are FHIR's element names (`class` is `class_fhir`)."""


class Types:
    """All derived types. A resource type met for the first time is derived at that moment."""

    def __init__(self, bindings: Mapping[str, Iterable[str]], string_length: int) -> None:
        """`bindings`: the codes of each required binding, by FHIR path; `string_length`: the longest string, in characters."""
        self._bindings = {type_and_element(path): tuple(codes) for path, codes in bindings.items()}
        self._primitives = primitive_types(string_length)
        self._structs: dict[str, type[Resource]] = {}
        self._elements: dict[str, tuple[Element, ...]] = {}
        self._models: dict[str, Any] = {}
        # msgspec resolves the forward references of recursive types (Extension, Identifier) in the class's module, which it
        # looks up by name: each Types has its own.
        self._module = types.ModuleType(f"{__name__}.derived_{id(self)}")
        sys.modules[self._module.__name__] = self._module
        weakref.finalize(self, sys.modules.pop, self._module.__name__, None)

    def struct(self, name: str) -> type[Resource]:
        """The Struct class of a FHIR type. KeyError where there is none of that name."""
        if name not in self._structs:
            self._derive(name)
        return self._structs[name]

    def elements(self, name: str) -> tuple[Element, ...]:
        """The elements of a FHIR type, in the order of the standard. KeyError where there is none of that name."""
        self.struct(name)
        return self._elements[name]

    def has_resource(self, name: str) -> bool:
        """Whether R4 has a resource type of that name, served or not."""
        try:
            self.struct(name)
        except KeyError:
            return False
        return _is_resource(self._models[name])

    def model(self, name: str) -> Any:
        """The class of fhir.resources that a type is derived from. KeyError where there is none of that name."""
        self.struct(name)
        return self._models[name]

    def _derive(self, name: str) -> None:
        if not (name.isascii() and name.isalpha()) or name in NOT_IN_R4 or name in _ABSTRACT:
            raise KeyError(name)
        try:
            model = getattr(importlib.import_module(f"fhir.resources.R4B.{name.lower()}"), name)
        except (ImportError, AttributeError):
            raise KeyError(name) from None
        pending, found = [model], {}
        while pending:
            model = pending.pop()
            if model.__name__ not in self._elements:
                found[model.__name__] = model
                self._elements[model.__name__] = _with_twins([*self._read_elements(model)])
                pending += _models_within(model)
        for name, model in found.items():
            self._structs[name] = self._build(name, _is_resource(model))
            self._models[name] = model
            setattr(self._module, name, self._structs[name])

    def _read_elements(self, model: Any) -> Iterator[Element]:
        order = {name: n for n, name in enumerate(model.elements_sequence())}
        fields = sorted(model.model_fields.items(), key=lambda item: order.get(item[1].alias.lstrip("_"), -1))
        for attribute, field in fields:
            kind, many = _kind(field.annotation)
            if attribute in _NOT_HERE or kind in NOT_IN_R4 or attribute.removesuffix("__ext") in NOT_IN_R4:
                continue
            extra = field.json_schema_extra or {}
            yield Element(
                name=field.alias,
                attribute=attribute,
                type=kind,
                many=many,
                required=field.is_required() or bool(extra.get("element_required")),
                choice=extra.get("one_of_many"),
                choice_required=bool(extra.get("one_of_many_required")),
                targets=_TARGETS_IN_R4.get((model.__name__, field.alias), tuple(extra.get("enum_reference_types", ()))),
                codes=self._bindings.get((model.__name__, field.alias), ()),
                summary=bool(extra.get("summary_element_property")),
            )

    def _build(self, name: str, is_resource: bool) -> type[Resource]:
        elements = self._elements[name]
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for element in elements:
            kind = self._python_type(element)
            # A required primitive may be absent where `_name` says why: the check below sees to it.
            if element.required and not element.is_primitive:
                fields.append((element.attribute, kind))
            elif kind is msgspec.Raw:
                fields.append((element.attribute, kind, None))  # msgspec knows no optional Raw; absent is None all the same
            else:
                fields.append((element.attribute, typing.Optional[kind], None))  # noqa: UP045 (a ForwardRef has no `|`)
        check = _instance_check(elements, INVARIANTS.get(name, ()))
        struct: Any = msgspec.defstruct(
            name,
            fields,
            bases=(Resource,),
            module=self._module.__name__,
            namespace={"__post_init__": check} if check else {},
            tag_field="resourceType" if is_resource else None,
            tag=name if is_resource else None,
            rename={e.attribute: e.name for e in elements if e.attribute != e.name} or None,
            omit_defaults=True,
            forbid_unknown_fields=True,
            kw_only=True,
            gc=False,  # resources are trees: there is no cycle for the collector to find
        )
        return cast("type[Resource]", struct)

    def _python_type(self, element: Element) -> Any:
        one: Any
        if element.codes:
            one = Literal[element.codes]
        elif element.is_primitive:
            one = self._primitives[element.type]
        else:
            one = msgspec.Raw if element.type == NESTED else typing.ForwardRef(element.type)
        if not element.many:
            return one
        if element.is_primitive or element.type == _EXTENDED:
            # (null where the twin list `_name` has the entry)
            one = typing.Optional[one]  # noqa: UP045
        return typing.Annotated[list[one], msgspec.Meta(min_length=1)]


def _with_twins(elements: list[Element]) -> tuple[Element, ...]:
    """The elements, and for each primitive of a choice its `_name`: fhir.resources leaves those of an extension's value out."""
    names = {e.name for e in elements}
    bare = [e for e in elements if e.choice and e.is_primitive and f"_{e.name}" not in names]
    twins = (
        msgspec.structs.replace(
            e,
            name=f"_{e.name}",
            attribute=f"{e.attribute}__ext",
            type=_EXTENDED,
            required=False,
            choice=None,
            choice_required=False,
        )
        for e in bare
    )
    return (*elements, *twins)


def type_and_element(path: str) -> tuple[str, str]:
    """`Consent.provision.type` as fhir.resources names it: `("ConsentProvision", "type")`."""
    *parents, element = path.split(".")
    return "".join(part[:1].upper() + part[1:] for part in parents), element


def _is_resource(model: Any) -> bool:
    return any(base.__name__ == "Resource" for base in model.__mro__)


def _models_within(model: Any) -> list[Any]:
    leaves = (_leaf(field.annotation) for field in model.model_fields.values())
    models = (leaf.get_model_klass() for leaf in leaves if hasattr(leaf, "get_model_klass"))
    return [m for m in models if m.__name__ != NESTED and m.__name__ not in NOT_IN_R4]


def _leaf(annotation: Any) -> Any:
    """What is inside Optional and List."""
    while typing.get_origin(annotation) in (list, typing.Union, types.UnionType) and not hasattr(annotation, "__metadata__"):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def _kind(annotation: Any) -> tuple[str, bool]:
    """FHIR name of the type that fhir.resources annotates, and whether it is a list."""
    outer = typing.get_args(annotation)[0] if type(None) in typing.get_args(annotation) else annotation
    leaf = _leaf(annotation)
    if hasattr(leaf, "get_model_klass"):
        kind = leaf.get_model_klass().__name__
    elif hasattr(leaf, "__metadata__"):
        mark = type(leaf.__metadata__[-1]).__name__
        kind = "uuid" if mark == "UuidVersion" else mark[0].lower() + mark[1:]
    else:
        kind = "boolean" if leaf is bool else "string"
    return kind, typing.get_origin(outer) is list


def _instance_check(elements: tuple[Element, ...], invariants: tuple[Check, ...]) -> Any:
    """The check of one instance that types alone cannot make; None where there is nothing to check."""
    attributes = {e.attribute for e in elements}
    twins = {e.attribute: f"{e.attribute}__ext" for e in elements if f"{e.attribute}__ext" in attributes}
    # (Extension.url and a narrative's div have no twin: nothing stands for them)
    present = tuple(
        (e.attribute, twins.get(e.attribute, e.attribute), e.name) for e in elements if e.required and e.is_primitive
    )
    groups: dict[str, list[str]] = {}
    for element in elements:
        if element.choice:
            groups.setdefault(element.choice, []).append(element.attribute)
    choices = tuple((name, attrgetter(*members), len(members) - 1) for name, members in groups.items())
    required = {e.choice for e in elements if e.choice_required}
    needed = tuple((n, attrgetter(*m, *(twins[a] for a in m if a in twins))) for n, m in groups.items() if n in required)
    if not (present or choices or invariants):
        return None

    def __post_init__(self: Any) -> None:  # noqa: N807 (the hook's own name)
        for attribute, twin, name in present:
            if getattr(self, attribute) is None and getattr(self, twin) is None:
                raise ValueError(f"{name} is required")
        for name, values, others in choices:
            if values(self).count(None) < others:
                raise ValueError(f"{name}[x] takes at most one value")
        for name, values in needed:
            if all(value is None for value in values(self)):
                raise ValueError(f"{name}[x] takes exactly one value")
        for check in invariants:
            if (broken := check(self)) is not None:
                raise ValueError(broken)

    return __post_init__
