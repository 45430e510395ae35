"""What people know and have: passwords (argon2id) and one-time codes.

Knows: how both are made and checked, and that checking costs the same whether there is anything to check against.
Must not know: whose they are, where they are kept.
"""

import asyncio
import hmac
import secrets
import string
from base64 import b32encode
from datetime import datetime
from urllib.parse import quote, urlencode

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.problem import Problem

SHORTEST, LONGEST = 12, 256  # characters
_AT_ONCE = 2  # each takes a core and 46 MB
_MOST_WAITING = 64
_STEP = 30  # seconds
_DIGITS = 6
_ALPHABET = string.ascii_letters + string.digits


class Passwords:
    """Hashes and checks passwords beside the event loop, a few at a time."""

    def __init__(self) -> None:
        # https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#argon2id
        self._hasher = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1)
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._nobodys: str | None = None

    async def make(self, password: str) -> str:
        """The hash to store. Raises Problem for a password that is too short or too long."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise Problem("invalid", f"a password has {SHORTEST} to {LONGEST} characters")
        return await self._run(password, None)

    async def check(self, known: str | None, password: str) -> bool:
        """Whether the password is the one behind this hash. Without one it takes as long, and it never is."""
        if self._nobodys is None:
            self._nobodys = await self._run(secrets.token_urlsafe(16), None)
        told = await self._run(password[:LONGEST], known or self._nobodys)
        return bool(told) and known is not None and len(password) <= LONGEST

    async def _run(self, password: str, known: str | None) -> str:
        """The hash of a password or, where one is `known`, that one if it is the password's (else nothing)."""
        if self._waiting >= _MOST_WAITING:
            raise Problem("transient", "too many people are logging in at this moment", headers={"Retry-After": "5"})
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(self._work, password, known)
        finally:
            self._waiting -= 1

    def _work(self, password: str, known: str | None) -> str:
        if known is None:
            return self._hasher.hash(password)
        try:
            self._hasher.verify(known, password)
        except (VerificationError, InvalidHashError):
            return ""
        return known


def new_password() -> str:
    """A password that nobody has thought of."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))


def new_second_factor() -> bytes:
    """The secret of a generator of one-time codes."""
    return secrets.token_bytes(20)


def code_at(secret: bytes, step: int) -> str:
    """The code of a step of time (https://www.rfc-editor.org/rfc/rfc6238, SHA-1 and six digits as all generators have them)."""
    digest = hmac.digest(secret, step.to_bytes(8), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4]) & 0x7FFF_FFFF
    return f"{number % 10**_DIGITS:0{_DIGITS}}"


def find_step(secret: bytes, code: str, now: datetime) -> int | None:
    """The step whose code this is: the present one or a neighbour, as clocks differ. None where it is none of them."""
    present = step_at(now)
    given = code.replace(" ", "").encode()
    matching = [
        step for step in (present, present - 1, present + 1) if hmac.compare_digest(code_at(secret, step).encode(), given)
    ]
    return matching[0] if matching else None


def step_at(moment: datetime) -> int:
    """The step of time that this moment belongs to."""
    return int(moment.timestamp()) // _STEP


def second_factor_uri(secret: bytes, issuer: str, login: str) -> str:
    """The address by which a generator of codes takes over a secret (otpauth, as generators commonly read it)."""
    query = urlencode({"secret": second_factor_text(secret), "issuer": issuer, "digits": _DIGITS, "period": _STEP})
    return f"otpauth://totp/{quote(f'{issuer}:{login}')}?{query}"


def second_factor_text(secret: bytes) -> str:
    """The secret as it is typed in, in base 32; its length needs no padding."""
    return b32encode(secret).decode()
