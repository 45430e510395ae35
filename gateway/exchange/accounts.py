"""Accounts of this gateway: who logs in, how often they may try, what a session says.

Knows: the order of these checks, and what the audit says of them. Nobody who fails is told why.
Must not know: HTTP, cookies, pages; what an account may do once it is known whose it is.
"""

import asyncio
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.exchange.call import Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.passwords import find_step, new_second_factor
from gateway.fhir.balp import DONE, REFUSED, Event
from gateway.problem import Problem
from gateway.store import accounts as store
from gateway.store.mongo import Document

PORTAL = "gateway"  # what the audit calls the pages of this gateway, where it names a client
KINDS = {"Patient": "patient", "RelatedPerson": "proxy", "Practitioner": "professional"}
IDLE, LONGEST = timedelta(minutes=30), timedelta(hours=12)
_TO_SHOW_CODE = timedelta(minutes=5)
_LOGIN = re.compile(r"[^\s\x00-\x1f\x7f]{3,254}")
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_REFUSAL_TAKES = 0.3  # seconds; longer than anything that depends on whether there is such an account
_A_WHILE = timedelta(minutes=1)  # between two times that a session in use is put off


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in.

    `references`: the resources that are this person; `level`: how they have shown it (`password`, `second-factor`, or the
    provider where they logged in and what it says of how); `is_complete`: whether all that this account asks for was shown;
    `token`: what may identify the session in an audit; `provider`, `hint`: where they logged in, if not here, and what is shown
    there to log out (sealed); `workplaces`: where a professional works and as what, as that provider says.
    """

    key: bytes
    account: str
    name: str
    references: tuple[str, ...]
    is_operator: bool
    level: str
    began: datetime
    is_complete: bool
    provider: str | None = None
    hint: bytes = b""
    workplaces: tuple[str, ...] = ()

    @property
    def token(self) -> str:
        """A prefix of the hash that the session is stored under."""
        return self.key.hex()[:16]


async def log_in(gateway: Gateway, login: str, password: str, origin: Origin) -> str:
    """Begin a session and return its cookie. Raises Problem `login`, the same and after the same time whatever is wrong."""
    now, loop = gateway.clock(), asyncio.get_running_loop()
    answered = loop.time() + _REFUSAL_TAKES
    account = await store.take_attempt(gateway.mongo, normal_login(login), now)
    known = account["password"] if account is not None else None
    if not await gateway.passwords.check(known, password) or account is None:
        await audit_login(gateway, account, origin, reason="wrong password")
        await asyncio.sleep(answered - loop.time())
        raise _refused()
    if "second_factor" in account:
        return await begin_session(gateway, account, level="password", lasts=_TO_SHOW_CODE, is_complete=False)
    if not await store.settle_attempt(gateway.mongo, account["_id"], now):
        raise _refused()
    await audit_login(gateway, account, origin)
    return await begin_session(gateway, account, level="password")


async def show_code(gateway: Gateway, session: Session, code: str, origin: Origin) -> str:
    """Complete a session by a one-time code: it goes on under the cookie returned. Raises Problem `login`."""
    now = gateway.clock()
    account = await store.take_attempt(gateway.mongo, session.account, now)
    step = None
    if account is not None and "second_factor" in account:
        step = find_step(gateway.sealer.open(bytes(account["second_factor"]), session.account), code, now)
    if account is None or step is None or not await store.settle_attempt(gateway.mongo, session.account, now, step):
        await audit_login(gateway, account, origin, reason="wrong one-time code")
        raise _refused()
    await store.end_session(gateway.mongo, session.key)
    await audit_login(gateway, account, origin)
    return await begin_session(gateway, account, level="second-factor")


async def find_session(gateway: Gateway, cookie: str) -> Session | None:
    """The session of a cookie, None where there is none any more. Being asked for, it goes on."""
    now = gateway.clock()
    found = await store.find_session(gateway.mongo, cookie, now)
    if found is None:
        return None
    if found["complete"] and found["expires"] < min(now + IDLE - _A_WHILE, found["ends"]):
        await store.extend_session(gateway.mongo, found, now, IDLE)
    return Session(
        key=bytes(found["_id"]),
        account=found["account"],
        name=found["name"],
        references=tuple(found["references"]),
        is_operator=found["operator"],
        level=found["level"],
        began=found["began"],
        is_complete=found["complete"],
        provider=found.get("provider"),
        hint=bytes(found.get("hint", b"")),
        workplaces=tuple(found.get("workplaces", ())),
    )


async def log_out(gateway: Gateway, session: Session) -> None:
    """End a session."""
    await store.end_session(gateway.mongo, session.key)


async def add_account(
    gateway: Gateway, login: str, password: str, name: str, references: tuple[str, ...], *, is_operator: bool = False
) -> bytes | None:
    """Store a new account; returns the secret of its second factor, which an operator has. Raises Problem."""
    login = normal_login(login)
    if not _LOGIN.fullmatch(login):
        raise Problem("invalid", "a login has 3 to 254 characters and no spaces")
    if not references and not is_operator:
        raise Problem("invalid", "an account is somebody's: a Patient, a RelatedPerson, a Practitioner, or an operator")
    for reference in references:
        if reference.partition("/")[0] not in KINDS or await store.find_person(gateway.mongo, reference) is None:
            raise Problem("invalid", "an account is that of a Patient, RelatedPerson or Practitioner who is known here")
    secret = new_second_factor() if is_operator else None
    account: Document = {
        "_id": login,
        "name": name.strip() or login,
        "references": list(references),
        "operator": is_operator,
        "password": await gateway.passwords.make(password),
        "locked": False,
        "failures": 0,
        "free": _NEVER,
        "created": gateway.clock(),
    }
    if secret is not None:
        account |= {"second_factor": gateway.sealer.seal(secret, login), "last_step": 0}
    if not await store.add_account(gateway.mongo, account):
        raise Problem("duplicate", "there is an account of this login")
    return secret


async def reset_account(gateway: Gateway, login: str, password: str, *, second_factor: bool = False) -> bytes | None:
    """Give an account another password (and another second factor, whose secret is returned); it is locked no longer."""
    login, secret = normal_login(login), new_second_factor() if second_factor else None
    fields: Document = {"password": await gateway.passwords.make(password), "locked": False, "failures": 0, "free": _NEVER}
    if secret is not None:
        fields |= {"second_factor": gateway.sealer.seal(secret, login), "last_step": 0}
    _require(await store.change_account(gateway.mongo, login, **fields))
    return secret


async def change_password(gateway: Gateway, session: Session, present: str, new: str, origin: Origin) -> str:
    """Give a person another password; every session of theirs ends but the one whose cookie is returned.

    Raises Problem: `login` where the present one is wrong, `invalid` where the new one cannot be.
    """
    now = gateway.clock()
    account = await store.take_attempt(gateway.mongo, session.account, now)
    known = account["password"] if account is not None else None
    if not await gateway.passwords.check(known, present) or account is None:
        await audit_login(gateway, account, origin, reason="wrong password")
        raise _refused()
    await store.settle_attempt(gateway.mongo, session.account, now)
    await store.change_account(gateway.mongo, session.account, password=await gateway.passwords.make(new))
    return await begin_session(gateway, account, level=session.level)


async def lock_account(gateway: Gateway, login: str) -> None:
    """Let nobody in by this account any more; who is in, is out."""
    _require(await store.change_account(gateway.mongo, normal_login(login), locked=True))


def _require(found: bool) -> None:
    if not found:
        raise Problem("not-found", "there is no account of this login")


async def begin_session(
    gateway: Gateway,
    account: Document,
    *,
    level: str,
    lasts: timedelta = IDLE,
    is_complete: bool = True,
    elsewhere: Document | None = None,
) -> str:
    """Begin a session under a new cookie, which is returned. `elsewhere`: the provider where they logged in, and the hint."""
    cookie, now = secrets.token_urlsafe(32), gateway.clock()
    fields: Document = {
        "account": account["_id"],
        "name": account["name"],
        "references": account["references"],
        "operator": account["operator"],
        "level": level,
        "complete": is_complete,
        "began": now,
        "expires": now + lasts,
        "ends": now + (LONGEST if is_complete else lasts),
        **(elsewhere or {}),
    }
    await store.put_session(gateway.mongo, cookie, fields)
    return cookie


async def audit_login(
    gateway: Gateway,
    account: Document | None,
    origin: Origin,
    reason: str | None = None,
    subject: tuple[str, ...] = (),
) -> None:
    """Leave an event for who logged in or was refused. Of an account that is not there (or not due) there is none to leave:
    strangers could fill the audit. `subject`: who they are to the provider where they logged in.
    """
    if account is None:
        return
    references = account["references"]
    patient = next((r.partition("/")[2] for r in references if r.startswith("Patient/")), None)
    kind = KINDS[references[0].partition("/")[0]] if references else "operator"
    event = Event(
        interaction="login",
        type=None,
        patient=patient,
        outcome=REFUSED if reason else DONE,
        client=PORTAL,
        kind=kind,
        user=references[0] if references else None,
        purpose=None,
        token="",
        request_id=origin.request_id,
        address=origin.address,
        reason=reason,
        subject=subject,
    )
    await gateway.audit.record([event], gateway.clock())


def normal_login(login: str) -> str:
    """A login as it is stored: however it is typed, it is the same."""
    return unicodedata.normalize("NFKC", login).strip().casefold()


def _refused() -> Problem:
    return Problem("login", "login, password or code are wrong, or it was tried too often")
