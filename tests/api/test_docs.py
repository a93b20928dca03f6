"""The commands in the pages, run as they stand against a running service.

Every ``sh`` block of a page is run by a shell, in order. The address in the page becomes the service's, and an id such
as ``a_…`` the latest id of that kind in the output so far. Where a ``json`` block follows, the last line of the output
must hold everything that it shows; a text that ends in ``…`` there stands for any that begins like it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
ADDRESS: Final = "http://127.0.0.1:8080"
PORT: Final = "PORT=9000"
"""Where a page lets a program of its own listen; the test finds another port for it."""
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
CALLED_NEARBY: Final = ROOT / "docs" / "guides" / "webhooks.md"
"""The page whose webhooks are received on this machine."""
RUN_ELSEWHERE: Final = {"docs/import.md": "tests/api/test_import.py"}
"""Pages whose commands need a file, and the tests that run the same."""
ID: Final = re.compile(r"\b(?:sk_(?:test|live)_[0-9A-Za-z_]+|(?:ep|wd|[acektupw])_[0-9a-z]{8,18})\b")
PLACEHOLDER: Final = re.compile(r"\b(sk_test|sk_live|ep|wd|[acektupw])_…")

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="the pages use curl, which is not installed")


class Reader:
    """Somebody who works through a page, keeping variables and the ids that were shown."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.exports: list[str] = []
        self.seen: dict[str, str] = {}
        self.left: list[int] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = f"PORT={free.getsockname()[1]}"

    def run(self, block: str) -> str:
        """The output of a block; fails where a command of it does."""
        block = PLACEHOLDER.sub(lambda found: self.seen[found[1]], block.replace(ADDRESS, self.address))
        block = block.replace(PORT, self.port)
        with subprocess.Popen(
            ["bash", "-euc", "\n".join([*self.exports, block])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as shell:
            try:
                stdout, stderr = shell.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                raise
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, 0)
            self.left.append(shell.pid)
        assert shell.returncode == 0, f"{block}\n{stderr}"
        self.exports += re.findall(r"^export .*$", block, flags=re.MULTILINE)
        lines = stdout.replace("}{", "}\n{").splitlines()
        for line in lines:
            # What an answer is about stands first in it, what it refers to comes later: the first of a kind is meant.
            for found in reversed(ID.findall(line)):
                self.seen[found.rpartition("_")[0] if not found.startswith("sk_") else found[:7]] = found
        return lines[-1] if lines else ""

    def leave(self) -> None:
        """End what blocks left running and the page did not end."""
        for pid in self.left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def reader(page: Path, request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Somebody who works through ``page``; where that is called nearby, with a service that may do it."""
    found = Reader(request.getfixturevalue("calling_service" if page == CALLED_NEARBY else "service").url)
    yield found
    found.leave()


def assert_shows(shown: object, real: object, path: str = "") -> None:
    """Everything that a page shows is in the answer; fields that it leaves out may be there."""
    if isinstance(shown, dict):
        assert isinstance(real, dict), f"{path}: {real!r} is no object"
        for name, value in shown.items():
            assert name in real, f"{path}.{name} is not in the answer, only {sorted(real)}"
            assert_shows(value, real[name], f"{path}.{name}")
    elif isinstance(shown, list):
        assert isinstance(real, list), f"{path}: {real!r} is no list"
        assert len(shown) == len(real), f"{path}: {len(real)} items"
        for index, (one, other) in enumerate(zip(shown, real, strict=True)):
            assert_shows(one, other, f"{path}[{index}]")
    elif isinstance(shown, str) and shown.endswith("…"):
        assert str(real).startswith(shown[:-1]), f"{path}: {real!r} is not like {shown!r}"
    else:
        assert shown == real, f"{path}: the page shows {shown!r}, the answer holds {real!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_does_what_the_page_says(page: Path, reader: Reader) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert any(kind == "sh" for kind, _ in blocks)
    last, compared = "", 0
    for kind, block in blocks:
        if kind == "sh":
            last = reader.run(block)
        elif kind == "json":
            assert_shows(json.loads(block), json.loads(last))
            compared += 1
    assert compared


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_holds_a_command_that_is_not_run(page: Path) -> None:
    """Outside the guides, blocks are ``console`` (told, checked by name in the house), ``json`` or ``ini``."""
    kinds = set(re.findall(r"^```(\w+)$", page.read_text(), flags=re.MULTILINE))
    name = str(page.relative_to(ROOT))
    allowed = {"sh", "json"} if page in PAGES else {"console", "json", "ini"}
    if name in RUN_ELSEWHERE:
        assert (ROOT / RUN_ELSEWHERE[name]).exists()
        allowed.add("sh")
    assert kinds <= allowed, f"{name} has blocks of {sorted(kinds - allowed)}"
