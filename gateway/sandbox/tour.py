"""The tour that `gateway demo` prints: lines to be copied as they stand.

Knows: what is worth showing first. Must not know: how it comes about.
"""

from datetime import UTC, datetime

from gateway.sandbox.pages import PASSWORD, app_link
from gateway.sandbox.people import People
from gateway.settings import Settings

_TOUR = """
The gateway listens on {base}   (Ctrl-C stops it and its MongoDB)

People: Camille (Patient/{camille}), who has 14 days of readings and shares them with the app GlucoApp and with Dr Martin;
Noé (Patient/{noe}), who shares nothing and took back what GlucoApp had.
Tokens: demo-app (GlucoApp on Camille's phone), demo-app-noe (on Noé's), demo-professional (Dr Martin's software),
demo-camille, demo-noe, demo-operator.
Accounts: camille, noe, paul (who acts for Camille), martin; their password is {password}.

In a browser: {site} shows these calls in curl, Python and JavaScript; GlucoApp asks for access ({site}/me is where it is
taken back):

   {link}

1. The app pushes a reading: 201.

   curl -i '{base}/Observation' -H 'Authorization: Bearer demo-app' -H 'Content-Type: application/fhir+json' -d '{{
     "resourceType": "Observation", "status": "final",
     "identifier": [{{"system": "https://glucoapp.example/readings", "value": "tour-{second}"}}],
     "code": {{"coding": [{{"system": "http://loinc.org", "code": "99504-3"}}]}},
     "subject": {{"reference": "Patient/{camille}"}}, "effectiveDateTime": "{moment}",
     "valueQuantity": {{"value": 104, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}}}}'

   Send it again: 200, and nothing is written.

2. Dr Martin's software reads the newest two.

   curl '{base}/Observation?patient={camille}&code=http://loinc.org|99504-3&_sort=-date&_count=2' \\
     -H 'Authorization: Bearer demo-professional'

3. Noé shares nothing: an empty page, as for a patient who does not exist.

   curl '{base}/Observation?patient={noe}' -H 'Authorization: Bearer demo-professional'

4. GlucoApp on Noé's phone still tries to push: 403, with the reason.

   curl -i '{base}/Observation' -H 'Authorization: Bearer demo-app-noe' -H 'Content-Type: application/fhir+json' -d '{{
     "resourceType": "Observation", "status": "final",
     "identifier": [{{"system": "https://glucoapp.example/readings", "value": "tour-noe-{second}"}}],
     "code": {{"coding": [{{"system": "http://loinc.org", "code": "99504-3"}}]}},
     "subject": {{"reference": "Patient/{noe}"}}, "effectiveDateTime": "{moment}",
     "valueQuantity": {{"value": 98, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}}}}'

5. Camille takes Dr Martin's consent back.

   curl -s '{base}/Consent/{consent}' -H 'Authorization: Bearer demo-camille' \\
     | sed 's/"status":"active"/"status":"inactive"/' \\
     | curl -i -X PUT '{base}/Consent/{consent}' -H 'Authorization: Bearer demo-camille' \\
         -H 'Content-Type: application/fhir+json' --data-binary @-

6. Line 2 again, from that moment on: nothing.

   curl '{base}/Observation?patient={camille}&code=http://loinc.org|99504-3&_sort=-date&_count=2' \\
     -H 'Authorization: Bearer demo-professional'

   (Line 5 with "active" and "inactive" changed over gives it again.)

7. Camille sees who looked, and who tried.

   curl '{base}/AuditEvent?_count=5' -H 'Authorization: Bearer demo-camille'
"""

_KEPT = """
This folder's data was kept: what was changed the last time still holds. If Camille's consent was taken back, line 5 with
"inactive" and "active" changed over gives it again.
"""


_STREAMS = """
The sensors of Sami and Jean go on measuring, {how}.
"""


def write_tour(settings: Settings, people: People, now: datetime, *, kept: bool, speed: float | None = None) -> str:
    """The tour of this sandbox. `kept`: whether the data is that of an earlier run; `speed`: of its streams, if any."""
    moment = now.astimezone(UTC).replace(microsecond=0)
    tour = _TOUR.format(
        base=settings.base_url,
        site=settings.site,
        link=app_link(settings),
        password=PASSWORD,
        camille=people.ids["camille"],
        noe=people.ids["noe"],
        consent=people.ids["consent-martin"],
        moment=moment.isoformat(),
        second=f"{moment:%Y%m%d%H%M%S}",
    )
    return tour + (_KEPT if kept else "") + (_told(speed) if speed else "")


def _told(speed: float) -> str:
    if speed == 1:
        return _STREAMS.format(how="in real time")
    return _STREAMS.format(how=f"{speed:g} times as fast as here, from a week ago until they have caught up with now")
