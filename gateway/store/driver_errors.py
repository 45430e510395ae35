"""What the errors of the driver mean here.

Knows: which of them say that a key is taken, that others are in the way, that the store cannot be reached. Their texts carry
values of documents and are never passed on. Must not know: what was asked of the store.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
    WTimeoutError,
)

from gateway.problem import Problem
from gateway.telemetry import log

_DUPLICATE_KEY = 11000
_MAX_TIME_EXPIRED = 50
_WRITE_CONFLICT = 112
_TOO_LARGE = 10334


class Stale(Exception):
    """What a write was planned on has changed meanwhile: plan again."""


class Unmatched(Stale):
    """A document of this collection was to be changed and is not there as it was."""

    def __init__(self, collection: str) -> None:
        super().__init__()
        self.collection = collection


class Conflict(Exception):
    """The server asks to repeat the transaction: nothing of it was done. `problem`: what to say if that never ends."""

    def __init__(self, problem: Problem | None = None) -> None:
        super().__init__()
        self.problem = problem


@contextmanager
def instead(otherwise: Callable[[], Problem] | None, contended: Callable[[], Problem] | None) -> Iterator[None]:
    """Raise this Problem in place of the store's; the other one where a transaction is repeated for too long."""
    try:
        yield
    except PyMongoError as error:
        if contended is None or not isinstance(error, OperationFailure) or error.code != _WRITE_CONFLICT:
            raise
        raise Conflict(contended()) from None
    except Problem:
        if otherwise is None:
            raise
        raise otherwise() from None


@contextmanager
def driver_errors(*, transaction: bool = False, tolerated: frozenset[int] = frozenset()) -> Iterator[None]:
    """Turn the driver's errors into Problems. Their texts carry values of documents and are never passed on."""
    try:
        yield
    except DocumentTooLarge:  # found by the driver itself, before anything is sent
        raise _too_long() from None
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in tolerated:
            return
        retriable = error.has_error_label("TransientTransactionError")
        if retriable and transaction:
            raise Conflict from None
        if retriable:
            raise  # inside a transaction: the transaction itself decides
        raise (Stale() if _is_duplicate(error) else _problem_of(error)) from None


def _is_duplicate(error: PyMongoError) -> bool:
    if isinstance(error, BulkWriteError):
        errors = error.details.get("writeErrors", ())
        return bool(errors) and all(e.get("code") == _DUPLICATE_KEY for e in errors)
    return isinstance(error, DuplicateKeyError)


def too_costly() -> Problem:
    """What took longer than it may."""
    return Problem("too-costly", "the request takes too long to answer; narrow it", status=503, headers={"Retry-After": "5"})


def _too_long() -> Problem:
    return Problem("too-long", "the resource is too large to be stored with what it is found by")


def _problem_of(error: PyMongoError) -> Problem:
    code = error.code if isinstance(error, OperationFailure) else None
    if isinstance(error, ExecutionTimeout) or code == _MAX_TIME_EXPIRED:
        return too_costly()
    if code == _TOO_LARGE:
        return _too_long()
    unreachable = isinstance(error, ConnectionFailure | NetworkTimeout | WaitQueueTimeoutError | WTimeoutError)
    if unreachable or error.timeout or error.has_error_label("RetryableError") or error.has_error_label("RetryableWriteError"):
        return Problem("transient", "the store cannot be reached at the moment", headers={"Retry-After": "2"})
    log("store.failed", level=logging.ERROR, detail=f"{type(error).__name__} {code or ''}".strip())
    return Problem("exception", "Internal error")


def require_unknown_outcome(error: PyMongoError, deadline: float) -> None:
    """Return where a commit is to be sent again because nobody knows what became of it; raise where it failed, or in time."""
    if not error.has_error_label("UnknownTransactionCommitResult"):
        raise error
    if time.monotonic() > deadline:
        text = "the outcome of this write is unknown; send it again with the same identifiers"
        raise Problem("timeout", text, headers={"Retry-After": "2"}) from None
