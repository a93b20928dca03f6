"""`tenuto serve` and the simulator of Stripe beside it: real processes, real kills."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tenuto.engine import Settings
from tenuto.server import SANDBOX_FILE, Server, wait_until_ready
from tenuto.vault import VaultError

KEY = "sk_test_server_sandbox"


@pytest.fixture
def settings(new_database: Callable[[str], str], tmp_path: Path) -> Settings:
    """A database of ours, so that the simulator is asked for by name and the test starts no PostgreSQL."""
    return Settings(
        port=0, database=new_database("sandbox"), data=str(tmp_path / "data"), sandbox="on", log_level="error"
    )


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    found = Server(settings)
    found.start()
    yield found
    found.stop()


def url_of(server: Server) -> str:
    assert server.sandbox is not None
    return server.sandbox.url


def pid_of(server: Server) -> int:
    assert server.sandbox is not None
    assert server.sandbox.pid is not None
    return server.sandbox.pid


def ask(url: str, path: str, form: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(
        f"{url}{path}",
        data=urlencode(form).encode() if form else None,
        headers={"authorization": f"Basic {b64encode(f'{KEY}:'.encode()).decode()}"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_simulator_answers_beside_the_service_and_comes_back_with_its_book(server: Server, tmp_path: Path) -> None:
    url, first = url_of(server), pid_of(server)
    customer = ask(url, "/v1/customers", {"name": "Ada"})["id"]
    assert wait_until_ready(*server.address, seconds=20)
    assert (tmp_path / "data" / SANDBOX_FILE).exists()

    os.kill(first, signal.SIGKILL)
    give_up_at = time.monotonic() + 20
    while pid_of(server) == first:
        assert time.monotonic() < give_up_at
        server.tend()
        time.sleep(0.02)
    assert url_of(server) == url
    assert ask(url, f"/v1/customers/{customer}")["name"] == "Ada"

    second = pid_of(server)
    server.stop()
    assert is_gone(first)
    assert is_gone(second)


def test_the_workers_know_where_it_is_and_what_only_the_parent_knows(server: Server) -> None:
    assert server.workers is not None
    environ = dict(
        entry.split("=", 1)
        for entry in Path(f"/proc/{server.workers.pids[0]}/environ").read_text().split("\0")
        if "=" in entry
    )
    assert environ["TENUTO_SANDBOX_URL"] == url_of(server)
    assert environ["TENUTO_PUBLIC_URL"] == server.url
    assert environ["TENUTO_STRIPE_URL"] == "https://api.stripe.com"
    assert "TENUTO_SECRET_KEY" not in environ


def test_a_simulator_elsewhere_and_a_key_of_ones_own_are_handed_on(settings: Settings) -> None:
    told = replace(
        settings, sandbox_url="http://127.0.0.1:9", public_url="https://billing.example.com", secret_key="a" * 64
    )
    server = Server(told)
    server.start()
    try:
        assert server.sandbox is None
        assert server.workers is not None
        environ = server.workers._environ
    finally:
        server.stop()
    assert environ["TENUTO_SANDBOX_URL"] == "http://127.0.0.1:9"
    assert environ["TENUTO_PUBLIC_URL"] == "https://billing.example.com"
    assert environ["TENUTO_SECRET_KEY"] == "a" * 64


@pytest.mark.parametrize(
    ("sandbox", "database", "url", "is_ours"),
    [
        ("", "", "", True),
        ("", "postgresql://elsewhere", "", False),
        ("on", "postgresql://elsewhere", "", True),
        ("off", "", "", False),
        ("on", "", "http://127.0.0.1:9", False),
    ],
)
def test_it_runs_with_the_embedded_database_unless_told_otherwise(
    sandbox: str, database: str, url: str, *, is_ours: bool
) -> None:
    assert Settings(sandbox=sandbox, database=database, sandbox_url=url).is_sandbox_ours is is_ours


def test_a_key_that_is_none_is_told_before_anything_starts() -> None:
    server = Server(Settings(port=0, secret_key="hello"))
    with pytest.raises(VaultError, match="TENUTO_SECRET_KEY is no key"):
        server.start()
    server.stop()
