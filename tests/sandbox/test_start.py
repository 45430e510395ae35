"""The page that the sandbox opens with: each call, copied as it stands, gives what it says."""

import html
import re
import shutil
import subprocess
import sys

import httpx
import pytest

from gateway.app import create_app
from gateway.sandbox.rows import read_village
from tests.browser import browsing
from tests.conftest import make_settings
from tests.sandbox.test_demo import shell


def test_each_call_of_the_page_gives_what_it_says(site: str) -> None:
    answer = httpx.get(site)
    assert answer.status_code == 200
    assert "script" not in re.sub(r"<summary>JavaScript.*?</pre>", "", answer.text, flags=re.DOTALL).lower()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    steps = re.findall(r"<h3>\d+\. (\d+).*?</h3>(.*?)(?=<h3>|<h2)", answer.text, re.DOTALL)
    assert [status for status, _ in steps] == ["201", "200", "403", "200", "400", "200"]
    for status, text in steps:
        curl, python, script = (html.unescape(block) for block in re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL))
        assert shell(curl).startswith(f"HTTP/1.1 {status}"), curl
        told = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, timeout=60, check=True).stdout
        # (what curl has pushed is known when Python pushes it)
        assert told.split()[0] == {"201": "200"}.get(status, status), python
        assert script.startswith("const answer = await fetch(")
        if node := shutil.which("node"):
            said = subprocess.run(
                [node, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, check=True
            )
            assert said.stdout.split()[0] == {"201": "200"}.get(status, status), script
    for address in re.findall(r'href="([^"#]+)"', answer.text):
        assert httpx.get(html.unescape(address)).status_code < 400, address


def test_each_case_and_everybody_is_on_the_page(site: str) -> None:
    page = httpx.get(site).text
    village = read_village()
    for row in village.token:
        assert f">demo-{row.name}</code> {html.escape(row.says)}".replace("&#x27;", "&#39;") in page, row.name
    shown = re.findall(r"is answered (\d+).*?<pre>(.*?)</pre>", page, re.DOTALL)
    assert [int(status) for status, _ in shown] == [call.status for case in village.case for call in case.call]
    for status, curl in shown:
        assert shell(html.unescape(curl)).startswith(f"HTTP/1.1 {status}"), curl


def test_its_button_resets_the_village(site: str) -> None:
    page = httpx.get(site)
    [form] = re.findall(r'<form method="post" action="([^"]+)">', page.text)
    browser = {"Accept": "text/html", "Origin": site, "Sec-Fetch-Site": "same-origin"}
    done = httpx.post(site + form, headers=browser, timeout=60)
    assert done.status_code == 303
    again = httpx.get(site + done.headers["location"])
    assert re.search(r'role="status">The village is as it was first \([0-9.]+ s\)', again.text)
    assert "status" not in httpx.get(f"{site}/?reset=<b>").text.partition("<nav")[0].partition("<body>")[2]


@pytest.mark.parametrize("size", [(1280, 900, False), (390, 844, True)], ids=["desk", "phone"])
async def test_in_a_browser_it_fits_and_its_button_works_without_javascript(site: str, size: tuple[int, int, bool]) -> None:
    width, height, phone = size
    async with browsing(width, height, phone=phone) as browser:
        await browser.open(site)
        assert await browser.look("document.documentElement.scrollWidth <= innerWidth")
        for opened in ("details.case", "details.case details"):
            await browser.look(f"document.querySelectorAll('{opened}').forEach(one => one.open = true)")
        assert await browser.look("document.documentElement.scrollWidth <= innerWidth"), "what is opened fits, too"
        assert await browser.look(
            "[...document.querySelectorAll('summary, button')].every(e => e.offsetHeight === 0 || e.offsetHeight >= 24)"
        )
        await browser.go_on("form button")
        said = await browser.look("document.querySelector('[role=status]')?.textContent ?? document.body.textContent")
        assert said.startswith("The village is as it was first"), said
        assert browser.refused == []


def test_production_has_none_of_it() -> None:
    app = create_app(make_settings("mongodb://127.0.0.1:9/"))
    paths = {getattr(route, "path", "") for route in app.routes}
    assert "/fhir/metadata" in paths
    assert not [path for path in paths if path == "/" or path.startswith("/sandbox")]
