"""Secrets at rest: what opens, what does not, and how many keys two processes make."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tenuto.engine import SECRET_SETTINGS, Engine, Settings, read_settings
from tenuto.vault import KEY_FILE, Vault, VaultError, master_key
from tests.conftest import MadeUpClock

SECRET = "sk_test_51HvJkLmNoPqRs"
MINE = "company c_x/test stripe_key"
THEIRS = "company c_y/test stripe_key"
MASTER = bytes(range(223, 255))


@pytest.fixture
def vault() -> Vault:
    return Vault(MASTER)


def test_what_is_sealed_opens_in_its_own_context(vault: Vault) -> None:
    for text in ("", SECRET, "schlüssel \N{KEY}", "x" * 100_000):
        assert vault.open(vault.seal(text, context=MINE), context=MINE) == text


def test_sealed_bytes_say_nothing_and_are_never_the_same(vault: Vault) -> None:
    sealed = {vault.seal(SECRET, context=MINE) for _ in range(100)}
    assert len(sealed) == 100
    assert all(SECRET.encode() not in each for each in sealed)
    assert len({each[1:13] for each in sealed}) == 100


def test_a_secret_moved_to_another_place_does_not_open(vault: Vault) -> None:
    mine, theirs = vault.seal(SECRET, context=MINE), vault.seal("other", context=THEIRS)
    for sealed, context in ((mine, THEIRS), (theirs, MINE), (mine, "")):
        with pytest.raises(VaultError, match="another key, or altered"):
            vault.open(sealed, context=context)


def test_no_byte_may_be_altered_added_or_missing(vault: Vault) -> None:
    sealed = vault.seal(SECRET, context=MINE)
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises(VaultError):
            vault.open(bytes(altered), context=MINE)
    for wrong in (b"", sealed[:-1], sealed[:20], sealed + b"\0"):
        with pytest.raises(VaultError):
            vault.open(wrong, context=MINE)


def test_another_key_does_not_open_and_the_message_says_what_to_do(vault: Vault) -> None:
    sealed = vault.seal(SECRET, context=MINE)
    with pytest.raises(VaultError) as raised:
        Vault(bytes(32)).open(sealed, context=MINE)
    assert "TENUTO_SECRET_KEY" in str(raised.value)
    assert MINE in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_signature_is_of_one_text_by_one_key(vault: Vault) -> None:
    mac = vault.sign("a_10000000/1700000000")
    assert vault.verify("a_10000000/1700000000", mac)
    assert set(mac) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(mac) == 43
    assert not vault.verify("a_10000001/1700000000", mac)
    assert not Vault(bytes(32)).verify("a_10000000/1700000000", mac)
    for wrong in ("", mac[:-1], mac + "=", mac.swapcase(), "\N{KEY}", "\ud800"):
        assert not vault.verify("a_10000000/1700000000", wrong)


def test_sealing_and_signing_use_keys_of_their_own() -> None:
    """Pinned, so that no later version silently fails to open what this one sealed."""
    assert Vault(MASTER).sign("pinned") == "wTqlsML94NVCpwsZ5VhhYHx86l-tE1II6-xH8DH1z9E"
    sealed = bytes.fromhex(
        "0128c524b469fb5c3ed5e27165aee0291c4df280162b7f2db42a3253d4874140f8506269dbada08972f8e99acb953bf9608065"
    )
    assert Vault(MASTER).open(sealed, context=MINE) == SECRET


@pytest.mark.parametrize(
    "text",
    [
        MASTER.hex(),
        MASTER.hex().upper(),
        base64.urlsafe_b64encode(MASTER).decode(),
        base64.urlsafe_b64encode(MASTER).decode().rstrip("="),
        base64.b64encode(MASTER).decode().rstrip("="),
    ],
)
def test_a_key_may_be_spelled_in_hex_or_base64(text: str, tmp_path: Path) -> None:
    assert master_key(text, tmp_path) == MASTER
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["short", "0" * 63, "0" * 65, "ü" * 43, "a" * 44, " " + "0" * 64, "\n"])
def test_what_is_no_key_is_refused_without_showing_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="TENUTO_SECRET_KEY is no key: it takes 32 bytes") as raised:
        master_key(text, tmp_path)
    assert text.strip() == "" or text not in str(raised.value)


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "not" / "yet"
    first = master_key("", data)
    assert stat.S_IMODE((data / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in data.iterdir()] == [KEY_FILE]
    assert master_key("", data) == first
    assert master_key("", tmp_path) != first


def test_a_key_file_that_others_may_read_is_mended(tmp_path: Path) -> None:
    first = master_key("", tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    assert master_key("", tmp_path) == first
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_a_key_file_with_something_else_in_it_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("hello")
    with pytest.raises(VaultError, match=r"secret\.key is no key"):
        master_key("", tmp_path)
    assert (tmp_path / KEY_FILE).read_text() == "hello"


def test_where_no_file_can_be_made_the_message_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultError, match="set TENUTO_SECRET_KEY"):
        master_key("", tmp_path / "file")


def test_many_that_start_at_once_end_with_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tenuto.vault import master_key; sys.stdin.read();"
        "print(master_key('', Path(sys.argv[1])).hex())"
    )
    for attempt in range(3):
        data = tmp_path / str(attempt)
        gate_out, gate_in = os.pipe()
        makers = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(data)], stdin=gate_out, stdout=subprocess.PIPE, text=True
            )
            for _ in range(6)
        ]
        os.close(gate_out)
        os.close(gate_in)  # all of them wait for this
        keys = {maker.communicate(timeout=30)[0] for maker in makers}
        assert len(keys) == 1, keys
        assert [path.name for path in data.iterdir()] == [KEY_FILE]


async def test_the_engine_makes_its_vault_at_first_use(engine: Engine, tmp_path: Path) -> None:
    data = tmp_path / "data"
    mine = Engine(Settings(data=str(data)), engine.database, MadeUpClock())
    assert not data.exists()
    sealed = mine.vault.seal(SECRET, context=MINE)
    assert mine.vault is mine.vault
    assert Vault(master_key("", data)).open(sealed, context=MINE) == SECRET
    told = Engine(Settings(secret_key=MASTER.hex()), engine.database, MadeUpClock())
    assert Vault(MASTER).open(told.vault.seal(SECRET, context=MINE), context=MINE) == SECRET


def test_the_key_is_a_secret_setting() -> None:
    settings, _ = read_settings({}, {"TENUTO_SECRET_KEY": MASTER.hex()})
    assert settings.secret_key == MASTER.hex()
    assert "secret_key" in SECRET_SETTINGS
    assert MASTER.hex() not in repr(settings)
