"""Secrets at rest, and links that cannot be made up.

The problem, on one example. A company gives us its Stripe key; who gets hold of a copy of the database must not get the
key with it, and who may write to the database must not be able to put one company's key in another's row:

    seal("sk_test_abc", context="company c_x/test stripe_key")    the bytes that stand in the table
    open(those bytes, context="company c_x/test stripe_key")      "sk_test_abc"
    open(those bytes, context="company c_y/test stripe_key")      VaultError

A sealed secret is one version byte, a nonce of 96 bits from chance, and what AES-256-GCM makes of the text; version and
context are authenticated, not stored. The master key is 32 bytes from ``TENUTO_SECRET_KEY`` or from a file of the data
folder; the keys that seal and sign are derived from it by HKDF, so neither tells anything of the other.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
KEY_FILE: Final = "secret.key"
VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_BASE64: Final = re.compile(r"[A-Za-z0-9_+/-]{43}=?")


class VaultError(Exception):
    """A secret cannot be read, or there is no key to read it with. The message says what to do, and holds no secret."""


class Vault:
    """Seals and opens, signs and verifies, with keys made from one master key of 32 bytes."""

    __slots__ = ("_cipher", "_signing_key")

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise VaultError(f"A master key has {KEY_BYTES} bytes, not {len(master)}.")
        self._cipher = AESGCM(_derived(master, b"tenuto seal 1"))
        self._signing_key = _derived(master, b"tenuto sign 1")

    def seal(self, text: str, *, context: str) -> bytes:
        """``text`` as bytes that say nothing. ``context`` names the place where it will stand, needed to open."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return VERSION + nonce + self._cipher.encrypt(nonce, text.encode(), VERSION + context.encode())

    def open(self, sealed: bytes, *, context: str) -> str:
        """The text that was sealed for this very context. Raises VaultError for anything else."""
        if sealed[:1] != VERSION or len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES:
            raise VaultError(f"The secret of {context} was not sealed by this version of Tenuto. Give it anew.")
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, VERSION + context.encode()).decode()
        except InvalidTag:
            raise VaultError(
                f"The secret of {context} does not open: it was sealed with another key, or altered. Bring back the "
                f"TENUTO_SECRET_KEY (or the file {KEY_FILE} of the data folder) that sealed it, or give it anew."
            ) from None

    def sign(self, text: str) -> str:
        """A signature of 43 characters that may stand in an address."""
        return _url_text(hmac.digest(self._signing_key, text.encode(), hashlib.sha256))

    def verify(self, text: str, mac: str) -> bool:
        """Whether ``mac`` is what :meth:`sign` made of ``text``, told in the same time for every wrong one."""
        return hmac.compare_digest(self.sign(text).encode(), mac.encode("utf-8", "surrogatepass"))


def master_key(secret_key: str, data: Path) -> bytes:
    """The 32 bytes that everything is sealed with: what was set, or the key file of the data folder, made if missing.

    Raises VaultError saying what to do.
    """
    if secret_key:
        return _parsed(secret_key, "TENUTO_SECRET_KEY")
    path = data / KEY_FILE
    try:
        if not path.exists():
            _make_key_file(path)
        if path.stat().st_mode & 0o077:
            with contextlib.suppress(PermissionError):  # somebody else's file, mounted for us: theirs to mend
                path.chmod(0o600)
        text = path.read_text("ascii", "replace").strip()
    except OSError as error:
        raise VaultError(
            f"There is no key for secrets: {path}: {error.strerror}. Make the folder writable, or set "
            "TENUTO_SECRET_KEY to 32 bytes from chance (openssl rand -hex 32)."
        ) from error
    return _parsed(text, str(path))


def _make_key_file(path: Path) -> None:
    """Write a key from chance where there is none. Of several that start at once, one wins and all use its key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(_url_text(secrets.token_bytes(KEY_BYTES)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and never replaces one that is there.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync a folder
            raise
    finally:
        os.close(folder)


def _parsed(text: str, source: str) -> bytes:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if _BASE64.fullmatch(text):
        with contextlib.suppress(binascii.Error):
            return base64.b64decode(text.rstrip("=").translate(str.maketrans("-_", "+/")) + "=", validate=True)
    raise VaultError(
        f"{source} is no key: it takes 32 bytes, as 64 hexadecimal digits or 43 characters of base64url. "
        "Make one with: openssl rand -hex 32"
    )


def _derived(master: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(master)


def _url_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
