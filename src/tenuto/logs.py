"""Structured logs: one JSON line a verb, to standard error.

Only named facts go in: action, ids, status, milliseconds. Never a header, a body, a key or an e-mail address; the last
processor drops every field whose name could carry one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import msgspec
import structlog

_SECRET: Final = frozenset(
    {"authorization", "cookie", "password", "api_key", "secret", "token", "body", "headers", "email", "dsn"}
)


def configure(level: str) -> None:
    """Set structlog up for a process. ``level``: debug, info, warning or error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _drop_secrets,
            structlog.processors.EventRenamer("action"),
            structlog.processors.JSONRenderer(serializer=_encoded),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)


def _drop_secrets(_logger: Any, _name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in _SECRET.intersection(fields):
        del fields[name]
    return fields


def _encoded(fields: dict[str, Any], **_: Any) -> str:
    return msgspec.json.encode(fields, enc_hook=str).decode()
