"""Signing in and out: the same answer to all who may not, tries that are counted, sessions that end. Bar 4.9 and 5."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from tenuto.console.frame import cookie_name, session_cookie
from tenuto.core.outcomes import Refusal
from tenuto.core.user import CODE_SECONDS, NEAR_FAILURES, PLACE_FAILURES
from tenuto.engine import Engine, Settings
from tenuto.server import Server
from tenuto.service import accounts, users
from tenuto.service.users import Came
from tenuto.store import users as store
from tenuto.store.database import Database, migrate
from tests.client import Client
from tests.conftest import MadeUpClock
from tests.console.colleagues import colleague, form, invited, own_headers, raw, signed_in
from tests.console.visitor import PASSWORD, Seen, Visitor

SIGN_IN: Final = "/control/sign-in"
HERE: Final = Came("192.0.2.1", "a browser", "POST /control/sign-in")
UNLIKE: Final = re.compile(r'name="email" value="[^"]*"')


@pytest_asyncio.fixture
async def rows(service: Server) -> AsyncIterator[asyncpg.Connection]:
    """The rows of the service: to move what would take hours, and to see what is kept."""
    connection = await asyncpg.connect(service.dsn)
    yield connection
    await connection.close()


def tried(visitor: Visitor, email: str, password: str, **more: str) -> Seen:
    stranger = Visitor(visitor.address)
    return stranger.send(SIGN_IN, follow=False, email=email, password=password, **more)


async def forget(rows: asyncpg.Connection, email: str, *, seconds: int = 3_600) -> None:
    """Let time go by for the tries of one address of mail."""
    await rows.execute(
        "update sign_in_failure set at = at - make_interval(secs => $2) where email = $1", email, seconds
    )


async def told(rows: asyncpg.Connection, company: str) -> list[tuple[str, str]]:
    """What was done in a company and by whom, in order."""
    found = await rows.fetch(
        "select actor, action from activity where company_id = $1 order by id", int(company[2:], 36)
    )
    return [(row["actor"], row["action"]) for row in found]


# --- who may not ---


def test_an_unknown_address_and_a_wrong_password_are_answered_alike(visitor: Visitor) -> None:
    wrong = tried(visitor, visitor.email, "not the password")
    unknown = tried(visitor, f"nobody-{secrets.token_hex(4)}@example.com", "not the password")

    assert wrong.status == unknown.status == 401
    assert UNLIKE.sub("", wrong.text) == UNLIKE.sub("", unknown.text)
    different = {"date", "content-length"}
    assert {k: v for k, v in wrong.headers.items() if k not in different} == {
        k: v for k, v in unknown.headers.items() if k not in different
    }
    assert "set-cookie" not in wrong.headers


class Counting:
    """Hashes passwords, and counts how often."""

    def __init__(self) -> None:
        self.real, self.count = users._PASSWORDS, 0

    def hash(self, password: str) -> str:
        self.count += 1
        return self.real.hash(password)

    def verify(self, hashed: str, password: str) -> bool:
        self.count += 1
        return self.real.verify(hashed, password)


@pytest_asyncio.fixture
async def inside(new_database: Callable[[str], str]) -> AsyncIterator[Engine]:
    """An engine whose clock a test moves."""
    dsn = new_database("sign_in")
    await migrate(dsn)
    engine = Engine(Settings(database=dsn, lanes=1, secret_key="5e" * 32), await Database.connect(dsn), MadeUpClock())
    yield engine
    await engine.close()


async def opened(engine: Engine, email: str = "ada@example.com", password: str = PASSWORD) -> tuple[int, int]:
    """The ids of a new company and its owner."""
    hashed = await users.hash_password(password)
    async with engine.database.writing() as unit:
        made = await accounts.open_company(engine, unit, name="Acme", email=email, password_hash=hashed)
    return made.company_id, made.user_id


async def sign_in(engine: Engine, **given: Any) -> users.SignedIn:
    asked = {"email": "ada@example.com", "password": PASSWORD, "code": "", "came": HERE, **given}
    return await users.sign_in(engine, **asked)


async def refused(engine: Engine, **given: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await sign_in(engine, **given)
    return caught.value


async def test_who_is_unknown_costs_as_many_hashes_as_who_is_wrong(
    inside: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(inside)
    counted = []
    for email in ("ada@example.com", "nobody@example.com"):
        counting = Counting()
        monkeypatch.setattr(users, "_PASSWORDS", counting)
        assert (await refused(inside, email=email, password="not the password")).code == "sign_in_failed"
        counted.append(counting.count)
    assert counted == [1, 1]


@pytest.mark.parametrize("email", ["", "no address", "a\0b@example.com", "x" * 5_000 + "@example.com", "ä@ö.ü", "🐎"])
def test_whatever_stands_for_an_address_is_answered_alike(visitor: Visitor, email: str) -> None:
    seen = tried(visitor, email, "not the password")
    assert seen.status == 401
    assert "The address or the password is not right." in seen.words


async def test_the_address_is_known_in_any_spelling(visitor: Visitor) -> None:
    assert tried(visitor, f"  {visitor.email.upper()} ", PASSWORD).status == 303


# --- passwords ---


@pytest.mark.parametrize(
    "password",
    [
        "  leading and trailing  ",
        "nul \0 inside of it",
        "кириллица и пробел",
        "🐎🔋📎🧷🐎🔋📎🧷🐎🔋📎🧷",
        "72 bytes are not all of it: " + "x" * 60 + " the end",
        "&=%+;<script>'\"\\",
    ],
)
def test_a_password_is_taken_whole(service: Server, client: Client, password: str) -> None:
    visitor = Visitor.signed_up(client, service.address)
    changed = visitor.send("/control/settings/you/password", _password=PASSWORD, password=password, again=password)
    assert "Your password is changed" in changed.words

    assert tried(visitor, visitor.email, password).status == 303
    for other in (password[:-1], password.strip() + "x", password + " "):
        assert tried(visitor, visitor.email, other).status in {401, 429}


def test_a_password_of_kilobytes_is_refused_before_it_costs_anything(visitor: Visitor) -> None:
    known = tried(visitor, visitor.email, "x" * 4_096)
    unknown = tried(visitor, "nobody@example.com", "x" * 4_096)
    assert known.status == unknown.status == 422
    assert "at most 1024 characters" in known.words
    sign_up = Visitor(visitor.address).send(
        "/control/sign-up", name="Acme", email="ada@example.com", password="xyz1" * 1_024
    )
    assert sign_up.status == 422


def test_a_password_is_nowhere_on_a_page_that_refuses_it(visitor: Visitor) -> None:
    for path in (SIGN_IN, "/control/sign-up"):
        stranger = Visitor(visitor.address)
        seen = stranger.send(path, name="", email=visitor.email, password="seen nowhere at all")
        assert seen.status in {401, 422}
        assert "seen nowhere" not in seen.text


# --- tries ---


async def test_tries_wait_longer_and_longer_and_stop_at_five(visitor: Visitor, rows: asyncpg.Connection) -> None:
    for count in range(NEAR_FAILURES):
        assert tried(visitor, visitor.email, "not the password").status == 401
        early = tried(visitor, visitor.email, PASSWORD)
        assert early.status == 429, "the right password is told no more than a wrong one"
        assert "Wait" in early.words
        await forget(rows, visitor.email, seconds=2**count)
    stopped = tried(visitor, visitor.email, PASSWORD)
    assert stopped.status == 429
    assert int(re.findall(r"Wait (\d+) seconds", stopped.words)[0]) > 600

    await forget(rows, visitor.email, seconds=900)
    assert tried(visitor, visitor.email, PASSWORD).status == 303


async def test_an_address_that_nobody_has_waits_as_well(visitor: Visitor, rows: asyncpg.Connection) -> None:
    email = f"nobody-{secrets.token_hex(4)}@example.com"
    assert tried(visitor, email, "not the password").status == 401
    assert tried(visitor, email, "not the password").status == 429
    await forget(rows, email)
    assert tried(visitor, email, "not the password").status == 401


async def test_who_is_let_in_begins_anew(visitor: Visitor, rows: asyncpg.Connection) -> None:
    for _ in range(3):
        assert tried(visitor, visitor.email, "not the password").status == 401
        await forget(rows, visitor.email, seconds=10)
    assert tried(visitor, visitor.email, PASSWORD).status == 303
    assert await rows.fetchval("select count(*) from sign_in_failure where email = $1", visitor.email) == 0


async def test_who_guesses_elsewhere_locks_nobody_out(inside: Engine) -> None:
    await opened(inside)
    clock = inside.clock
    assert isinstance(clock, MadeUpClock)
    for _ in range(NEAR_FAILURES):
        assert (await refused(inside, password="a wrong guess", came=Came("198.51.100.9"))).code == "sign_in_failed"
        clock.forward(seconds=20)
    assert (await refused(inside, came=Came("198.51.100.9"))).code == "sign_in_delayed"

    assert (await sign_in(inside)).token


async def test_many_guesses_at_once_are_told_one_answer(visitor: Visitor, rows: asyncpg.Connection) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: tried(visitor, visitor.email, f"guess number {at}").status, range(8)))
    assert sorted(found) == [401, *[429] * 7]
    assert await rows.fetchval("select count(*) from sign_in_failure where email = $1", visitor.email) == 1


# --- sessions ---


async def test_the_cookie_is_kept_from_scripts_and_stands_nowhere_in_the_database(
    visitor: Visitor, rows: asyncpg.Connection
) -> None:
    seen = tried(visitor, visitor.email, PASSWORD)
    cookie = seen.headers["set-cookie"]
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/", "max-age=43200"} <= parts
    assert "domain" not in cookie.lower()
    token = re.findall(r"tenuto_session=([^;]+)", cookie)[0]
    assert len(token) >= 43, "256 bits"

    kept = await rows.fetch("select * from console_session")
    assert hashlib.sha256(token.encode()).digest() in {row["digest"] for row in kept}
    assert token not in str([dict(row) for row in kept])


async def test_behind_tls_the_cookie_is_bound_to_this_host(inside: Engine) -> None:
    settings = replace(inside.settings, public_url="https://billing.example.com/")
    secure = Engine(settings, inside.database, inside.clock)
    for token in ("a token", None):
        cookie = session_cookie(secure, token)
        assert cookie.key == cookie_name(secure) == "__Host-tenuto"
        assert (cookie.secure, cookie.httponly, cookie.path, cookie.domain) == (True, True, "/", None)


async def test_a_session_ends_after_half_an_hour_without_anybody(visitor: Visitor, rows: asyncpg.Connection) -> None:
    await aged(rows, visitor, seen_at=1_790)
    assert visitor.visit("/", follow=False).status == 200
    await aged(rows, visitor, seen_at=1_801)
    seen = visitor.visit("/control/settings/you", follow=False)
    assert (seen.status, seen.headers["location"]) == (303, f"{SIGN_IN}?next=%2Fcontrol%2Fsettings%2Fyou")


async def aged(rows: asyncpg.Connection, visitor: Visitor, **columns: int) -> None:
    """Let a session have begun, or its user been there, so many seconds ago."""
    digest = hashlib.sha256(visitor.cookies["tenuto_session"].encode()).digest()
    for column, seconds in columns.items():
        done = await rows.execute(
            f"update console_session set {column} = now() - make_interval(secs => $2) where digest = $1",
            digest,
            seconds,
        )
        assert done == "UPDATE 1"


async def test_a_session_ends_after_twelve_hours_of_work(visitor: Visitor, rows: asyncpg.Connection) -> None:
    await aged(rows, visitor, created_at=43_190)
    assert visitor.visit("/", follow=False).status == 200
    await aged(rows, visitor, created_at=43_201)
    assert visitor.visit("/", follow=False).status == 303


async def test_a_page_that_asks_by_itself_keeps_nobody_signed_in(visitor: Visitor, rows: asyncpg.Connection) -> None:
    await aged(rows, visitor, seen_at=1_700)
    part = raw(visitor, "GET", "/control/steps", {"hx-request": "true"})
    assert part.status == 200
    digest = hashlib.sha256(visitor.cookies["tenuto_session"].encode()).digest()
    age = "select now() - seen_at from console_session where digest = $1"
    assert await rows.fetchval(age, digest) > timedelta(seconds=1_690)

    assert visitor.visit("/", follow=False).status == 200
    assert await rows.fetchval(age, digest) < timedelta(seconds=30)


async def test_a_part_of_a_page_leads_the_whole_of_it_to_the_sign_in(visitor: Visitor) -> None:
    seen = raw(Visitor(visitor.address), "GET", "/control/steps", {"hx-request": "true"})
    assert (seen.status, seen.headers["hx-redirect"], seen.text) == (401, SIGN_IN, "")


async def test_sessions_that_are_over_are_forgotten(inside: Engine) -> None:
    await opened(inside)
    clock = inside.clock
    assert isinstance(clock, MadeUpClock)
    old = await sign_in(inside)
    assert (await refused(inside, email="nobody@example.com")).code == "sign_in_failed"
    clock.forward(minutes=28)
    kept = await sign_in(inside)
    clock.forward(minutes=2)
    assert await users.forget_sessions(inside, now=inside.now(), limit=10) == 1
    clock.forward(minutes=27)
    assert await users.find_session(inside, kept.token, is_there=False) is not None
    assert await users.find_session(inside, old.token) is None
    clock.forward(minutes=3)
    assert await users.forget_sessions(inside, now=inside.now(), limit=10) == 2, "it, and the try of an hour ago"


def test_every_sign_in_has_a_session_of_its_own(visitor: Visitor) -> None:
    before = visitor.cookies["tenuto_session"]
    seen = raw(visitor, "POST", SIGN_IN, own_headers(visitor), form(email=visitor.email, password=PASSWORD))
    after = re.findall(r"tenuto_session=([^;]+)", seen.headers["set-cookie"])[0]
    assert after != before
    stranger = Visitor(visitor.address)
    stranger.cookies["tenuto_session"] = "chosen-by-somebody-else"
    stranger.send(SIGN_IN, email=visitor.email, password=PASSWORD)
    assert stranger.cookies["tenuto_session"] != "chosen-by-somebody-else"


def test_signing_out_ends_the_session_for_whoever_has_the_cookie(visitor: Visitor) -> None:
    thief = Visitor(visitor.address)
    thief.cookies.update(visitor.cookies)
    assert thief.visit("/", follow=False).status == 200

    seen = visitor.send("/control/sign-out", follow=False)
    assert (seen.status, seen.headers["location"]) == (303, SIGN_IN)
    assert "tenuto_session" not in visitor.cookies
    assert thief.visit("/", follow=False).status == 303


def test_a_new_password_ends_all_other_sessions(visitor: Visitor) -> None:
    other = signed_in(visitor.address, visitor.company, visitor.email)
    changed = visitor.send(
        "/control/settings/you/password", _password=PASSWORD, password="another password", again="another password"
    )
    assert "Your password is changed" in changed.words
    assert visitor.visit("/", follow=False).status == 200
    assert other.visit("/", follow=False).status == 303
    assert tried(visitor, visitor.email, "another password").status == 303
    assert tried(visitor, visitor.email, PASSWORD).status == 401


def test_a_session_opens_no_route_of_the_api_and_a_key_no_page(visitor: Visitor) -> None:
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    company = visitor.company
    path = f"/v1/companies/{company.id}"
    assert company.client.call("GET", path, headers={"cookie": cookies}).status == 401
    assert company.client.call("POST", f"{path}/keys", {}, {"cookie": cookies}).status == 401

    stranger = Visitor(visitor.address)
    for page in ("/", "/control/settings/users", "/control/settings/you"):
        seen = raw(stranger, "GET", page, {"authorization": f"Bearer {company.key}"})
        assert seen.status == 303
        assert seen.headers["location"].startswith(SIGN_IN)


def test_where_one_wanted_to_go_is_of_this_site(visitor: Visitor) -> None:
    for then, expected in (
        ("/control/settings/you", "/control/settings/you"),
        ("//evil.example/x", "/x"),
        ("https://evil.example/x", "/x"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ):
        seen = tried(visitor, visitor.email, PASSWORD, next=then)
        assert (seen.status, seen.headers["location"]) == (303, expected), then


# --- forms of other sites ---

TRICKS: Final[dict[str, tuple[dict[str, str | None], dict[str, str | None]]]] = {
    "without the session's token": ({}, {"_csrf": None}),
    "with a token that is none": ({}, {"_csrf": "x"}),
    "with a token of no letters we know": ({}, {"_csrf": "\u00e9\u2603"}),
    "from another origin": ({"origin": "https://evil.example"}, {}),
    "from a site beside ours": ({"sec-fetch-site": "same-site"}, {}),
    "across sites": ({"sec-fetch-site": "cross-site"}, {}),
    "across sites, saying nothing of its origin": ({"sec-fetch-site": "cross-site", "origin": "null"}, {}),
    "saying nothing at all": ({"sec-fetch-site": None, "origin": None}, {}),
    "as text that looks like JSON": ({"content-type": "text/plain", "sec-fetch-site": "cross-site"}, {}),
}


@pytest.mark.parametrize("name", TRICKS)
def test_a_form_of_another_site_changes_nothing(visitor: Visitor, name: str) -> None:
    colleague(visitor, "support")
    before = visitor.company.call("GET", "/v1/companies/{company}/users").data
    headers, fields = TRICKS[name]
    sent = {"_csrf": visitor.csrf, "_key": "k", "email": "eve@example.com", "role": "admin", **fields}
    seen = raw(
        visitor,
        "POST",
        "/control/settings/users",
        {name: value for name, value in {**own_headers(visitor), **headers}.items() if value},
        form(**{name: value for name, value in sent.items() if value}),
    )
    assert seen.status == 403
    assert visitor.company.call("GET", "/v1/companies/{company}/users").data == before
    for page in (SIGN_IN, "/control/sign-up"):
        if not fields:
            stranger = Visitor(visitor.address)
            own = {name: value for name, value in {**own_headers(visitor), **headers}.items() if value}
            body = form(email=visitor.email, password=PASSWORD, name="Evil")
            assert raw(stranger, "POST", page, own, body).status == 403


def test_the_token_of_another_session_is_good_for_nothing(visitor: Visitor) -> None:
    other = signed_in(visitor.address, visitor.company, visitor.email)
    assert other.csrf != visitor.csrf
    body = form(_csrf=other.csrf, email="eve@example.com", role="admin")
    seen = raw(visitor, "POST", "/control/settings/users", own_headers(visitor), body)
    assert seen.status == 403
    assert len(visitor.company.call("GET", "/v1/companies/{company}/users").data) == 1


def test_text_from_our_own_origin_is_no_form_either(visitor: Visitor) -> None:
    headers = {**own_headers(visitor), "content-type": "text/plain"}
    seen = raw(visitor, "POST", "/control/settings/users", headers, b'{"email": "eve@example.com"}')
    assert seen.status in {403, 415}


def test_a_page_changes_nothing_by_being_looked_at(visitor: Visitor) -> None:
    assert raw(visitor, "GET", "/control/sign-out", {}).status == 405
    assert visitor.visit("/", follow=False).status == 200


# --- invitations ---


def test_an_invitation_is_good_for_one(visitor: Visitor) -> None:
    email, path = invited(visitor, "support")
    shown = Visitor(visitor.address).visit(path)
    assert email in shown.words
    assert "Join Acme" in shown.words
    first = Visitor(visitor.address)
    assert first.send(path, password=PASSWORD).path == "/"
    second = Visitor(visitor.address)
    again = second.send(path, password="another password")
    assert again.status == 404
    assert "This invitation is over" in again.words
    assert not second.cookies
    assert tried(visitor, email, "another password").status == 401
    assert Visitor(visitor.address).visit(path).status == 404


def test_two_at_once_are_one_user(visitor: Visitor) -> None:
    _, path = invited(visitor, "support")

    def take(_: int) -> int:
        return Visitor(visitor.address).send(path, follow=False, password=PASSWORD).status

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, range(4))) == [303, 404, 404, 404]


async def test_an_invitation_ends_after_a_week(visitor: Visitor, rows: asyncpg.Connection) -> None:
    email, path = invited(visitor, "support")
    await rows.execute("update console_user set invited_until = now() where email = $1", email)
    assert Visitor(visitor.address).visit(path).status == 404
    assert Visitor(visitor.address).send(path, password=PASSWORD).status == 404

    (row,) = [one for one in visitor.company.call("GET", "/v1/companies/{company}/users").data if one["email"] == email]
    renewed = visitor.send(f"/control/settings/users/{row['id']}/invite")
    link = re.findall(r"/control/join/[\w-]+", renewed.text)[0]
    assert link != path
    assert Visitor(visitor.address).visit(path).status == 404
    assert Visitor(visitor.address).send(link, password=PASSWORD).path == "/"


def test_a_token_that_never_was_is_as_one_that_is_over(visitor: Visitor) -> None:
    for token in (secrets.token_urlsafe(32), "x", "%00", "%ff%fe", "%C3%A9"):
        seen = raw(Visitor(visitor.address), "GET", f"/control/join/{token}", {})
        assert seen.status == 404
        assert "This invitation is over" in seen.words


def test_a_bad_password_leaves_the_invitation_open(visitor: Visitor) -> None:
    _, path = invited(visitor, "support")
    for password in ("short", "x" * 2_000, "aaaaaaaaaaaaaaaa"):
        seen = Visitor(visitor.address).send(path, password=password)
        assert seen.status == 422
        assert "password" in seen.words
    assert Visitor(visitor.address).send(path, password=PASSWORD).path == "/"


def test_who_is_in_two_companies_enters_the_one_that_they_join(visitor: Visitor, client: Client) -> None:
    other = Visitor.signed_up(client, visitor.address, "Other")
    joined = colleague(other, "read_only", visitor.email)
    assert "Other" in joined.visit("/control/settings/you").words
    again = Visitor(visitor.address)
    opened_company = again.send("/control/sign-up", name="Third", email=visitor.email, password=PASSWORD)
    assert opened_company.attribute(r'Company <input value="([^"]+)"') not in {visitor.company.id, other.company.id}
    assert "Third" in again.visit("/").text


# --- codes of an authenticator ---


def code_of(secret: bytes, at: float) -> str:
    return TOTP(secret, 6, SHA1(), CODE_SECONDS).generate(at).decode()


async def with_codes(engine: Engine) -> tuple[bytes, MadeUpClock]:
    """The owner of a company who is asked for codes; the code of the present step is used up."""
    company_id, user_id = await opened(engine)
    clock, secret = engine.clock, users.new_code_secret()
    assert isinstance(clock, MadeUpClock)
    async with engine.database.reading() as reader:
        known = await store.read_credentials(reader, company_id, user_id)
    assert known is not None
    await users.ask_for_codes(engine, known.user, secret, code_of(secret, clock.at.timestamp()), HERE)
    return secret, clock


async def test_a_code_is_asked_for_and_taken_once(inside: Engine) -> None:
    secret, clock = await with_codes(inside)
    assert (await refused(inside)).code == "code_needed"
    assert (await refused(inside, code=code_of(secret, clock.at.timestamp()))).code == "code_needed", "used to begin"
    clock.forward(seconds=CODE_SECONDS)
    code = code_of(secret, clock.at.timestamp())
    assert (await sign_in(inside, code=f"{code[:3]} {code[3:]}")).token
    assert (await refused(inside, code=code)).code == "code_needed"


async def test_the_code_of_the_step_before_or_after_will_do_once(inside: Engine) -> None:
    secret, clock = await with_codes(inside)
    clock.forward(seconds=10 * CODE_SECONDS)
    before, after = (code_of(secret, clock.at.timestamp() + by) for by in (-CODE_SECONDS, CODE_SECONDS))
    assert (await sign_in(inside, code=before)).token
    assert (await refused(inside, code=before)).code == "code_needed"
    clock.forward(seconds=2)
    assert (await sign_in(inside, code=after)).token
    clock.forward(seconds=4)
    assert (await refused(inside, code=code_of(secret, clock.at.timestamp()))).code == "code_needed", (
        "older than one used"
    )


@pytest.mark.parametrize("steps", [-2, 2])
async def test_a_code_of_long_ago_or_to_come_is_none(inside: Engine, steps: int) -> None:
    secret, clock = await with_codes(inside)
    clock.forward(seconds=10 * CODE_SECONDS)
    code = code_of(secret, clock.at.timestamp() + steps * CODE_SECONDS)
    assert (await refused(inside, code=code)).code == "code_needed"


@pytest.mark.parametrize("code", ["12345", "1234567", "١٢٣٤٥٦", "abcdef", "1e5000", "-12345"])
async def test_what_is_no_code_is_counted_as_a_try(inside: Engine, code: str) -> None:
    await with_codes(inside)
    assert (await refused(inside, code=code)).code == "code_needed"
    assert (await refused(inside, code=code)).code == "sign_in_delayed"


async def test_codes_are_asked_of_nobody_whose_password_is_wrong(inside: Engine) -> None:
    secret, clock = await with_codes(inside)
    clock.forward(seconds=CODE_SECONDS)
    good = code_of(secret, clock.at.timestamp())
    assert (await refused(inside, password="not the password", code=good)).code == "sign_in_failed"


async def test_the_secret_of_codes_is_sealed_for_its_user(inside: Engine) -> None:
    secret, clock = await with_codes(inside)
    other_company, other = await opened(inside, "eve@example.com")
    async with inside.database.writing() as unit:
        kept = await unit.fetchval("select code_secret from console_user where code_secret is not null")
        assert secret not in kept
        assert secret.hex().encode() not in kept
        await unit.execute(
            "update console_user set code_secret = $1 where company_id = $2 and id = $3", kept, other_company, other
        )
    clock.forward(seconds=CODE_SECONDS)
    stolen = await refused(inside, email="eve@example.com", code=code_of(secret, clock.at.timestamp()))
    assert stolen.code == "code_needed", "what was sealed for one opens for no other"


# --- what is written down ---


async def test_what_is_done_at_the_door_is_written_down(visitor: Visitor, rows: asyncpg.Connection) -> None:
    company = visitor.company.id
    me = (await told(rows, company))[0][0]
    assert me.startswith("u_")
    assert tried(visitor, visitor.email, "not the password").status == 401
    await forget(rows, visitor.email)
    other = signed_in(visitor.address, visitor.company, visitor.email)
    visitor.send(
        "/control/settings/you/password", _password=PASSWORD, password="another password", again="another password"
    )
    assert other.visit("/", follow=False).status == 303
    visitor.send("/control/sign-out")

    assert await told(rows, company) == [
        (me, "sign_in"),
        ("", "sign_in_failed"),
        (me, "sign_in"),
        (me, "change_password"),
        (me, "sign_out"),
    ]
    kept = await rows.fetch("select * from activity where company_id = $1", int(company[2:], 36))
    assert {row["address"] for row in kept} == {"127.0.0.1"}
    assert {row["actor_name"] for row in kept} == {visitor.email}
    assert PASSWORD not in str([dict(row) for row in kept])


async def test_one_place_guesses_at_no_end_of_addresses(engine: Engine) -> None:
    async def attempt(address: str) -> str:
        with pytest.raises(Refusal) as refused:
            await users.sign_in(engine, email="x@example.com", password=PASSWORD, code="", came=Came(address))
        return refused.value.code

    far, proxy = "203.0.114.7", "10.0.0.1"
    async with engine.database.writing() as unit:
        for number in range(PLACE_FAILURES):
            for address in (far, proxy):
                await store.insert_failure(unit, f"{number}@example.com", address, engine.now())
    assert await attempt(far) == "sign_in_delayed"
    # Behind a proxy everybody comes from one address, and nobody may shut all others out.
    assert await attempt(proxy) == "sign_in_failed"
    assert await attempt("198.51.101.1") == "sign_in_failed"
