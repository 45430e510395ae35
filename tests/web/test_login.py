"""Logging in: who is let in, what nobody is told, how often one may try, what a session is worth."""

import asyncio
from datetime import timedelta

import pytest

from gateway.exchange.accounts import add_account, lock_account, reset_account
from gateway.exchange.passwords import code_at, step_at
from gateway.problem import Problem
from gateway.store.accounts import session_key
from tests.person import Page, Person
from tests.world import World, unique

PASSWORD = "correct horse battery"
SITE = "http://gateway.test"


async def patient_account(world: World) -> tuple[str, str]:
    """Login and reference of a new patient's account."""
    login, owner = unique("camille"), await world.patient()
    await add_account(world.gateway, login, PASSWORD, "Camille Durand", (owner.reference,))
    return login, owner.reference


def person(world: World, language: str = "en") -> Person:
    return Person(world.http, SITE, language)


def is_in(page: Page) -> bool:
    return page.status == 200 and "Camille Durand" in page.text and page.answer.url.path == "/me"


async def test_who_knows_the_password_is_in_under_a_new_cookie(world: World) -> None:
    login, _ = await patient_account(world)
    camille = person(world)
    await camille.open("/login")
    before = camille.cookies["session"]
    page = await camille.log_in(f" {login.upper()} ", PASSWORD)
    assert is_in(page)
    assert camille.cookies["session"] != before
    stored = await world.stored("sessions", account=login)
    assert [s["_id"] for s in stored] == [session_key(camille.cookies["session"])]
    assert camille.cookies["session"] not in str(stored)


@pytest.mark.requirement("AUD-01")
async def test_the_log_of_the_patient_tells_of_logins_and_of_refused_ones(world: World) -> None:
    login, reference = await patient_account(world)
    await person(world).log_in(login, "something else")
    await person(world).log_in(login, PASSWORD)
    owner = await world.patient_actor(reference.partition("/")[2])
    events = await owner.search("AuditEvent?subtype=http://dicom.nema.org/resources/ontology/DCM|110122")
    assert [(e["outcome"], e["type"]["code"], e["agent"][-1]["who"]["reference"]) for e in events] == [
        ("0", "110114", reference),
        ("8", "110114", reference),
    ]


@pytest.mark.parametrize("wrong", ["password", "login", "locked"])
async def test_whoever_is_refused_is_told_the_same(world: World, wrong: str) -> None:
    login, _ = await patient_account(world)
    if wrong == "locked":
        await lock_account(world.gateway, login)
    page = await person(world).log_in("nobody" if wrong == "login" else login, "x" if wrong == "password" else PASSWORD)
    assert page.status == 401
    assert "Login or password are wrong, or it was tried too often." in page.text
    assert PASSWORD not in page.answer.text


async def test_what_is_missing_is_named_and_led_to(world: World) -> None:
    page = await person(world).log_in("", "")
    assert page.status == 400
    assert [tag["href"] for name, tag in page.tags if name == "a"][:2] == ["#login", "#password"]
    assert {tag.get("id") for name, tag in page.tags if name == "input"} >= {"login", "password"}


async def test_five_attempts_are_free_and_then_waiting_doubles(world: World) -> None:
    login, _ = await patient_account(world)
    guesses = [person(world) for _ in range(12)]
    for guess in guesses:
        await guess.open("/login")
    await asyncio.gather(*(guess.log_in(login, "wrong wrong wrong") for guess in guesses))
    [account] = await world.stored("accounts", _id=login)
    assert account["failures"] == 5
    assert not is_in(await person(world).log_in(login, PASSWORD))
    spans = []
    for _ in range(8):
        [account] = await world.stored("accounts", _id=login)
        world.clock.ahead += account["free"] - world.clock() + timedelta(seconds=1)
        before = world.clock()
        await person(world).log_in(login, "wrong wrong wrong")
        [account] = await world.stored("accounts", _id=login)
        spans.append((account["free"] - world.clock(), account["free"] - before))
    for wait, (least, most) in zip([30, 60, 120, 240, 480, 900, 900, 900], spans, strict=True):
        assert least <= timedelta(seconds=wait) <= most
    world.clock.ahead += timedelta(seconds=901)
    assert is_in(await person(world).log_in(login, PASSWORD))
    [account] = await world.stored("accounts", _id=login)
    assert account["failures"] == 0


@pytest.mark.parametrize("how", ["lock", "reset", "log out", "idle", "twelve hours"])
async def test_a_session_ends(world: World, how: str) -> None:
    login, _ = await patient_account(world)
    camille = person(world)
    page = await camille.log_in(login, PASSWORD)
    if how == "lock":
        await lock_account(world.gateway, login)
    elif how == "reset":
        await reset_account(world.gateway, login, "another long one")
    elif how == "log out":
        cookie = camille.cookies["session"]
        await camille.send(page.form("/logout"))
        camille.cookies["session"] = cookie
    elif how == "idle":
        world.clock.ahead += timedelta(minutes=31)
    else:
        for _ in range(36):
            assert is_in(await camille.open("/me"))
            world.clock.ahead += timedelta(minutes=20, seconds=1)
    assert (await camille.open("/me")).answer.url.path == "/login"


async def test_a_second_factor_is_good_once_and_only_within_its_time(world: World) -> None:
    login = unique("operator")
    secret = await add_account(world.gateway, login, PASSWORD, "Olga", (), is_operator=True)
    assert secret is not None
    olga = person(world)
    page = await olga.log_in(login, PASSWORD)
    assert page.answer.url.path == "/login/code"
    assert (await olga.open("/me")).answer.url.path == "/login"  # the password alone lets nobody in
    present = step_at(world.clock())
    page = await olga.open("/login/code")
    for wrong in ("000000", code_at(secret, present - 3), code_at(secret, present + 3)):
        page = await olga.send(page.form("/login/code"), code=wrong)
        assert page.status == 401
    unfinished = dict(olga.cookies)
    code = code_at(secret, present)
    page = await olga.send(page.form("/login/code"), code=f"{code[:3]} {code[3:]}")
    assert page.answer.url.path == "/me"
    assert olga.cookies != unfinished
    again = person(world)
    page = await again.log_in(login, PASSWORD)
    assert (await again.send(page.form("/login/code"), code=code)).status == 401


async def test_guessing_codes_counts_as_guessing(world: World) -> None:
    login = unique("operator")
    secret = await add_account(world.gateway, login, PASSWORD, "Olga", (), is_operator=True)
    assert secret is not None
    olga = person(world)
    page = await olga.log_in(login, PASSWORD)
    for _ in range(4):
        page = await olga.send(page.form("/login/code"), code="000000")
    page = await olga.send(page.form("/login/code"), code=code_at(secret, step_at(world.clock())))
    assert page.status == 401


@pytest.mark.parametrize(
    ("login", "password", "references", "why"),
    [
        ("ab", PASSWORD, ("Patient/{id}",), "a login has 3 to 254 characters"),
        ("a b c", PASSWORD, ("Patient/{id}",), "a login has 3 to 254 characters"),
        ("abc", "short", ("Patient/{id}",), "a password has 12 to 256 characters"),
        ("abc", PASSWORD, (), "an account is somebody's"),
        ("abc", PASSWORD, ("Patient/000-nobody",), "who is known here"),
        ("abc", PASSWORD, ("Device/000-thing",), "who is known here"),
    ],
)
async def test_accounts_that_cannot_be(world: World, login: str, password: str, references: tuple[str, ...], why: str) -> None:
    owner = await world.patient()
    with pytest.raises(Problem, match=why):
        await add_account(world.gateway, login, password, "", tuple(r.replace("{id}", owner.patient) for r in references))


async def test_a_login_is_one_person_s(world: World) -> None:
    login, reference = await patient_account(world)
    with pytest.raises(Problem, match="there is an account of this login"):
        await add_account(world.gateway, login.upper(), PASSWORD, "", (reference,))


async def test_a_person_changes_their_password_and_is_out_everywhere_else(world: World) -> None:
    login, _ = await patient_account(world)
    camille, elsewhere = person(world), person(world)
    await elsewhere.log_in(login, PASSWORD)
    await camille.log_in(login, PASSWORD)
    page = await camille.open("/me/password")
    for present, new, wrong in (("not this one", "another long one", "present"), (PASSWORD, "short", "new")):
        page = await camille.send(page.form("/me/password"), present=present, new=new)
        assert page.status == 400
        assert [tag["href"] for name, tag in page.tags if name == "a" and tag["href"].startswith("#")] == [f"#{wrong}"]
    page = await camille.send(page.form("/me/password"), present=PASSWORD, new="another long one")
    assert is_in(page)
    assert "Your password is changed." in page.text
    assert (await elsewhere.open("/me")).answer.url.path == "/login"
    assert not is_in(await person(world).log_in(login, PASSWORD))
    assert is_in(await person(world).log_in(login, "another long one"))
    assert (await person(world).open("/me/password")).status == 404
