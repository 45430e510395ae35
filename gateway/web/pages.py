"""Pages: templates filled in, and the headers that keep a browser from doing anything else with them.

Knows: Jinja2 with escaping always on; https://www.w3.org/TR/CSP3/. Nothing needs JavaScript, nothing is loaded from elsewhere.
Must not know: what the pages are about.
"""

import base64
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from gateway.settings import Settings
from gateway.web.parts import words_for
from gateway.web.texts import Texts

_HERE = Path(__file__).resolve().parent
_DAY = 86_400
_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


class Pages:
    """The pages of one gateway."""

    def __init__(self, settings: Settings, texts: Mapping[str, Texts]) -> None:
        self.texts = texts
        self.root = urlsplit(settings.site).path.rstrip("/")
        self.is_secure = settings.base_url.startswith("https:")
        self.style = (_HERE / "assets" / "style.css").read_bytes()
        # The address changes with what is there, so a browser may keep it.
        self.style_url = f"{self.root}/assets/{sha256(self.style).hexdigest()[:16]}.css"
        self._form_key = blake2b(settings.secret.encode(), digest_size=32, person=b"gateway-form").digest()
        self._environment = _environment(autoescape=True)
        self._plain = _environment(autoescape=False)

    def render(
        self, template: str, language: str, context: Mapping[str, Any], *, status: int = 200, to: Iterable[str] = ()
    ) -> Response:
        """A page. `to`: where else its forms may lead, besides this site."""
        texts = self.texts[language]
        known = {
            "t": partial(_say, texts),
            "day": partial(_day, texts),
            "words": partial(words_for, texts),
            "language": language,
            "languages": sorted(self.texts),
            "root": self.root,
            "style_url": self.style_url,
            **context,
        }
        html = self._environment.get_template(template).render(known)
        policy = " ".join([_POLICY, *to])
        headers = {"content-security-policy": policy, "x-frame-options": "DENY", "vary": "Accept-Language, Cookie"}
        return HTMLResponse(html, status, headers)

    def text(self, template: str, language: str, context: Mapping[str, Any]) -> str:
        """A text that is no page."""
        texts = self.texts[language]
        known = {"t": partial(_say, texts), "day": partial(_day, texts), **context}
        return self._plain.get_template(template).render(known)

    def stylesheet(self) -> Response:
        """The one stylesheet."""
        return Response(self.style, 200, {"cache-control": f"public, max-age={365 * _DAY}, immutable"}, "text/css")

    def form_token(self, cookie: str) -> str:
        """What a form must carry to be one that this browser was shown: nobody else knows its cookie."""
        digest = hmac.digest(self._form_key, cookie.encode(), "sha256")
        return base64.urlsafe_b64encode(digest[:24]).decode()

    def is_form_token(self, cookie: str, token: str) -> bool:
        """Whether the form with this token was shown to the browser with this cookie."""
        return hmac.compare_digest(self.form_token(cookie).encode(), token.encode())


def _environment(*, autoescape: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=autoescape,  # noqa: S701 (off for the one text that is no HTML)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _say(texts: Texts, key: str, **values: Any) -> str:
    return texts[key].format(**values) if values else texts[key]


def _day(texts: Texts, moment: datetime) -> str:
    """The day of a moment as it is said: 25 November 2026."""
    return texts["date.day"].format(day=moment.day, month=texts[f"month.{moment.month}"], year=moment.year)
