"""The tour that `gateway demo` prints: lines to be copied as they stand.

Knows: what is worth showing first. Must not know: how it comes about.
"""

from gateway.sandbox.people import People

_TOUR = """
The gateway listens on {base}   (Ctrl-C stops it and its MongoDB)

People: Camille (Patient/{camille}), who has 14 days of readings and shares them with the app GlucoApp and with Dr Martin;
Noé (Patient/{noe}), who shares nothing. Each bears a token: demo-app, demo-professional, demo-camille, demo-noe.

1. The app pushes a reading: 201.

   curl -i {base}/Observation -H 'Authorization: Bearer demo-app' -H 'Content-Type: application/fhir+json' -d '{{
     "resourceType": "Observation", "status": "final",
     "identifier": [{{"system": "https://glucoapp.example/readings", "value": "tour-1"}}],
     "code": {{"coding": [{{"system": "http://loinc.org", "code": "99504-3"}}]}},
     "subject": {{"reference": "Patient/{camille}"}}, "effectiveDateTime": "2026-11-24T08:30:00+01:00",
     "valueQuantity": {{"value": 104, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}}}}'

   Send it again: 200, and nothing is written.

2. Dr Martin's software reads the newest two.

   curl '{base}/Observation?patient={camille}&code=http://loinc.org|99504-3&_sort=-date&_count=2' \\
     -H 'Authorization: Bearer demo-professional'

3. Noé shares nothing: an empty page, as for a patient who does not exist.

   curl '{base}/Observation?patient={noe}' -H 'Authorization: Bearer demo-professional'

4. The app has no right to read the patient: 403, with the reason.

   curl '{base}/Patient/{camille}' -H 'Authorization: Bearer demo-app'

5. Camille takes Dr Martin's consent back.

   curl -s {base}/Consent/{consent} -H 'Authorization: Bearer demo-camille' \\
     | sed 's/"status":"active"/"status":"inactive"/' \\
     | curl -i -X PUT {base}/Consent/{consent} -H 'Authorization: Bearer demo-camille' \\
         -H 'Content-Type: application/fhir+json' --data-binary @-

   Repeat line 2: nothing.

6. Camille sees who looked, and who tried.

   curl '{base}/AuditEvent?_count=5' -H 'Authorization: Bearer demo-camille'
"""


def write_tour(base: str, people: People) -> str:
    """The tour of this sandbox."""
    return _TOUR.format(base=base, camille=people.ids["camille"], noe=people.ids["noe"], consent=people.ids["consent-martin"])
