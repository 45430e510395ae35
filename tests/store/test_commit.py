"""Commits: whoever waits at the same time goes together, and one who cannot go fails nobody else."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from gateway.exchange.standing import authenticate
from gateway.problem import Problem
from gateway.store.change import Change, Plan
from gateway.store.commit import Work
from gateway.store.gather import Gather
from gateway.store.mongo import Stale
from gateway.store.standing import About
from tests.world import Actor, World, bundle, consent, document, entry, issues, label, observation, unique


@pytest.fixture
def groups(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many writers went together, group by group."""
    found: list[int] = []
    gather = world.gateway.committer._gather
    original: Callable[[list[Work]], Awaitable[Any]] = gather._answer

    async def answer(group: list[Work]) -> Any:
        found.append(len(group))
        return await original(group)

    monkeypatch.setattr(gather, "_answer", answer)
    return found


async def test_writers_who_wait_at_the_same_time_share_a_transaction(world: World, groups: list[int]) -> None:
    owner = await world.patient()
    groups.clear()
    made = await asyncio.gather(*(owner.create(observation(owner.patient)) for _ in range(20)))
    assert len({r["id"] for r in made}) == 20
    assert sum(groups) == 20
    assert max(groups) > 1
    stored = await world.stored("Observation", patient=owner.patient)
    assert len({d["commit"] for d in stored}) == len(groups)


async def test_conditional_creates_go_together_unless_one_meets_the_condition_of_another(
    world: World, groups: list[int]
) -> None:
    owner = await world.patient()
    groups.clear()
    tokens = [unique("c") for _ in range(12)]

    def ask(token: str) -> Awaitable[Any]:
        elsewhere = [{"attachment": {"url": "https://elsewhere.example/a"}}]
        paper = document(owner.patient, identifier=[{"system": "urn:x", "value": token}], content=elsewhere)
        return owner.post("DocumentReference", paper, If_None_Exist=f"identifier=urn:x|{token}")

    answers = await asyncio.gather(*(ask(token) for token in tokens))
    assert {a.status_code for a in answers} == {201}
    assert max(groups) > 1
    token = unique("c")
    answers = await asyncio.gather(*(ask(t) for t in (unique("c"), token, unique("c"), token, unique("c"), token)))
    statuses = [a.status_code for a in answers]
    assert statuses[::2] == [201] * 3
    assert sorted(statuses[1::2]) == [200, 200, 201]
    assert len({a.headers["Location"] for a in answers[1::2]}) == 1


async def test_one_who_cannot_go_fails_nobody_else(world: World, groups: list[int]) -> None:
    """Among good writers: one with a known identifier and other content, one without rights, one that is not valid."""
    owner, stranger = await world.patient(), await world.professional("user/*.r user/Observation.c")
    known = observation(owner.patient)
    same = observation(owner.patient, identifier=known["identifier"], status="amended")
    groups.clear()
    good = [owner.post("Observation", observation(owner.patient)) for _ in range(8)]
    bad = [
        owner.post("Observation", known),
        owner.post("Observation", same),
        owner.post("Observation", observation(owner.patient, colour="red")),
        stranger.post("Observation", observation("000-none")),
    ]
    answers = await asyncio.gather(*good[:4], *bad, *good[4:])
    statuses = [a.status_code for a in answers]
    assert statuses[:4] + statuses[8:] == [201] * 8
    assert sorted(statuses[4:6]) == [201, 409]
    assert statuses[6:8] == [400, 422]
    assert len(await world.stored("Observation", patient=owner.patient)) == 9


async def test_equal_writers_in_one_group_make_one_resource(world: World, groups: list[int]) -> None:
    owner = await world.patient()
    reading = observation(owner.patient)
    others = [observation(owner.patient) for _ in range(6)]
    answers = await asyncio.gather(
        *(owner.post("Observation", r) for r in (reading, *others[:3], reading, reading, *others[3:]))
    )
    statuses = [a.status_code for a in answers]
    assert sorted(statuses[i] for i in (0, 4, 5)) == [200, 200, 201]
    assert [s for i, s in enumerate(statuses) if i not in (0, 4, 5)] == [201] * 6
    assert len({answers[i].headers["Location"] for i in (0, 4, 5)}) == 1


@pytest.mark.parametrize("interaction", ["create", "update"])
async def test_a_client_who_goes_away_breaks_nothing(world: World, interaction: str) -> None:
    """What it asked for is either there with its audit, or not there at all; the others are answered."""
    owner = await world.patient()
    made = await owner.create(observation(owner.patient))

    def ask() -> Awaitable[Any]:
        if interaction == "create":
            return owner.post("Observation", observation(owner.patient))
        return owner.put(f"Observation/{made['id']}", made)

    for steps in (1, 3, 6, 10, 20):
        tasks = [asyncio.ensure_future(ask()) for _ in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert {a.status_code for n, a in enumerate(answers) if n != 1} <= {200, 201}
    assert (await ask()).status_code in (200, 201)
    await _check_audited(world, owner)


async def _check_audited(world: World, owner: Actor) -> None:
    """Each commit of the record is that of a stored version, and an event names it."""
    stored = [
        *await world.stored("Observation", patient=owner.patient),
        *await world.stored("Observation_history", patient=owner.patient),
    ]
    head = (await world.stored("heads", _id=owner.patient))[0]
    assert {d["commit"] for d in stored} | {1} == set(range(1, head["commit"] + 1))
    told = {str(e["event"]) for e in await world.stored("AuditEvent", patient=owner.patient)}
    for resource in {str(d.get("id", d["_id"])) for d in stored}:
        assert any(resource in text for text in told)


async def test_a_record_that_is_written_to_too_often_is_said_to_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await world.patient()
    attempts: list[Work] = []

    async def commit(_: Any, work: Work) -> Any:
        attempts.append(work)
        raise Stale

    before = await world.fingerprint()
    monkeypatch.setattr(type(world.gateway.committer), "commit", commit)
    answer = await owner.post("Observation", observation(owner.patient))
    assert (answer.status_code, issues(answer)[0]["code"]) == (503, "transient")
    assert answer.headers["Retry-After"] == "1"
    assert 2 <= len(attempts) <= 100
    assert await world.fingerprint() == before


async def test_a_plan_made_on_outdated_documents_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking up and committing somebody else updates, creates the same, or deletes."""
    owner = await world.patient()
    reading = observation(owner.patient)
    made = await owner.create(observation(owner.patient))
    address = f"Observation/{made['id']}"
    committer = type(world.gateway.committer)
    original = committer.commit
    intruders: list[Callable[[], Awaitable[Any]]] = []

    async def commit(self: Any, work: Work) -> Any:
        if intruders:
            await intruders.pop()()
        return await original(self, work)

    monkeypatch.setattr(committer, "commit", commit)
    intruders.append(lambda: owner.put(address, made))
    assert (await owner.put(address, made)).json()["meta"]["versionId"] == "3"
    intruders.append(lambda: owner.put(address, made))
    assert (await owner.put(address, made, If_Match='W/"3"')).status_code == 412
    intruders.append(lambda: owner.post("Observation", reading))
    assert (await owner.post("Observation", reading)).status_code == 200
    intruders.append(lambda: owner.put(address, made))
    assert (await owner.delete(address, If_Match='W/"4"')).status_code == 412
    token = unique("c")
    paper = document(owner.patient, identifier=[{"system": "urn:x", "value": token}])
    intruders.append(lambda: owner.post("DocumentReference", paper))
    assert (await owner.post("DocumentReference", paper, If_None_Exist=f"identifier=urn:x|{token}")).status_code == 200
    intruders.append(lambda: owner.delete(address))
    assert (await owner.put(address, made)).status_code == 410
    assert not intruders


@pytest.mark.parametrize("hidden", ["former", "new"])
async def test_the_store_itself_refuses_what_the_writer_may_not_write(world: World, hidden: str) -> None:
    """Whoever made the plan: both what is replaced and what replaces it must be the writer's to write."""
    gateway = world.gateway
    owner, doctor = await world.patient(), await world.professional()
    restricted = {"security": [label("R")]}
    made = await owner.create(observation(owner.patient, **({"meta": restricted} if hidden == "former" else {})))
    await owner.create(consent(owner, doctor, "correct", type="deny", securityLabel=restricted["security"]))
    [former] = await world.stored("Observation", _id=made["id"])
    kind, resource = gateway.registry["Observation"], gateway.codec.load("Observation", former["body"])
    values = {"search": former["search"]}
    if hidden == "new":
        values["labels"] = ["http://terminology.hl7.org/CodeSystem/v3-Confidentiality|R"]
    facts = {"id": made["id"], "head": former["patient"], "patient": former["patient"], "source": former["source"]}
    change = Change(kind, "update", **facts, resource=resource, values=values, former=former)
    access = await authenticate(gateway, doctor.token, About(patient=owner.patient))
    before = await world.fingerprint()
    with pytest.raises(Problem) as refused:
        await gateway.committer.commit(Work(access, Plan([change]), lambda _: ()))
    assert refused.value.code == "not-found"
    assert await world.fingerprint() == before


async def test_who_writes_much_at_once_keeps_nobody_in_its_transaction(world: World, groups: list[int]) -> None:
    owner, other = [await world.patient() for _ in range(2)]
    groups.clear()
    asked = [
        bundle("transaction", *(entry("POST", "Observation", observation(owner.patient)) for _ in range(600))) for _ in range(3)
    ]
    many = [owner.post("", one) for one in asked]
    few = [other.post("Observation", observation(other.patient)) for _ in range(3)]
    answers = await asyncio.gather(*many, *few)
    assert {a.status_code for a in answers} == {200, 201}
    assert sum(groups) == len(few)
    assert len({d["_id"] for d in await world.stored("Observation", patient=owner.patient)}) == 1_800


async def test_one_problem_met_by_two_writers_names_the_records_of_each(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = [await world.patient() for _ in range(2)]
    shared = Problem("transient", "the store cannot be reached at the moment")

    async def commit(_: Any, work: Work) -> Any:
        raise shared

    monkeypatch.setattr(type(world.gateway.committer), "commit", commit)
    for owner in owners:
        assert (await owner.post("Observation", observation(owner.patient))).status_code == 503
    assert shared.records == ()
    for owner in owners:
        refusals = [
            e for e in await world.stored("AuditEvent", patient=owner.patient) if "cannot be reached" in str(e["event"])
        ]
        assert len(refusals) == 1


# How requests gather, by itself.


async def _answer_after(release: asyncio.Event, questions: list[int]) -> Sequence[int | Exception]:
    await release.wait()
    return [ValueError(str(q)) if q < 0 else q * 2 for q in questions]


async def test_each_question_of_a_group_gets_its_own_answer() -> None:
    release, taken = asyncio.Event(), []

    async def answer(questions: list[int]) -> Sequence[int | Exception]:
        taken.append(list(questions))
        return await _answer_after(release, questions)

    gather: Gather[int, int] = Gather(answer)
    tasks = [asyncio.ensure_future(gather.ask(n)) for n in (1, 2, -3, 4)]
    await asyncio.sleep(0)
    late = asyncio.ensure_future(gather.ask(5))
    release.set()
    assert await asyncio.gather(*tasks, late, return_exceptions=True) == [2, 4, tasks[2].exception(), 8, 10]
    assert isinstance(tasks[2].exception(), ValueError)
    assert sum(map(len, taken)) == 5


async def test_a_group_holds_what_it_may_weigh_and_one_that_is_heavier_goes_alone() -> None:
    taken: list[list[int]] = []

    async def answer(questions: list[int]) -> list[int]:
        taken.append(list(questions))
        return questions

    gather: Gather[int, int] = Gather(answer, most=10, weigh=lambda q: q)
    assert await asyncio.gather(*(gather.ask(n) for n in (50, 4, 4, 4, 9, 1))) == [50, 4, 4, 4, 9, 1]
    assert taken == [[50], [4, 4], [4], [9, 1]]


async def test_a_failing_group_fails_its_own_questions_only() -> None:
    async def answer(questions: list[int]) -> list[int]:
        if 1 in questions:
            raise Problem("transient", "down")
        return questions

    gather: Gather[int, int] = Gather(answer, most=1)
    found = await asyncio.gather(*(gather.ask(n) for n in (0, 1, 2)), return_exceptions=True)
    assert [found[0], found[2]] == [0, 2]
    assert isinstance(found[1], Problem)


async def test_a_question_given_up_is_no_matter_for_the_others() -> None:
    release = asyncio.Event()
    gather: Gather[int, int] = Gather(lambda questions: _answer_after(release, questions))
    tasks = [asyncio.ensure_future(gather.ask(n)) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    release.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[1] == 4
    assert isinstance(found[0], asyncio.CancelledError)
    assert await gather.ask(7) == 14
