"""The demo's reset brings the village back, ids and tokens the same; in its streams time is faster, and never beyond now."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.sandbox.resources import glucose
from gateway.sandbox.streams import journey
from tests.sandbox.test_demo import demo

GENEROUS = 15.0  # seconds, on a machine that does much else; alone it takes about one


@contextmanager
def site_of(*options: str) -> Iterator[str]:
    with demo(*options) as running:
        found = re.search(r"http://127\.0\.0\.1:\d+", running.text)
        assert found is not None
        yield found[0]


def ask(site: str, method: str, path: str, token: str, body: Any = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer demo-{token}", "Content-Type": "application/fhir+json"}
    return httpx.request(method, f"{site}/fhir/{path}", headers=headers, json=body, timeout=60)


def state(site: str) -> list[Any]:
    """What can be seen of the village, without what each look adds to the log."""
    [lucie] = ask(site, "GET", "Patient", "lucie").json()["entry"]
    owner = lucie["resource"]["id"]
    looks = [
        ("lucie", f"{name}?patient={owner}&_count=200&_total=accurate") for name in ("DocumentReference", "Consent", "CareTeam")
    ]
    looks += [("camille", "Observation?_count=5&_sort=-date&_total=accurate"), ("camille", "Consent"), ("rose", "Patient")]
    found = [ask(site, "GET", path, token).json() for token, path in looks]
    return [(one.get("total"), [entry["resource"] for entry in one["entry"]]) for one in found]


def reset(site: str, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{site}/sandbox/reset", headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=60
    )


@pytest.mark.requirement("CONF-01")
def test_what_was_changed_is_as_it_was_first(site: str) -> None:
    before = state(site)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    assert ask(site, "POST", "Observation", "app", glucose("8ba-camille", "reset-1", now, 104)).status_code == 201
    consent = ask(site, "GET", "Consent/8ba-consent-martin", "camille").json()
    assert ask(site, "PUT", "Consent/8ba-consent-martin", "camille", {**consent, "status": "inactive"}).status_code == 200
    [_, relations] = before[2]
    assert ask(site, "DELETE", f"CareTeam/{relations[0]['id']}", "lucie").status_code in (200, 204)
    assert state(site) != before
    began = time.monotonic()
    assert reset(site).status_code == 200
    assert time.monotonic() - began < GENEROUS
    assert state(site) == before
    again = ask(site, "POST", "Observation", "app", glucose("8ba-camille", "reset-1", now, 104))
    assert again.status_code == 201, "it is not known any more"


def test_the_command_line_resets_a_demo_and_says_where_there_is_none(site: str) -> None:
    command = [sys.executable, "-m", "gateway", "demo", "--reset", "--port"]
    done = subprocess.run([*command, site.rpartition(":")[2]], capture_output=True, text=True, timeout=120, check=True)
    assert re.fullmatch(r"The village is as it was first \([0-9.]+ s\)\.\n", done.stdout)
    nobody = subprocess.run([*command, "9"], capture_output=True, text=True, timeout=120, check=False)
    assert (nobody.returncode, nobody.stderr) == (1, "gateway: no demo answers on port 9\n")


def test_requests_wait_for_a_reset_and_two_resets_for_each_other(site: str) -> None:
    statuses: list[int] = []

    def look() -> None:
        for _ in range(15):
            statuses.append(ask(site, "GET", "Patient/8ba-camille", "camille").status_code)

    def reset_again() -> None:
        statuses.append(reset(site).status_code)

    threads = [threading.Thread(target=work) for work in (look, reset_again, look, reset_again)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 32


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example"},  # a name that somebody let lead to this machine
    ],
    ids=str,
)
def test_no_other_page_resets_it(site: str, headers: dict[str, str]) -> None:
    assert reset(site, **headers).status_code == 403
    assert httpx.get(f"{site}/sandbox/reset").status_code in (404, 405)


def test_time_passes_faster_until_it_is_now() -> None:
    now = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
    week, minute = timedelta(days=7), timedelta(minutes=1)
    midnight = datetime(2026, 11, 20, tzinfo=UTC)
    fast = journey(60, now)
    assert fast.reached(now) == midnight - week
    assert fast.reached(now + minute) == midnight - week + 60 * minute
    assert fast.reached(now + timedelta(days=1)) == now + timedelta(days=1)
    assert [journey(1, now).reached(now + n * minute) for n in range(3)] == [now + n * minute for n in range(3)]


def newest(site: str, token: str) -> datetime:
    found = ask(site, "GET", "Observation?_sort=-date&_count=1", token).json()
    return datetime.fromisoformat(found["entry"][0]["resource"]["effectiveDateTime"])


@pytest.mark.requirement("CONF-01")
@pytest.mark.parametrize("speed", ["100000", "1"])
def test_streams_go_on_until_now_and_begin_anew_after_a_reset(speed: str) -> None:
    with site_of("--speed", speed) as site:
        for _ in range(2):
            deadline = time.monotonic() + 60
            while datetime.now(UTC) - newest(site, "sami") > timedelta(hours=2):
                assert time.monotonic() < deadline
                time.sleep(0.5)
            found = ask(site, "GET", "Observation?_summary=count&_total=accurate", "sami").json()
            days = 3 + (7 if speed != "1" else 0) + (datetime.now(UTC).hour + 1) / 24
            assert 0.8 * (3 + 7 * (speed != "1")) * 288 < found["total"] <= days * 288
            assert reset(site).status_code == 200
