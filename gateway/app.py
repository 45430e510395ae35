"""The whole system, wired from top to bottom.

Knows: which part is made of which. Must not know: what any of them does.
"""

import asyncio
import functools
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fastapi import FastAPI
from starlette.types import Scope as Asked

from gateway import __version__
from gateway.access.policy import Policy, read_policy
from gateway.access.scope import Scope, parse_scopes
from gateway.api.binary import is_transfer
from gateway.api.description import build_description
from gateway.api.edge import Edge
from gateway.api.presentation import Presentation
from gateway.api.proxied import Proxied
from gateway.api.routes import add_routes, route_pattern
from gateway.exchange.catalogue import REFERENCED
from gateway.exchange.cursor import Cursors
from gateway.exchange.gateway import Gateway
from gateway.exchange.lanes import Lanes
from gateway.exchange.misses import Misses
from gateway.exchange.passwords import Passwords
from gateway.exchange.patient_keys import MasterKey, PatientKeys
from gateway.exchange.perform import check_operations
from gateway.exchange.refresh_tokens import RefreshTokens
from gateway.exchange.sealer import Sealer
from gateway.exchange.standing import head_facts, read_provision
from gateway.exchange.throttle import Throttle
from gateway.fhir.bindings import check_bindings
from gateway.fhir.codec import Codec
from gateway.fhir.identifiers import Identifiers, System, read_systems
from gateway.fhir.identity import Identities
from gateway.fhir.index import Index
from gateway.fhir.media import MediaTypes, read_media_types
from gateway.fhir.plausible import Plausibility, read_plausibility
from gateway.fhir.references import References
from gateway.fhir.registry import Registry
from gateway.fhir.registry_reading import read_registry
from gateway.fhir.search import Reading
from gateway.fhir.submissions import Submissions, read_submissions
from gateway.fhir.subset import Subsets
from gateway.fhir.types import Types
from gateway.fhir.xml_read import XmlReader
from gateway.fhir.xml_shape import Shapes
from gateway.fhir.xml_write import XmlWriter
from gateway.issuers.files import Checks, Issuer, read_issuers
from gateway.issuers.issuers import Issuers
from gateway.issuers.openid import Providers
from gateway.issuers.providers import Provider, read_providers
from gateway.jobs.measure import measure
from gateway.jobs.seal import end_audit, seal_audit
from gateway.jobs.sweep import sweep
from gateway.mesures.measures import Measures, read_measures
from gateway.mesures.routes import add_mesures, mesures_pattern
from gateway.metrics import Metrics
from gateway.oauth.cors import Cors
from gateway.oauth.metadata import security_uris
from gateway.oauth.routes import OPEN, add_oauth, oauth_pattern, offered, serving_oauth
from gateway.scanner import Scanner
from gateway.schemas import find_schemas
from gateway.settings import Allowance, Limits, Rate, Settings, read_gateway_file, read_networks, read_settings
from gateway.store.audit import AuditWriter
from gateway.store.catalogue import Clients, find_origins
from gateway.store.commit import Committer
from gateway.store.ids import Ids
from gateway.store.lookups import Lookups
from gateway.store.mongo import Mongo
from gateway.store.receipts import Receipts
from gateway.store.schema import (
    StoreError,
    create_missing_indexes,
    find_problems,
    find_topology_problems,
    prepare,
    what_to_do,
)
from gateway.store.standing import Standings
from gateway.telemetry import EVENTS, log, set_up_logging
from gateway.web.pages import Pages
from gateway.web.routes import add_pages, page_pattern
from gateway.web.texts import Texts, read_texts


def now() -> datetime:
    """The present time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Schemas:
    """Everything that `schemas/` says."""

    limits: Limits
    rates: Mapping[str, Rate]
    visitors: Mapping[str, Allowance]
    registry: Registry
    policy: Policy
    texts: Mapping[str, Texts]
    media_types: MediaTypes
    submissions: Submissions
    plausible: Plausibility
    measures: Measures
    identifier_systems: Mapping[str, System]


def read_schemas(folder: Path) -> Schemas:
    """Read and check the data files. Raises SchemaError naming file and key."""
    file = read_gateway_file(folder)
    types = Types(file.bindings, file.limits.string_length)
    check_bindings(folder, types, file.bindings)
    registry = read_registry(folder, types)
    check_operations(folder, registry)
    return Schemas(
        limits=file.limits,
        rates=file.rates,
        visitors=file.visitors,
        registry=registry,
        policy=read_policy(folder, registry),
        texts=read_texts(folder),
        media_types=read_media_types(folder),
        submissions=read_submissions(folder, registry),
        plausible=read_plausibility(folder),
        measures=read_measures(folder),
        identifier_systems=read_systems(folder),
    )


def read_own_issuers(schemas: Schemas, folder: Path | None, networks: str, base_url: str) -> list[Issuer]:
    """The issuers in this folder, checked. Raises SchemaError naming file and key."""
    reading = Reading(now=now(), or_values=schemas.limits.or_values, patients={})
    scopes = functools.partial(parse_scopes, schemas.registry, reading=reading)
    return read_issuers(folder, Checks(schemas.registry, scopes, read_networks(networks), base_url))


def read_own_providers(schemas: Schemas, folder: Path | None, networks: str, base_url: str) -> list[Provider]:
    """The OpenID providers in this folder, checked. Raises SchemaError naming file and key."""
    return read_providers(folder, schemas.registry, read_networks(networks), base_url, schemas.texts)


def build_gateway(settings: Settings, schemas: Schemas, ids: Ids, clock: Callable[[], datetime] = now) -> Gateway:
    """The parts, put together; nothing is asked of the database yet."""
    limits, registry, mongo = schemas.limits, schemas.registry, _connect(settings)
    networks, reach = settings.outbound_networks, read_networks(settings.outbound_networks)
    codec, audit = Codec(registry.types, depth=limits.depth, explain_bytes=limits.explain_bytes), AuditWriter(mongo, ids)

    @functools.lru_cache(maxsize=1_024)
    def scopes(text: str) -> tuple[Scope, ...]:
        # A scope's query part knows no dates relative to now and no patients, so parsing it once is enough.
        return parse_scopes(registry, text, Reading(now=clock(), or_values=limits.or_values, patients={}))

    read = functools.partial(read_provision, codec, registry)
    return Gateway(
        settings=settings,
        limits=limits,
        registry=registry,
        codec=codec,
        xml=XmlReader(Shapes(registry.types), limits.depth),
        references=References(registry.types, codec),
        index=Index(registry, schemas.policy.labels.systems, codec, schemas.policy.labels.spellings),
        subsets=Subsets(registry.types),
        identities=Identities(registry),
        policy=schemas.policy,
        plausible=schemas.plausible,
        ids=ids,
        mongo=mongo,
        issuers=Issuers(read_own_issuers(schemas, settings.issuers, networks, settings.base_url), reach),
        providers=Providers(read_own_providers(schemas, settings.providers, networks, settings.base_url), reach),
        clients=Clients(mongo),
        standings=Standings(mongo, registry),
        lookups=Lookups(mongo),
        receipts=Receipts(mongo, settings.secret),
        audit=audit,
        committer=Committer(mongo, audit, codec.encode, head_facts, limits.request_seconds / 2, clock),
        cursors=Cursors(settings.secret),
        misses=Misses(),
        media_types=schemas.media_types,
        identifiers=Identifiers(schemas.identifier_systems, with_test=settings.has_test_identities),
        scanner=Scanner(settings.clamd) if settings.clamd else None,
        submissions=schemas.submissions,
        patient_keys=PatientKeys(mongo, MasterKey(settings.wrapping_secret, settings.former_master_key)),
        throttle=Throttle(schemas.rates, schemas.visitors) if settings.rates == "on" else Throttle({}, {}),
        lanes=Lanes(limits.lanes, limits.lane_bytes),
        passwords=Passwords(),
        sealer=Sealer(settings.secret, b"gateway-seal"),
        refresh_tokens=RefreshTokens(settings.secret),
        clock=clock,
        scopes=scopes,
        provision_of=functools.lru_cache(maxsize=4_096)(read),
    )


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Gateway]:
    """The gateway with its database prepared and its jobs at work; everything is sealed and closed at the end."""
    try:
        await prepare(gateway.mongo, gateway.registry, gateway.settings.secret)
        await gateway.audit.open(gateway.clock())
        jobs = [asyncio.create_task(job(gateway)) for job in (seal_audit, sweep)]
        try:
            yield gateway
        finally:
            for job in jobs:
                job.cancel()
                with suppress(asyncio.CancelledError):
                    await job
            await end_audit(gateway)
    finally:
        await gateway.issuers.close()
        await gateway.providers.close()
        await gateway.mongo.close()


@asynccontextmanager
async def attached(settings: Settings, schemas: Schemas | None = None) -> AsyncIterator[Gateway]:
    """The parts for a command that serves nothing: connected, with no job running. `schemas`: if they are read already."""
    gateway = build_gateway(settings, schemas or read_schemas(settings.schemas), Ids(settings.secret))
    try:
        yield gateway
    finally:
        if gateway.audit.is_open:
            await end_audit(gateway)
        await gateway.issuers.close()
        await gateway.providers.close()
        await gateway.mongo.close()


async def prepare_store(settings: Settings) -> None:
    """Check the topology; create what a new database lacks and check the rest. Raises StoreError."""
    async with attached(settings) as gateway:
        problems = await find_topology_problems(gateway.mongo)
        if problems:
            raise StoreError("; ".join(problems))
        await prepare(gateway.mongo, gateway.registry, settings.secret)


async def check_system(
    environ: Mapping[str, str], *, create_indexes: bool, call_issuers: bool = False
) -> tuple[list[str], bool]:
    """What `gateway check` says, line by line, and whether everything is as it must be."""
    schemas = read_schemas(Path(environ["GATEWAY_SCHEMAS"]) if environ.get("GATEWAY_SCHEMAS") else find_schemas())
    registry = schemas.registry
    lines = [f"schemas: {len(registry.resource_types)} types, {len(registry.profiles)} profiles"]
    said, is_sound = await _check_others(schemas, environ, call=call_issuers)
    lines += said
    if not environ.get("GATEWAY_MONGO_URL"):
        return [*lines, "settings, topology, indexes: not checked (GATEWAY_MONGO_URL is not set)"], is_sound
    settings = read_settings(environ)
    lines.append("settings: sound")
    async with attached(settings, schemas) as gateway:
        problems = await find_topology_problems(gateway.mongo)
        if not problems and create_indexes:
            lines += [f"created index {name}" for name in await create_missing_indexes(gateway.mongo, registry)]
        if not problems:
            problems = await find_problems(gateway.mongo, registry)
            problems += what_to_do(problems)
    return [*lines, *(problems or ["topology and indexes: sound"])], is_sound and not problems


async def _check_others(schemas: Schemas, environ: Mapping[str, str], *, call: bool) -> tuple[list[str], bool]:
    """What is said of the issuers whose tokens hold here, and of the providers with which people log in."""
    networks, base_url = environ.get("GATEWAY_OUTBOUND_NETWORKS", ""), environ.get("GATEWAY_BASE_URL", "")
    lines, is_sound = list[str](), True
    if environ.get("GATEWAY_ISSUERS"):
        issuers = read_own_issuers(schemas, Path(environ["GATEWAY_ISSUERS"]), networks, base_url)
        lines.append(f"issuers: {', '.join(issuer.name for issuer in issuers)}")
        if call:
            is_sound = await _try_out("issuer", Issuers(issuers, read_networks(networks)), lines)
    if environ.get("GATEWAY_PROVIDERS"):
        providers = read_own_providers(schemas, Path(environ["GATEWAY_PROVIDERS"]), networks, base_url)
        lines.append(f"providers: {', '.join(provider.name for provider in providers)}")
        if call:
            is_sound = await _try_out("provider", Providers(providers, read_networks(networks)), lines) and is_sound
    return lines, is_sound


async def _try_out(kind: str, others: Issuers | Providers, lines: list[str]) -> bool:
    """Ask each of them once; whether all answered as they must."""
    try:
        answers = [answer async for answer in others.try_out(now())]
    finally:
        await others.close()
    lines += [f"{kind} {name}: {text}" for name, text, _ in answers]
    return all(is_well for _, _, is_well in answers)


def create_app(
    settings: Settings | None = None, clock: Callable[[], datetime] = now, schemas: Schemas | None = None
) -> FastAPI:
    """The application. Without settings they are read from the environment (so uvicorn's workers can call this).

    `schemas`: if they are read already.
    """
    settings = settings or read_settings()
    set_up_logging(settings.log_level)
    schemas = schemas or read_schemas(settings.schemas)
    metadata, metrics = offered(schemas.registry, settings), Metrics(EVENTS)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            running(build_gateway(settings, schemas, Ids(settings.secret), clock)) as gateway,
            serving_oauth(app, gateway, metadata),
        ):
            app.state.gateway = gateway
            _spare_the_collector()
            log("started", version=__version__)
            async with _measured(gateway, metrics):
                yield
            log("stopped")

    # No telemetry of the framework's own: its spans would carry query strings.
    app = FastAPI(
        title="FHIR document gateway",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    add_routes(app)
    add_oauth(app, settings)
    add_mesures(app, schemas.measures)
    add_pages(app, Pages(settings, schemas.texts))
    app.state.security_uris = security_uris(metadata)
    app.state.openapi = build_description(schemas.registry, schemas.limits, settings.base_url, app.routes)
    transfers = functools.partial(is_transfer, schemas.registry, schemas.limits.body_bytes)
    routes = functools.partial(_route_of, schemas.registry)
    app.add_middleware(Edge, limits=schemas.limits, metrics=metrics, route_of=routes, is_transfer=transfers)
    app.add_middleware(Presentation, writer=XmlWriter(Shapes(schemas.registry.types)))
    proxies = read_networks(settings.trusted_proxies, "GATEWAY_TRUSTED_PROXIES")
    app.add_middleware(Cors, everybody=OPEN, shared=("/fhir", "/oauth/"), find=_origins)
    if proxies:
        app.add_middleware(Proxied, proxies=proxies, certificate_header=settings.certificate_header)
    return app


def _route_of(registry: Registry, scope: Asked) -> str:
    of_page = None if scope["path"].startswith("/fhir/") else page_pattern(scope)
    return oauth_pattern(scope) or of_page or mesures_pattern(scope) or route_pattern(registry, scope)


@asynccontextmanager
async def _measured(gateway: Gateway, metrics: Metrics) -> AsyncIterator[None]:
    """With numbers laid down for whoever tells them, where anybody does."""
    folder = gateway.settings.metrics_folder
    job = asyncio.create_task(measure(gateway, metrics, folder)) if folder is not None else None
    try:
        yield
    finally:
        if job is not None:
            job.cancel()
            with suppress(asyncio.CancelledError):
                await job


async def _origins(scope: Asked) -> frozenset[str]:
    """The origins whose pages may call."""
    return await find_origins(scope["app"].state.gateway.mongo, REFERENCED)


def _spare_the_collector() -> None:
    """Take what lives as long as the process out of garbage collection, and collect less often.

    Measured: a Bundle of 288 readings makes some 30 000 short-lived objects; looking through the types and tables for each
    few hundred of them took a quarter of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _connect(settings: Settings) -> Mongo:
    return Mongo(settings.mongo_url, settings.mongo_database, settings.mongo_driver)
