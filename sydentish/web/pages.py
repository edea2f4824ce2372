"""What people see in a browser."""

from collections.abc import Mapping
from typing import Protocol

from sydentish.domain.errors import Busy, IdentityError, LimitExceeded, SessionExpired, TokenIncorrect
from sydentish.domain.threepids import EMAIL
from sydentish.web.errors import error_headers, status_of
from sydentish.web.reply import Headers, Reply

# The pages need nothing but their own style. A form may be answered by a redirect to the next link, which
# browsers hold against form-action; and the address of the page holds secrets, so nobody is told it.
_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self' http: https:; "
    b"frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Headers = (
    (b"Content-Security-Policy", _POLICY),
    (b"Referrer-Policy", b"no-referrer"),
    (b"X-Content-Type-Options", b"nosniff"),
)
_HTML = b"text/html; charset=utf-8"
# Who reads this has a mail in front of them, and no use for the names of parameters. The page itself goes on to
# say that a new mail helps.
_FOR_PEOPLE: dict[type[IdentityError], str] = {
    SessionExpired: "This link has expired.",
    TokenIncorrect: "This link is no longer valid.",
    Busy: "We cannot do this right now. The same link may work again in a moment.",
    LimitExceeded: "There were too many tries. Wait a little before the next one.",
}
_BROKEN_LINK = "This link is not complete, or not known here."


class PageRenderer(Protocol):
    """Makes pages from templates."""

    def page(self, name: str, brand: str | None, variables: Mapping[str, str]) -> str:
        """The template `name` of the brand with its variables filled in."""


class Pages:
    """The pages of the validation link."""

    def __init__(self, renderer: PageRenderer, *, brand: str, server_name: str) -> None:
        self._renderer = renderer
        self._brand = brand
        self._server_name = server_name

    def validated(self, medium: str) -> Reply:
        """It worked."""
        return self._page(200, outcome="validated", medium=medium)

    def confirm(self, action: str, sid: str, client_secret: str, token: str) -> Reply:
        """Asks for a click, which posts the same parameters to `action`."""
        return self._page(
            200,
            outcome="confirm",
            medium=EMAIL,
            action=action,
            sid=sid,
            client_secret=client_secret,
            token=token,
        )

    def failed(self, error: IdentityError, medium: str) -> Reply:
        """It did not work, and what to do."""
        message = _FOR_PEOPLE.get(type(error), _BROKEN_LINK)
        return self._page(
            status_of(error), outcome="failed", medium=medium, message=message, headers=error_headers(error)
        )

    def empty(self) -> Reply:
        """The headers of a page."""
        return Reply(200, _HTML, b"", _HEADERS)

    def _page(self, status: int, *, headers: Headers = (), **variables: str) -> Reply:
        variables["server_name"] = self._server_name
        html = self._renderer.page("verify_response.html", self._brand, variables)
        return Reply(status, _HTML, html.encode(), _HEADERS + headers)


def redirect(url: str) -> Reply:
    """Sends the browser on, without telling where it comes from."""
    return Reply(302, _HTML, b"", (*_HEADERS, (b"Location", url.encode())))
