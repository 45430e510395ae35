"""The Consents by which the professional and the paired app of a run do what they do: active while checks run, then as before.

Knows: who may change it, and that it may be inactive. Must not know: what is checked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from gateway.conformance.target import Target
from gateway.conformance.wire import FHIR_JSON

_TIMEOUT = 30.0
_ACTIVE = "active"


@contextmanager
def consent_given(target: Target) -> Iterator[None]:
    """Have the Consents of the target active, and put back the status they had. Where that fails, checks say what is wrong."""
    token = target.tokens.get("owner")
    if token is None or not target.consents:
        yield
        return
    headers = {"accept": FHIR_JSON, "content-type": FHIR_JSON, "authorization": f"Bearer {token}"}
    with httpx.Client(timeout=_TIMEOUT, trust_env=False, headers=headers) as http:
        urls = [f"{target.base}/Consent/{name}" for name in target.consents]
        formers = [_set_status(http, url, _ACTIVE) for url in urls]
        try:
            yield
        finally:
            for url, former in zip(urls, formers, strict=True):
                if former is not None and former != _ACTIVE:
                    _set_status(http, url, former)


def _set_status(http: httpx.Client, url: str, status: str) -> str | None:
    """The status it had before; None where there is no such Consent to read."""
    try:
        answer = http.get(url)
        told: Any = answer.json() if answer.status_code == 200 else None
        if not isinstance(told, dict):
            return None
        if told.get("status") != status:
            http.put(url, json={**told, "status": status})
    except (httpx.HTTPError, ValueError):
        return None
    former = told.get("status")
    return former if isinstance(former, str) else None
