"""Documents as people deposit them: bytes that look like a PDF, and what attaches them.

Knows: how they are made and sent. Must not know: how the gateway answers.
"""

import hashlib
import json
import random
from base64 import b64encode
from typing import Any

import httpx

from tests.world import BASE, JSON, Actor, bundle, document, entry, unique

PDF = "application/pdf"


def pdf(size: int = 1_000, seed: Any = None) -> bytes:
    """Bytes that begin like a PDF, and that no other test has."""
    head = b"%PDF-1.7\n" + unique("paper").encode() if seed is None else f"%PDF-1.7\n{seed}".encode()
    return head + random.Random(repr(seed)).randbytes(size - len(head))


def sha1(content: bytes) -> str:
    return b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()


def binary(content: bytes, media: str = PDF, **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Binary", "contentType": media, "data": b64encode(content).decode(), **elements}


def attaching(owner: str, url: str, content: bytes | None = None, **elements: Any) -> dict[str, Any]:
    """A DocumentReference of a patient (by id) that attaches what is at `url`; `content`: to be claimed by hash and size."""
    claims = {} if content is None else {"contentType": PDF, "size": len(content), "hash": sha1(content)}
    return document(owner, content=[{"attachment": {"url": url, **claims}}], **elements)


def deposit(owner: str, content: bytes, **elements: Any) -> dict[str, Any]:
    """The transaction that deposits a document with its content."""
    name = f"urn:uuid:{unique('00000000-0000-4000-8000')}"
    return bundle(
        "transaction",
        entry("POST", "DocumentReference", attaching(owner, name, content, **elements)),
        entry("POST", "Binary", binary(content), full_url=name),
    )


def ids_of(answer: httpx.Response) -> list[str]:
    """The `Type/id` of each entry of a transaction that must have succeeded."""
    assert answer.status_code == 200, answer.text
    return [one["response"]["location"].partition("/_history")[0] for one in answer.json()["entry"]]


async def deposited(actor: Actor, owner: str, content: bytes, **elements: Any) -> tuple[str, str]:
    """Deposit; returns DocumentReference/id and Binary/id."""
    made, raw = ids_of(await actor.post("", deposit(owner, content, **elements)))
    return made, raw


async def send_raw(actor: Actor, content: Any, media: str = PDF, **headers: str) -> httpx.Response:
    """POST the bytes themselves."""
    sent = {"Authorization": f"Bearer {actor.token}", "Content-Type": media, "Accept": JSON}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await actor.http.post(f"{BASE}/Binary", content=content, headers=sent)


__all__ = ["JSON", "PDF", "attaching", "binary", "deposit", "deposited", "ids_of", "json", "pdf", "send_raw", "sha1"]
