"""The Consent by which the professional of a run reads: active while checks run, afterwards as it was.

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
    """Have the Consent of the target active, and put back the status it had. Where that fails, the checks say what is wrong."""
    token = target.tokens.get("owner")
    if target.consent is None or token is None:
        yield
        return
    url = f"{target.base}/Consent/{target.consent}"
    headers = {"accept": FHIR_JSON, "content-type": FHIR_JSON, "authorization": f"Bearer {token}"}
    with httpx.Client(timeout=_TIMEOUT, trust_env=False, headers=headers) as http:
        former = _set_status(http, url, _ACTIVE)
        try:
            yield
        finally:
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
