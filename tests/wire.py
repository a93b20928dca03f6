"""A quick HTTP client for crowds: raw sockets on asyncio, one request at a time on each, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, NamedTuple, Self


class Heard(NamedTuple):
    """An answer as it came."""

    status: int
    head: str
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Wire:
    """One keep-alive connection as one company."""

    def __init__(self, address: tuple[str, int], company_id: str, key: str) -> None:
        self.address = address
        basic = base64.b64encode(f"{company_id}:{key}".encode()).decode()
        self._head = f"host: x\r\nauthorization: Basic {basic}\r\ncontent-type: application/json\r\n"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection at once, whatever is under way on it."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def begin(self, method: str, path: str, body: object = None) -> None:
        """Send a request. Raises OSError when nobody is there."""
        if self._writer is None or self._reader is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection(*self.address)
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}content-length: {len(payload)}\r\n\r\n"
        self._writer.write(head.encode() + payload)

    async def hear(self) -> Heard:
        """The answer to what was sent. Raises OSError when the connection ended before it."""
        assert self._reader is not None
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            return Heard(int(head[9:12]), head, await self._reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            self.close()
            raise ConnectionResetError("the connection ended before the answer") from error
        except OSError:
            self.close()
            raise

    async def call(self, method: str, path: str, body: object = None) -> Heard:
        await self.begin(method, path, body)
        return await self.hear()
