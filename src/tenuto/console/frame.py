"""What every page of the console goes through: who is there, from where, what they may do, and how it is shown.

A page is a function of a ``Visit``. It reads and does through ``Visit.get``, ``Visit.rows`` and ``Visit.do``, which are
the API's own routes, asked in this process as the user who is signed in. A page can show nothing and do nothing that
the API does not, and its refusals are the API's. A change comes as a POST from the same origin with the session's own
token; a refusal goes back to where it came from, as a note. Sources: bar 4.9 and 5 (Sessions, CSRF, Headers).
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import msgspec
import structlog
from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from litestar import Request, Response
from litestar.datastructures import Cookie
from litestar.response import Redirect
from markupsafe import Markup

from tenuto.core.identifiers import spell
from tenuto.core.outcomes import Kind, Refusal
from tenuto.core.user import WHOLE, Session
from tenuto.engine import Answer, Engine
from tenuto.service import users
from tenuto.service.activity import Actor, Telling, tell_apart
from tenuto.service.users import Came
from tenuto.store import accounts
from tenuto.store.accounts import Environment
from tenuto.store.database import Contended, Unavailable
from tenuto.vault import VaultError

from . import formats

FORM_MAX: Final = 256 * 1024
FIELDS_MAX: Final = 2000
QUERY_MAX: Final = 50
NOTE_MAX: Final = 400
COMPANY_COOKIE: Final = "tenuto_company"
COMPANY_SECONDS: Final = 365 * 86_400
PAGE_SECONDS: Final = 15.0
"""How long a page may take to be made, whatever the database does."""
WORK_SECONDS: Final = 75.0
"""The same of a form, which may ask the provider or move a clock, and of a report."""
COOKIE_MAX: Final = 3500
"""How long the value of a cookie may be, lest browsers drop it."""
_SITES: Final = frozenset({"same-origin", "none"})
_OF_BOTH_HALVES: Final = frozenset({"/control/mode", "/control/sign-out"})
"""Forms that mean the same whichever half their page showed."""
ROWS: Final = 50
HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; report-uri /control/csp"
    ),
    "cross-origin-opener-policy": "same-origin",
    # With no referrer at all a browser would tell no origin either, and the origin of every form is judged here.
    "referrer-policy": "same-origin",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
SIGN_IN: Final = "/control/sign-in"
_REFUSED: Final = 400
_SLASH: Final = "\ufffe"
"""What stands in a path for a slash that was escaped there, as in the name of a flag."""
_NOTE_COOKIE: Final = "tenuto_note"
_STATUSES: Final = {
    Kind.MISSING: 404,
    Kind.FORBIDDEN: 403,
    Kind.UNAUTHORIZED: 401,
    Kind.CONFLICT: 409,
    Kind.BUSY: 503,
    Kind.FAULT: 500,
    Kind.METHOD: 405,
    Kind.PAYMENT: 402,
    Kind.MEDIA: 415,
    Kind.TOO_LARGE: 413,
    Kind.UNREADABLE: 400,
}
BUSY: Final = "The service is busy, or its database does not answer. Try it again in a moment; nothing is done twice."
_log = structlog.get_logger()

Asked = Request[Any, Any, Any]


class House(Protocol):
    """What the pages stand in: the engine, and the API's routes, asked in this process."""

    @property
    def engine(self) -> Engine:
        """The engine of this worker."""

    async def ask(  # noqa: PLR0913 - a request is all of this
        self,
        environment: Environment | None,
        session: Session | None,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes,
        key: str,
        address: str,
    ) -> Answer:
        """What the route answers. ``path`` as in the table of routes. Raises Refusal."""


class Rows(NamedTuple):
    """A part of a list, and the cursor of the next one."""

    rows: list[dict[str, Any]]
    next_cursor: str | None


class Visit:
    """One request of somebody who is signed in, with the fields that were sent and those of the address."""

    def __init__(
        self, house: House, request: Asked, session: Session, environment: Environment, form: Mapping[str, list[str]]
    ) -> None:
        self.house, self.request, self.session, self.environment = house, request, session, environment
        self._form = form
        self.query = _query(request)
        self.locale = formats.locale_of(request.headers.get("accept-language", ""))
        self.path = request.scope["path"]

    @property
    def engine(self) -> Engine:
        """The engine of this worker."""
        return self.house.engine

    @property
    def company(self) -> str:
        """The company's public id."""
        return spell("c", self.environment.company_id)

    @property
    def address(self) -> str:
        """Where the request came from."""
        return self.came.address

    @property
    def came(self) -> Came:
        """Where the request came from, with what, and what it called."""
        return came(self.request)

    def may(self, scope: str) -> bool:
        """Whether the user's role allows it."""
        return scope in self.session.user.scopes

    def needs(self, scope: str) -> None:
        """Raises Refusal ``insufficient_scope`` where the role lacks it."""
        if not self.may(scope):
            raise Refusal("insufficient_scope", f"Your role, {self.session.user.role}, cannot do this.", scope=scope)

    def param(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name]).replace(_SLASH, "/")

    def field(self, name: str) -> str:
        """A field of the form without the space around it; empty where it was not sent."""
        return self._form.get(name, [""])[-1].strip()

    def secret(self, name: str) -> str:
        """A field as it was typed: a password keeps the space around it."""
        return self._form.get(name, [""])[-1]

    def fields(self, name: str) -> list[str]:
        """All fields of one name, in their order."""
        return [value.strip() for value in self._form.get(name, [])]

    # --- the API ------------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        params: Mapping[str, str],
        *,
        part: str = "",
    ) -> Any:
        """What a route answers, decoded: the whole object. Raises Refusal."""
        key = self.field("_key")
        answer = await self.house.ask(
            self.environment,
            self.session,
            method,
            path,
            params={"company_id": self.company, **params} if "{company_id}" in path else params,
            query=query or {},
            body=b"" if body is None else msgspec.json.encode(body),
            key=f"{key} {part}" if key and part else key,
            address=self.address,
        )
        found = msgspec.json.decode(answer.body) if answer.body else {}
        if answer.status >= _REFUSED:
            # A payment that failed is an answer that is kept, and no Refusal; here it is one all the same.
            error = found["error"]
            refusal = Refusal(error["code"], error["message"])
            refusal.details = error.get("details", {})
            raise refusal
        return found

    async def raw(self, path: str, **params: str) -> Answer:
        """The answer of a GET as it is: bytes and their media type, where it is no JSON. Raises Refusal."""
        return await self.house.ask(
            self.environment,
            self.session,
            "GET",
            path,
            params=params,
            query={},
            body=b"",
            key="",
            address=self.address,
        )

    async def get(self, path: str, *, query: Mapping[str, str] | None = None, **params: str) -> Any:
        """The ``data`` of a GET. ``{company_id}`` in a path is filled in, here and below."""
        return (await self._ask("GET", path, query, None, params))["data"]

    async def rows(self, path: str, *, query: Mapping[str, str] | None = None, **params: str) -> Rows:
        """A page of a list."""
        found = await self._ask("GET", path, query, None, params)
        return Rows(found["data"], found.get("next_cursor"))

    async def do(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        part: str = "",
        **params: str,
    ) -> Any:
        """The ``data`` of a change. The form's ``_key`` makes it happen once, however often it is sent.

        Where one form makes several changes, each needs a ``part`` of its own.
        """
        return (await self._ask(method, path, query, body, params, part=part)).get("data")

    async def tell_export(self, action: str, asked: Mapping[str, str]) -> None:
        """Write down that somebody took rows along as a file."""
        user, environment = self.session.user, self.environment
        actor = Actor(spell("u", user.id), user.email, self.address)
        target = f"GET {self.path}"
        await tell_apart(self.engine, Telling(actor, action, environment.company_id, environment.id, target, asked))

    # --- answers ------------------------------------------------------------------------------------------------------

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response[str]:
        """A page, or a part of one."""
        note = self.request.cookies.get(_NOTE_COOKIE)
        text = render(template, self.locale, {**_shared(self), "note": _read_note(note), **values})
        response = Response(text, media_type="text/html", status_code=status, headers=HEADERS)
        if note and not self.request.headers.get("hx-request"):
            response.delete_cookie(_NOTE_COOKIE, path="/")
        return response

    def go(self, path: str, note: str = "", *, is_bad: bool = False) -> Response[Any]:
        """On to another page, with a note that is shown there once."""
        response: Response[Any] = Redirect(path, status_code=303, headers=HEADERS)
        if note:
            response.set_cookie(note_cookie(note, is_bad=is_bad))
        return response

    def back(self, refusal: Refusal) -> Response[Any]:
        """Back to the page that sent the form, with the reason why nothing was done."""
        return self.go(self.came_from(), refusal.message, is_bad=True)

    def came_from(self) -> str:
        """The page of ours that the form was sent from."""
        return own_path(self.field("_back") or self.request.headers.get("referer", ""))


def came(request: Asked) -> Came:
    """Where a request came from, with what, and what it called. The token of an invitation is not told."""
    client, path = request.client, request.scope["path"]
    target = f"{request.method} {'/control/join' if path.startswith('/control/join/') else path}"
    return Came(client.host if client else "", request.headers.get("user-agent", ""), target)


def _query(request: Asked) -> dict[str, str]:
    """The parameters of the address. Raises Refusal where there are too many."""
    try:
        found = parse_qs(request.url.query, max_num_fields=QUERY_MAX)
    except ValueError as error:
        raise Refusal("invalid_field", "The address has too many parameters.") from error
    return {name: values[-1] for name, values in found.items()}


def own_path(address: str) -> str:
    """The path and query of an address, which lead nowhere but to this service."""
    try:
        found = urlsplit(address)
    except ValueError:
        return "/"
    path = found.path if found.path.startswith("/") and not found.path.startswith("//") else "/"
    if "\\" in path or not path.isprintable():
        return "/"
    return f"{path}?{found.query}" if found.query else path


def note_cookie(note: str, *, is_bad: bool) -> Cookie:
    """A note for the next page."""
    value = quote(f"{'!' if is_bad else '.'}{note[:NOTE_MAX]}", safe="")
    while len(value) > COOKIE_MAX:
        note = note[: len(note) * 3 // 4]
        value = quote(f"{'!' if is_bad else '.'}{note}...", safe="")
    return Cookie(key=_NOTE_COOKIE, value=value, path="/", max_age=30, httponly=True, samesite="lax")


def _read_note(cookie: str | None) -> tuple[bool, str] | None:
    """Whether the note is bad news, and what it says."""
    text = unquote(cookie or "")
    return (text[0] == "!", text[1:]) if len(text) > 1 else None


# --- templates --------------------------------------------------------------------------------------------------------


@cache
def _templates() -> Templates:
    found = Templates(
        loader=PackageLoader("tenuto", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters["badge"] = formats.badge
    found.filters["pick"] = formats.pick
    found.filters["urlencode"] = lambda value: urlencode(value) if isinstance(value, dict) else quote(str(value), "")
    return found


def render(template: str, locale: str, values: Mapping[str, Any]) -> str:
    """A template with what it shows. ``amount``, ``number`` and ``moment`` show values as the viewer reads them."""
    zone = values.get("zone", "UTC")
    return (
        _templates()
        .get_template(template)
        .render(
            amount=lambda value, denomination=None: formats.amount(value, denomination, locale),
            number=lambda value: formats.number(value, locale),
            moment=lambda value: formats.moment(value, zone, locale),
            typed=formats.typed_amount,
            locale=locale.replace("_", "-"),
            **values,
        )
    )


def _shared(visit: Visit) -> dict[str, Any]:
    """What every page of somebody signed in may show."""
    environment = visit.environment
    token = csrf_of(visit.engine, visit.session, live=environment.live)
    return {
        "visit": visit,
        "user": visit.session.user,
        "company_name": environment.company_name,
        "company_id": visit.company,
        "mode": environment.mode,
        "is_ahead": bool(environment.clock_offset),
        "zone": environment.zone_name,
        "csrf": token,
        "csrf_field": lambda: Markup(
            '<input type="hidden" name="_csrf" value="{}"><input type="hidden" name="_key" value="{}">'
        ).format(token, secrets.token_urlsafe(16)),
        "may": visit.may,
    }


# --- who is there -----------------------------------------------------------------------------------------------------


def _is_secure(engine: Engine) -> bool:
    return engine.public_url.startswith("https://")


def cookie_name(engine: Engine) -> str:
    """The name of the session's cookie: behind TLS one that browsers bind to this very host."""
    return "__Host-tenuto" if _is_secure(engine) else "tenuto_session"


def session_cookie(engine: Engine, token: str | None) -> Cookie:
    """The cookie of somebody who has just signed in; without a token, the one that takes it away again."""
    return Cookie(
        key=cookie_name(engine),
        value=token or "",
        path="/",
        httponly=True,
        secure=_is_secure(engine),
        samesite="lax",
        max_age=int(WHOLE.total_seconds()) if token else 0,
    )


def company_cookie(engine: Engine, company: str) -> Cookie:
    """Which company somebody was in last, for whoever is in several with one address."""
    return Cookie(
        key=COMPANY_COOKIE,
        value=company,
        path="/control",
        httponly=True,
        secure=_is_secure(engine),
        samesite="lax",
        max_age=COMPANY_SECONDS,
    )


def csrf_of(engine: Engine, session: Session, *, live: bool) -> str:
    """What every form of a session carries, and no other site can know.

    It names the half of the company that the form's page showed: a form of test data does nothing to live data, though
    another window of the session has gone there meanwhile.
    """
    return engine.vault.sign(f"csrf {session.digest.hex()} {'live' if live else 'test'}")


def refuse_foreign(engine: Engine, request: Asked) -> None:
    """Raises Refusal ``foreign_form`` where another site sent the form."""
    if not engine.is_own_form(request.headers, _SITES):
        raise Refusal("foreign_form")


def _refuse_other_session(visit: Visit) -> None:
    given = visit.field("_csrf") or visit.request.headers.get("x-csrf", "")
    halves = (True, False) if visit.path in _OF_BOTH_HALVES else (visit.environment.live,)
    known = [csrf_of(visit.engine, visit.session, live=live) for live in halves]
    if not any(hmac.compare_digest(given.encode(), one.encode()) for one in known):
        said = "This form is of another session, or of the other half of the company: load its page again."
        raise Refusal("foreign_form", said)
    if not visit.field("_key") and not visit.request.headers.get("hx-request"):
        raise Refusal("foreign_form", "This form lacks the key that lets it happen once: load its page again.")


async def read_form(request: Asked) -> dict[str, list[str]]:
    """The fields of a form. Raises Refusal where it is none, or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal("unsupported_media_type", "Send the form as a browser does.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX:
            raise Refusal("body_too_large", f"A form takes at most {FORM_MAX // 1024} kB: make it shorter.")
    try:
        return parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise Refusal("invalid_encoding", "The form cannot be read.") from error


async def session_of(engine: Engine, request: Asked) -> Session | None:
    """Who is signed in, by their cookie. A page that asks by itself keeps nobody signed in."""
    token = request.cookies.get(cookie_name(engine), "")
    is_there = request.method != "GET" or not (
        request.headers.get("hx-request") or "text/event-stream" in request.headers.get("accept", "")
    )
    return await users.find_session(engine, token, is_there=is_there) if token else None


async def environment_of(engine: Engine, session: Session) -> Environment:
    """The half of the company that is looked at; where there is no live one yet, the test half."""
    for live in (session.live, False):
        async with engine.database.reading() as reader:
            found = await accounts.find_environment(reader, session.user.company_id, live=live)
        environment = None if found is None else await engine.environment(found)
        if environment is not None:
            return environment
    raise Refusal("not_found")


# --- pages ------------------------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """A page for those who are signed in. ``scope`` is what its user needs; ``fresh``: the password, given lately.

    ``is_slow``: it sums up, and may take as long as a form.
    """

    method: str
    path: str
    serve: Callable[[Visit], Awaitable[Response[Any]]]
    scope: str | None = None
    fresh: bool = False
    is_slow: bool = False

    @property
    def seconds(self) -> float:
        """How long it may take."""
        return WORK_SECONDS if self.is_slow or self.method == "POST" else PAGE_SECONDS


async def attend(house: House, page: Page, request: Asked) -> Response[Any]:
    """One request for a page, from its cookie to its answer. Never raises but for cancellation."""
    visit: list[Visit] = []
    try:
        async with asyncio.timeout(page.seconds):
            return await _attended(house, page, request, visit)
    except TimeoutError:
        return _refused(visit[0] if visit else None, page, Refusal("unavailable", BUSY))


async def _attended(house: House, page: Page, request: Asked, seen: list[Visit]) -> Response[Any]:
    """The same, for as long as it takes; ``seen`` gets the visit once there is one."""
    engine = house.engine
    visit: Visit | None = None
    try:
        session = await session_of(engine, request)
        if session is None:
            return _to_sign_in(request)
        if page.method == "POST":
            refuse_foreign(engine, request)
        form = _with_kept(engine, session, await read_form(request)) if page.method == "POST" else {}
        environment = await environment_of(engine, session)
        visit = Visit(house, request, session, environment, form)
        seen.append(visit)
        if page.method == "POST":
            _refuse_other_session(visit)
        if page.scope is not None:
            visit.needs(page.scope)
        if page.fresh and not session.is_fresh(engine.now()):
            problem = await _problem_of_password(visit)
            if problem is not None:
                return _confirm(visit, form, problem)
        return await page.serve(visit)
    except Refusal as refusal:
        return _refused(visit, page, refusal)
    except (Unavailable, Contended):
        return _refused(visit, page, Refusal("unavailable", BUSY))
    except Exception as error:  # noqa: BLE001 - the last door: whatever is wrong leaves as a page
        _log.error("console", path=page.path, exc_info=error)
        return _refused(
            visit, page, Refusal("internal_error", "Something went wrong on our side; it was written down.")
        )


async def _problem_of_password(visit: Visit) -> str | None:
    """None where the password came along with the form, and is right; else what to say, which may be nothing."""
    password = visit.secret("_password")
    if not password:
        return ""
    try:
        await users.confirm(visit.engine, visit.session, password, visit.came)
    except Refusal as refusal:
        return said(refusal)
    return None


def said(refusal: Refusal) -> str:
    """What is told to somebody whose password, or code, was refused."""
    if refusal.code == "sign_in_delayed":
        return f"Too many tries have failed. Wait {refusal.details['retry_after']} seconds, then try again."
    return refusal.message


def _confirm(visit: Visit, form: Mapping[str, list[str]], problem: str) -> Response[Any]:
    """Ask for the password, and keep what was to be done with it: sealed, for it may hold a secret."""
    kept = {name: values for name, values in form.items() if not name.startswith("_")}
    sealed = visit.engine.vault.seal(msgspec.json.encode(kept).decode(), context=_kept_of(visit.session))
    return visit.page(
        "confirm.html", kept=sealed.hex(), key=visit.field("_key"), back=visit.came_from(), problem=problem
    )


def _kept_of(session: Session) -> str:
    return f"form {session.digest.hex()}"


def _with_kept(engine: Engine, session: Session, form: dict[str, list[str]]) -> dict[str, list[str]]:
    """The form with what was kept while the password was asked for. Raises Refusal where that is not ours."""
    given = form.get("_kept")
    if given is None:
        return form
    try:
        kept = engine.vault.open(bytes.fromhex(given[-1]), context=_kept_of(session))
    except (ValueError, VaultError) as error:
        raise Refusal("foreign_form") from error
    return {**msgspec.json.decode(kept, type=dict[str, list[str]]), **form}


def _to_sign_in(request: Asked) -> Response[Any]:
    path = request.scope["path"]
    if request.headers.get("hx-request"):
        # A part of a page is asked for by a page that is open: the whole of it goes to the sign-in.
        return Response("", status_code=401, headers={**HEADERS, "hx-redirect": SIGN_IN}, media_type="text/html")
    then = f"?next={quote(path, safe='')}" if request.method == "GET" and path != "/" else ""
    return Redirect(f"{SIGN_IN}{then}", status_code=303, headers=HEADERS)


def _refused(visit: Visit | None, page: Page, refusal: Refusal) -> Response[Any]:
    is_foreign = refusal.code == "foreign_form"
    is_part = visit is not None and not is_foreign and bool(visit.request.headers.get("hx-request"))
    can_go_back = visit is not None and page.method == "POST" and not is_part and not is_foreign
    if visit is not None and can_go_back and visit.request.headers.get("referer"):
        return visit.back(refusal)
    status = _STATUSES.get(refusal.kind, 422)
    if visit is None:
        return closed(refusal)
    if is_part:
        return visit.page("part_refused.html", status=200, text=refusal.message)
    return visit.page("refused.html", status=status, title=_title(refusal), text=refusal.message)


def closed(refusal: Refusal) -> Response[Any]:
    """The page of a refusal to somebody of whom nothing is known."""
    return Response(
        render("closed.html", formats.LOCALE, {"title": _title(refusal), "text": refusal.message}),
        status_code=_STATUSES.get(refusal.kind, 422),
        media_type="text/html",
        headers=HEADERS,
    )


def _title(refusal: Refusal) -> str:
    match refusal.kind:
        case Kind.MISSING:
            return "There is nothing here"
        case Kind.FORBIDDEN:
            return "Not from here" if refusal.code == "foreign_form" else "Not for your role"
        case Kind.BUSY:
            return "Busy"
        case Kind.FAULT:
            return "Our fault"
        case _:
            return "Not possible"
