"""What operators get to see in numbers: sums over processes that never fall, labels that nobody outside can choose."""

import asyncio
import re
import time
from pathlib import Path

import httpx
import pytest

from gateway.metrics import Metrics, Numbers, read_numbers, render
from tests.process import environment, free_port, process_world, refused, run_apart, serving
from tests.world import bundle, entry, observation

LINE = re.compile(r'(?:# (?:HELP|TYPE) gateway_\w+ .+|gateway_\w+(?:\{\w+="[^"\n]*"(?:,\w+="[^"\n]*")*\})? [0-9.e+-]+)')


def value(text: str, series: str) -> float:
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == series]
    assert len(found) == 1, (series, text)
    return float(found[0])


def counted(*requests: tuple[str, str, int | None, float]) -> Metrics:
    metrics = Metrics({"content.damaged": 2})
    for request in requests:
        metrics.answered(*request)
    return metrics


def test_requests_are_counted_by_route_and_how_long_they_took() -> None:
    metrics = counted(("GET", "/a", 200, 0.005), ("GET", "/a", 200, 0.02), ("GET", "/a", 404, 99.0), ("POST", "/b", None, 0.1))
    metrics.refused("not-found", 404)
    text = render([Numbers(0, metrics.counts(), {})], 0)
    assert [line for line in text.splitlines() if not LINE.fullmatch(line)] == []
    assert value(text, 'gateway_requests_total{method="GET",route="/a",status="200"}') == 2
    assert value(text, 'gateway_requests_total{method="POST",route="/b",status="none"}') == 1
    bucket = 'gateway_request_seconds_bucket{{route="/a",le="{}"}}'
    assert [value(text, bucket.format(bound)) for bound in (0.005, 0.01, 0.025, 30.0, "+Inf")] == [1, 1, 2, 2, 3]
    assert value(text, 'gateway_request_seconds_count{route="/a"}') == 3
    assert value(text, 'gateway_request_seconds_sum{route="/a"}') == pytest.approx(99.025)
    assert value(text, 'gateway_refusals_total{code="not-found",status="404"}') == 1
    assert value(text, 'gateway_events_total{event="content.damaged"}') == 2


def test_processes_are_added_up_and_those_that_ended_count_on(tmp_path: Path) -> None:
    of_one, of_other = counted(("GET", "/a", 200, 0.1)), counted(("GET", "/a", 200, 0.1), ("GET", "/a", 200, 0.1))
    of_one.lay_down(tmp_path, Numbers(100, of_one.counts(), {"gateway_processes": 1, "gateway_audit_lag_seconds": 9}))
    of_other.lay_down(tmp_path, Numbers(195, of_other.counts(), {"gateway_processes": 1, "gateway_audit_lag_seconds": 3}))
    total = 'gateway_requests_total{method="GET",route="/a",status="200"}'
    early, late = render(read_numbers(tmp_path), 101), render(read_numbers(tmp_path), 200)
    assert (value(early, total), value(early, "gateway_processes"), value(early, "gateway_audit_lag_seconds")) == (3, 2, 9)
    assert (value(late, total), value(late, "gateway_processes"), value(late, "gateway_audit_lag_seconds")) == (3, 1, 3)
    of_one.answered("GET", "/a", 200, 0.1)
    of_one.lay_down(tmp_path, Numbers(200, of_one.counts(), {}))
    assert value(render(read_numbers(tmp_path), 200), total) == 4


def test_no_label_is_a_client_s_to_choose() -> None:
    metrics = counted(*((f"BREW{n}", "/a", 405, 0.1) for n in range(50)))
    assert [one for one in metrics.counts() if "BREW" in one] == []
    assert metrics.counts()['gateway_requests_total{method="other",route="/a",status="405"}'] == 50


def test_counting_costs_a_request_less_than_five_microseconds() -> None:
    metrics = counted()
    began = time.process_time()
    for n in range(20_000):
        metrics.answered("GET", "/fhir/Observation/{id}", 200, n / 1e4)
        metrics.refused("forbidden", 403)
    assert (time.process_time() - began) / 20_000 < 5e-6


def test_a_service_tells_the_numbers_of_all_its_processes_where_only_operators_ask(mongo_url: str) -> None:
    port, apart = free_port(), free_port()
    env = environment(mongo_url, GATEWAY_METRICS=f"127.0.0.1:{apart}", GATEWAY_LOG_LEVEL="error")
    with serving(env, port, "--workers", "2"):
        for _ in range(40):  # each on a connection of its own, so that both processes get some
            assert httpx.get(f"http://127.0.0.1:{port}/fhir/Patient/8ba-canary?name=canary").status_code == 401
        assert httpx.post(f"http://127.0.0.1:{port}/fhir/Observation", json=observation("8ba-canary")).status_code == 401
        refusals = 'gateway_refusals_total{code="login",status="401"}'
        deadline = time.monotonic() + 20
        while f"{refusals} 41\n" not in (text := httpx.get(f"http://127.0.0.1:{apart}/metrics").text):
            assert time.monotonic() < deadline, text
            time.sleep(0.2)
        assert value(text, 'gateway_requests_total{method="GET",route="/fhir/Patient/{id}",status="401"}') == 40
        assert value(text, "gateway_processes") == 2
        assert value(text, 'gateway_events_total{event="started"}') == 2
        assert value(text, "gateway_mongo_calls_total") > 0
        assert "canary" not in text
        assert [line for line in text.splitlines() if not LINE.fullmatch(line)] == []
        assert httpx.get(f"http://127.0.0.1:{apart}/fhir/metadata").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 404


async def test_each_refused_entry_counts_and_a_whole_refusal_counts_once(mongo_url: str) -> None:
    apart = f"127.0.0.1:{free_port()}"
    async with process_world(mongo_url, GATEWAY_METRICS=apart) as world, httpx.AsyncClient() as outside:

        async def refusals() -> dict[str, float]:
            lines = (await outside.get(f"http://{apart}/metrics")).text.splitlines()
            return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("gateway_ref")}

        camille = await world.patient("patient/Observation.cruds patient/Device.cruds")
        unknown = entry("GET", "Observation/8ba-canary")
        wrong = entry("POST", "Observation", {"resourceType": "Observation", "status": "canary"})
        right = entry("POST", "Observation", observation(camille.patient))
        answer = await camille.post("", bundle("batch", unknown, wrong, right, unknown))
        assert [e["response"]["status"][:3] for e in answer.json()["entry"]] == ["404", "422", "201", "404"]
        assert (await camille.post("", bundle("transaction", right, unknown))).status_code == 404
        assert (await camille.post("", bundle("batch", {"canary": 1}, unknown))).status_code == 400
        submitted = bundle("transaction", wrong, right) | {"timestamp": "2026-11-25T12:00:00Z"}
        answer = await camille.post("$submit-cgm-bundle", submitted)
        assert [e["response"]["status"][:3] for e in answer.json()["entry"]] == ["422", "200"]
        expected = {("not-found", 404): 3, ("required", 422): 2, ("structure", 400): 1}
        wanted = {f'gateway_refusals_total{{code="{code}",status="{status}"}}': n for (code, status), n in expected.items()}
        for _ in range(100):
            if (found := await refusals()) == wanted:
                break
            await asyncio.sleep(0.2)
        assert found == wanted


def test_an_address_that_cannot_be_had_is_named(mongo_url: str) -> None:
    port = free_port()
    for address, text in (("127.0.0.1", "is not host:port"), ("192.0.2.1:9100", "cannot be listened at")):
        ended = run_apart("serve", "--port", str(port), env=environment(mongo_url, GATEWAY_METRICS=address))
        assert refused(ended).startswith(f"GATEWAY_METRICS: {text}")
