"""The public page of the catalogue: who is referenced, in words, and nobody else."""

import pytest

from gateway.exchange.catalogue import set_state
from tests.clients import register
from tests.conftest import packaged
from tests.web.test_login import person
from tests.world import World, unique


async def test_it_lists_who_is_referenced_with_what_people_ought_to_know(world: World) -> None:
    name, wrong = unique("Vaccines"), f"<script>{unique('Evil')}</script>"
    known = await register(world, name=name, controller=unique("Controller"), contact=unique("contact"), write=["Device"])
    await register(world, name=wrong)
    page = await person(world).open("/services")
    assert page.status == 200
    for said in (name, known.client.purpose["en"], known.client.controller, known.client.contact, "Prevention"):
        assert said in page.text
    for said in ("May ask to see", "Measurements", "May ask to add and change", "Devices"):
        assert said in page.text
    assert wrong in page.text  # as text
    assert "<script" not in page.answer.text
    await set_state(world.gateway, known.id, "suspended")
    assert name not in (await person(world).open("/services")).text


@pytest.mark.parametrize("state", ["draft", "tested", "suspended"])
async def test_who_is_not_referenced_is_not_listed(world: World, state: str) -> None:
    name = unique("Unlisted")
    await register(world, state, name=name)
    assert name not in (await person(world).open("/services")).text


async def test_what_people_never_meet_is_not_listed(world: World) -> None:
    feed, resource_server = unique("Feed"), unique("Resources")
    await register(world, name=feed, kind="feed", read=["Practitioner"])
    await register(world, name=resource_server, grants=[], introspects=True, read=[])
    page = await person(world).open("/services")
    assert feed not in page.text
    assert resource_server not in page.text


async def test_every_category_and_type_has_words_in_every_language(world: World) -> None:
    schemas = packaged()
    types = sorted(set(schemas.registry.resource_types) - schemas.policy.never_opened)
    for category in sorted(schemas.policy.recipients):
        await register(world, category=category, read=types, write=types)
    for language in ("en", "fr"):
        page = await person(world, language).open("/services")
        assert page.status == 200, page.text
        assert [attributes for tag, attributes in page.tags if tag == "html"] == [{"lang": language}]
    assert "Vous rappeler vos vaccins." in page.text


async def test_a_purpose_told_in_one_language_is_told_in_that(world: World) -> None:
    purpose = unique("Um Sie zu erinnern")
    await register(world, purpose={"de": purpose})
    assert purpose in (await person(world, "fr").open("/services")).text
