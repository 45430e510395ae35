"""In a real browser, without JavaScript, at the width of a desk and of a phone: from an app's link to taking it back."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from tests.browser import Browser, browsing
from tests.clients import Registered
from tests.decisions import PASSWORD, Request, account_of, medisoft, register_app
from tests.process import process_world
from tests.world import Actor, World, observation, related_person

SIZES = {"desk": (1280, 900, False), "phone": (390, 844, True)}


@pytest.fixture(scope="module")
async def served(mongo_url: str) -> AsyncIterator[World]:
    """People around a gateway process."""
    async for world in _served(mongo_url):
        yield world


async def _served(mongo_url: str) -> AsyncIterator[World]:
    async with process_world(mongo_url) as world:
        yield world


@asynccontextmanager
async def app_site() -> AsyncIterator[tuple[str, "asyncio.Queue[str]"]]:
    """Where the app waits for its answer; yields the address, and what browsers came with."""
    came: asyncio.Queue[str] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        if "/callback" in line:
            came.put_nowait(line.split()[1])
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<p>Thanks.</p"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callback", came


async def fits(browser: Browser) -> bool:
    """Whether nobody has to scroll sideways."""
    return bool(await browser.look("document.documentElement.scrollWidth <= window.innerWidth"))


def pictures(tmp_path: Path) -> Path:
    """Where pictures are kept: for whoever wants to look at them, in the folder they name."""
    return Path(os.environ.get("GATEWAY_TEST_PICTURES", tmp_path))


async def token(http: httpx.AsyncClient, site: str, **fields: str) -> httpx.Response:
    return await http.post(f"{site}/oauth/token", data=fields)


@pytest.mark.requirement("SEC-029", "EXT-06")
@pytest.mark.parametrize("size", SIZES)
async def test_from_an_app_s_link_to_taking_it_back(served: World, tmp_path: Path, size: str) -> None:
    width, height, phone = SIZES[size]
    site, folder = served.gateway.settings.site, pictures(tmp_path)
    owner = await served.patient()
    login = await account_of(served, owner.reference)
    reading = await owner.create(observation(owner.patient))
    async with app_site() as (callback, came), browsing(width, height, phone=phone) as browser, httpx.AsyncClient() as http:
        app = await register_app(served, redirect_uris=["http://127.0.0.1/callback"])
        request = Request(app.id)
        sent = request.parameters(redirect_uri=callback, aud=served.gateway.settings.base_url)
        await browser.open(f"{site}/oauth/authorize?{urlencode(sent)}")
        await browser.picture(folder / f"{size}-login.png")
        assert await fits(browser)
        await browser.type("#login", login)
        await browser.type("#password", "a wrong password")
        await browser.go_on("main form button")
        assert "wrong" in await browser.look("document.querySelector('[role=alert]').innerText")
        await browser.picture(folder / f"{size}-login-refused.png")
        await browser.type("#password", PASSWORD)
        await browser.go_on("main form button")
        assert "GlucoApp asks for access" in await browser.look("document.querySelector('h1').innerText")
        assert await browser.look("document.querySelectorAll('input:checked').length") == 0
        assert await fits(browser)
        await browser.picture(folder / f"{size}-decide.png")
        await browser.go_on("button[value=allow]")  # nothing is ticked yet
        assert await browser.look("document.querySelectorAll('[role=alert] li').length") == 2
        await browser.becomes("document.activeElement.getAttribute('role')", "alert")
        await browser.picture(folder / f"{size}-decide-missing.png")
        for box in ("#read-Observation", "label[for=past]", "label[for=duration-year]"):
            await browser.click(box)
        await browser.picture(folder / f"{size}-decide-ticked.png")
        await browser.go_on("button[value=allow]")
        answer = {name: value for name, [value] in parse_qs(urlsplit(await asyncio.wait_for(came.get(), 10)).query).items()}
        assert (answer["state"], answer["iss"]) == (request.state, site)
        body = await redeemed(http, site, app, request, callback, answer["code"])
        bearer = Actor(served.http, body["access_token"], "")
        found = await bearer.get(f"Observation?patient={owner.patient}")
        assert [entry["resource"]["id"] for entry in found.json()["entry"]] == [reading["id"]]
        assert (await bearer.get(f"Device?patient={owner.patient}")).status_code == 403
        assert (await bearer.post("Observation", observation(owner.patient))).status_code == 403
        await browser.open(f"{site}/me")
        await browser.picture(folder / f"{size}-me.png")
        assert await fits(browser)
        await browser.go_on("form[action='/me/take-back'] button")
        assert "It is taken back" in await browser.look("document.querySelector('main').innerText")
        await browser.picture(folder / f"{size}-me-taken-back.png")
        assert (await bearer.get(f"Observation?patient={owner.patient}")).status_code == 401
        again = await token(http, site, grant_type="refresh_token", refresh_token=body["refresh_token"], client_id=app.id)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        assert browser.refused == []


async def redeemed(
    http: httpx.AsyncClient, site: str, app: Registered, request: Request, callback: str, code: str
) -> dict[str, Any]:
    fields = {"code": code, "redirect_uri": callback, "code_verifier": request.verifier, "client_id": app.id}
    answer = await token(http, site, grant_type="authorization_code", **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.requirement("SEC-029")
async def test_a_decision_is_made_with_the_keyboard_alone(served: World) -> None:
    site, owner = served.gateway.settings.site, await served.patient()
    login = await account_of(served, owner.reference)
    async with app_site() as (callback, came), browsing(1280, 900) as browser:
        app = await register_app(served, redirect_uris=["http://127.0.0.1/callback"])
        sent = Request(app.id).parameters(redirect_uri=callback, aud=served.gateway.settings.base_url)
        await browser.open(f"{site}/oauth/authorize?{urlencode(sent)}")
        await browser.type("#login", login)
        await browser.press("Tab")
        await browser.call("Input.insertText", text=PASSWORD)
        await browser.press_on("Enter")
        reached = []
        for _ in range(30):
            await browser.press("Tab")
            element = await browser.look("(e => e.id || e.value || e.tagName)(document.activeElement)")
            reached.append(element)
            outline = await browser.look("getComputedStyle(document.activeElement).outlineStyle")
            assert outline not in ("none", ""), element  # one sees where one is
            if element in ("read-Observation", "duration-once"):
                await browser.press(" ")
            if element == "allow":
                break
        assert reached[-1] == "allow", reached
        assert {"read-Device", "read-Observation", "write-Observation", "past", "duration-once"} <= set(reached)
        await browser.press("Enter")
        assert "code=" in await asyncio.wait_for(came.get(), 10)


# The contrast of every text on a page with what is behind it (https://www.w3.org/TR/WCAG22/#contrast-minimum).
CONTRASTS = """
(() => {
  const read = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = read(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c } return [255, 255, 255] };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !e.getClientRects().length) continue;
    const [a, b] = [light(read(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    found.push([Math.round((a + 0.05) / (b + 0.05) * 100) / 100, text.slice(0, 40)]);
  }
  return found;
})()
"""
# What can be clicked, and how small it is (https://www.w3.org/TR/WCAG22/#target-size-minimum).
TARGETS = """
[...document.querySelectorAll('main a, main button, main label, main summary, footer a, header button')].map(
  e => [Math.min(e.getBoundingClientRect().height, e.getBoundingClientRect().width), e.innerText.slice(0, 40)])
"""


async def can_be_read(browser: Browser) -> None:
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await browser.call("Emulation.setEmulatedMedia", features=[feature])
        contrasts = await browser.look(CONTRASTS)
        assert len(contrasts) > 5
        assert [one for one in contrasts if one[0] < 4.5] == [], scheme
    inside = await browser.look("[...document.querySelectorAll('[role=alert] a')].map(e => e.innerText.slice(0, 40))")
    targets = [one for one in await browser.look(TARGETS) if one[1] not in inside]  # (links in a sentence may be smaller)
    assert [one for one in targets if one[0] < 24] == []


@pytest.mark.requirement("SEC-029")
async def test_every_page_can_be_read_and_hit_in_light_and_dark(served: World, tmp_path: Path) -> None:
    site, owner, mother = served.gateway.settings.site, await served.patient(), await served.patient()
    named = await served.operator.create(related_person(mother.patient))
    login = await account_of(served, owner.reference, f"RelatedPerson/{named['id']}")
    app = await register_app(served, redirect_uris=["http://127.0.0.1/callback"])
    sent = Request(app.id).parameters(redirect_uri="http://127.0.0.1:9/callback", aud=served.gateway.settings.base_url)
    async with browsing(390, 844, phone=True) as browser:
        await browser.open(f"{site}/oauth/authorize?{urlencode(sent)}&ui_locales=fr")
        await can_be_read(browser)
        await browser.go_on("main form button")  # nothing is filled in
        await can_be_read(browser)
        await browser.type("#login", login)
        await browser.type("#password", PASSWORD)
        await browser.go_on("main form button")
        await can_be_read(browser)
        await browser.go_on("button[value=allow]")  # nothing is ticked
        await can_be_read(browser)
        assert await fits(browser)
        await browser.picture(pictures(tmp_path) / "phone-dark-french.png")
        for path in ("/me", "/services", "/oauth/authorize"):
            await browser.open(f"{site}{path}")
            await can_be_read(browser)
            assert await fits(browser)


@pytest.mark.requirement("SEC-029")
@pytest.mark.parametrize("size", SIZES)
async def test_a_professional_chooses_a_patient_by_keyboard(served: World, tmp_path: Path, size: str) -> None:
    width, height, phone = SIZES[size]
    site, folder, doctor = served.gateway.settings.site, pictures(tmp_path), await served.professional()
    login, app = await account_of(served, doctor.reference), await medisoft(served, ["http://127.0.0.1/callback"])
    owner = await served.patient(generalPractitioner=[{"reference": doctor.reference}], name=[{"text": "Anne Morel"}])
    number = (await owner.get(f"Patient/{owner.patient}")).json()["identifier"][0]["value"]
    async with app_site() as (callback, came), browsing(width, height, phone=phone) as browser:
        sent = Request(app.id).parameters(
            redirect_uri=callback, aud=served.gateway.settings.base_url, scope="launch/patient patient/Observation.rs"
        )
        await browser.open(f"{site}/oauth/authorize?{urlencode(sent)}&ui_locales=fr")
        await browser.type("#login", login)
        await browser.type("#password", PASSWORD)
        await browser.press_on("Enter")
        assert "Quel patient" in await browser.look("document.querySelector('h1').innerText")
        await browser.picture(folder / f"{size}-patient.png")
        assert await fits(browser)
        await browser.type("#identifier", "1234567890123")
        await browser.press_on("Enter")
        assert "Aucun patient" in await browser.look("document.querySelector('[role=alert]').innerText")
        await browser.becomes("document.activeElement.getAttribute('role')", "alert")
        assert await browser.look("document.querySelector('#identifier').value") == ""
        await can_be_read(browser)
        await browser.picture(folder / f"{size}-patient-unknown.png")
        for _ in range(2):  # to what the message leads to, and into the field
            await browser.press("Tab")
        assert await browser.look("document.activeElement.id") == "identifier"
        await browser.call("Input.insertText", text=number)
        await browser.press_on("Enter")
        assert "Anne Morel" in await browser.look("document.querySelector('main').innerText")
        await can_be_read(browser)
        assert await fits(browser)
        await browser.picture(folder / f"{size}-patient-chosen.png")
        await browser.click("button[value=allow]")
        assert "code=" in await asyncio.wait_for(came.get(), 10)
