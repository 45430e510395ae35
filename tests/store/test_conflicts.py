"""A transaction that the server asks to repeat until its time is up: 503, whatever the reason was, and nothing is stored."""

import pytest
from pymongo.errors import OperationFailure

from gateway.problem import Problem
from gateway.store.mongo import Session
from tests.world import World, unique

NO_SUCH_TRANSACTION = 251  # what a server says that was killed and is back


async def test_what_cannot_be_repeated_any_more_is_transient(world: World) -> None:
    mongo, mark = world.gateway.mongo, unique("conflict")
    runs = []

    async def work(session: Session) -> None:
        await mongo.insert("meta", [{"_id": f"{mark}-{len(runs)}"}], session)
        runs.append(session)
        details = {"errorLabels": ["TransientTransactionError"]}
        raise OperationFailure("forgotten", NO_SUCH_TRANSACTION, details)

    with pytest.raises(Problem) as refused:
        await mongo.transaction(work, seconds=0.05)
    assert (refused.value.code, refused.value.status) == ("transient", 503)
    assert refused.value.headers == {"Retry-After": "1"}
    assert len(runs) > 1
    assert await mongo.count("meta", {"_id": {"$regex": f"^{mark}"}}) == 0
