"""What holds for every page: headers, languages, forms that nobody else can send, all of it readable and reachable."""

from types import SimpleNamespace

import httpx
import pytest

from gateway.app import create_app, now
from gateway.exchange.throttle import Throttle
from gateway.schemas import SchemaError, find_schemas
from gateway.web.pages import Pages
from gateway.web.texts import choose_language, read_texts
from tests.conftest import make_settings
from tests.person import Person
from tests.web.test_login import PASSWORD, patient_account, person
from tests.world import World


async def test_a_page_can_be_framed_by_nobody_and_loads_nothing_from_elsewhere(world: World) -> None:
    answer = (await person(world).open("/login")).answer
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers.get_list("content-security-policy") == [
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "<script" not in answer.text
    assert " style=" not in answer.text


async def test_the_stylesheet_is_there_and_may_be_kept(world: World) -> None:
    page = await person(world).open("/login")
    [link] = [tag for name, tag in page.tags if name == "link"]
    answer = await world.http.get(f"http://gateway.test{link['href']}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers.get_list("cache-control") == ["public, max-age=31536000, immutable"]


async def test_the_cookie_is_kept_from_scripts_and_other_sites(world: World) -> None:
    answer = (await person(world).open("/login")).answer
    assert answer.headers["set-cookie"].split("; ")[1:] == ["HttpOnly", "Path=/", "SameSite=lax"]


async def test_over_tls_the_cookie_is_this_host_s_alone(mongo_url: str) -> None:
    settings = make_settings(mongo_url, base_url="https://gateway.test/fhir", mongo_database="none")
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    app.state.gateway = SimpleNamespace(settings=settings, providers=(), throttle=Throttle({}, {}), clock=now)
    async with httpx.AsyncClient(transport=transport) as http:
        answer = await http.get("https://gateway.test/login")
    assert answer.status_code == 200
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-session=")
    assert attributes == ["HttpOnly", "Path=/", "SameSite=lax", "Secure"]


@pytest.mark.parametrize("attack", ["no token", "token of another browser", "no cookie", "another site", "JSON"])
async def test_a_form_that_was_not_shown_here_is_refused(world: World, attack: str) -> None:
    login, _ = await patient_account(world)
    victim = person(world)
    page = await victim.open("/login")
    form = page.forms[-1]
    if attack == "token of another browser":
        form = (await person(world).open("/login")).forms[-1]
    if attack == "no cookie":
        victim.cookies.clear()
    if attack == "another site":
        victim.headers["Sec-Fetch-Site"] = "cross-site"
    if attack == "JSON":
        victim.headers["Content-Type"] = "application/json"
    page = await victim.send(form, drop=("form_token",) if attack == "no token" else (), login=login, password=PASSWORD)
    assert page.status == (415 if attack == "JSON" else 403)
    assert await world.stored("sessions", account=login) == []
    assert "Nothing has been changed." in page.text


@pytest.mark.parametrize(
    ("path", "accepted", "title"),
    [
        ("/login", "fr-FR,fr;q=0.9,en;q=0.8", "Se connecter"),
        ("/login", "en-GB", "Log in"),
        ("/login", "de, *;q=0.5", "Log in"),
        ("/login", "en;q=0.1, fr;q=0.7", "Se connecter"),
        ("/login?ui_locales=de%20fr-CA", "en", "Se connecter"),
    ],
)
async def test_pages_speak_the_language_asked_for(world: World, path: str, accepted: str, title: str) -> None:
    page = await person(world, accepted).open(path)
    assert title in page.text
    [html] = [tag for name, tag in page.tags if name == "html"]
    assert html["lang"] == ("fr" if title == "Se connecter" else "en")


async def test_the_other_language_is_one_link_away_and_keeps_the_page(world: World) -> None:
    page = await person(world).open("/login?request=abc&ui_locales=en")
    [link] = [tag["href"] for name, tag in page.tags if name == "a" and tag.get("hreflang") == "fr"]
    assert link == "/login?request=abc&ui_locales=fr"


@pytest.mark.parametrize("header", ["en;q=0", "fr;q=0,en;q=0", ";;;", "fr" * 2_000, "fr;q=9"])
def test_a_language_nobody_can_make_out_is_english(header: str) -> None:
    assert choose_language({"en": {}, "fr": {}}, "", header) == "en"


async def test_every_field_has_a_label_and_every_page_one_heading(world: World) -> None:
    login, _ = await patient_account(world)
    camille = person(world)
    pages = [await camille.open("/login"), await camille.log_in(login, "wrong wrong"), await camille.log_in(login, PASSWORD)]
    for page in pages:
        assert [name for name, _ in page.tags].count("h1") == 1
        assert [name for name, _ in page.tags].count("main") == 1
        labelled = {tag["for"] for name, tag in page.tags if name == "label"}
        shown = {tag["id"] for name, tag in page.tags if name == "input" and tag["type"] != "hidden"}
        assert shown <= labelled
        ids = [tag["id"] for _, tag in page.tags if "id" in tag]
        assert len(ids) == len(set(ids))


async def test_what_somebody_types_is_shown_as_text(world: World) -> None:
    page = await person(world).log_in('"><script>alert(1)</script>', "x")
    assert "<script" not in page.answer.text
    assert "&lt;script&gt;" in page.answer.text


async def test_local_accounts_log_in_in_production_only_where_that_is_said(mongo_url: str) -> None:
    settings = make_settings(mongo_url, base_url="https://gateway.test/fhir", local_login="auto")
    assert not settings.has_local_login
    assert make_settings(mongo_url, base_url="http://127.0.0.1:8000/fhir", local_login="auto").has_local_login
    app = create_app(settings)
    app.state.gateway = SimpleNamespace(settings=settings, providers=(), throttle=Throttle({}, {}), clock=now)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as http:
        page = await Person(http, "https://gateway.test").open("/login")
    assert page.status == 404


def test_every_text_is_said_in_every_language_and_used(tmp_path_factory: pytest.TempPathFactory) -> None:
    texts = read_texts(find_schemas())
    assert set(texts) == {"en", "fr"}
    folder = tmp_path_factory.mktemp("schemas")
    (folder / "texts").mkdir()
    for name, text in (("en", '[a]\nb = "to {client}"'), ("fr", '[a]\nb = "à {service}"')):
        (folder / "texts" / f"{name}.toml").write_text(text, "utf-8")
    with pytest.raises(SchemaError, match=r"fr\.toml: a\.b: names other things"):
        read_texts(folder)
    (folder / "texts" / "fr.toml").write_text('[a]\nc = "x"', "utf-8")
    with pytest.raises(SchemaError, match=r"a\.c: is missing"):
        read_texts(folder)


def test_a_site_below_a_path_keeps_it_in_its_addresses(mongo_url: str) -> None:
    settings = make_settings(mongo_url, base_url="https://health.example/gw/fhir")
    assert settings.site == "https://health.example/gw"
    assert Pages(settings, read_texts(find_schemas())).style_url.startswith("/gw/assets/")
    assert make_settings(mongo_url, base_url="https://fhir.example/r4").site == "https://fhir.example"
