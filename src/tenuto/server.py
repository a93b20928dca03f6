"""The processes of ``tenuto serve``: one parent, workers that answer, and a simulator of Stripe to try payments with.

The parent holds the listening socket and, by default, the embedded PostgreSQL; it imports no web framework, so it
starts at once. A worker that dies is started again; the socket stays open meanwhile, so its clients wait instead of
being refused. When the parent ends, for whatever reason, workers, simulator and database end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from tenuto.engine import Settings

STOP_SECONDS: Final = 10.0
RESTART_SECONDS: Final = 0.2
STEADY_SECONDS: Final = 10.0
SANDBOX_FILE: Final = "stripe-simulator.ndjson"
SANDBOX_ADDRESS: Final = "sandbox.url"
"""The file of the data folder that says where the simulator answers: for programs beside the server."""
_WORKER: Final = "TENUTO_WORKER_SOCKET"
_SANDBOX: Final = "TENUTO_SANDBOX_SOCKET"
_COURIER: Final = "TENUTO_COURIER"
COURIER_NICENESS: Final = 10
"""Webhooks are delivered with what the workers leave of the processor."""
KEYS_SECONDS: Final = 10.0
"""How long an issuer may take to show its keys."""
START_SECONDS: Final = 10.0
"""How long a process waits at its start for a database that is starting itself."""


def listen(host: str, port: int) -> socket.socket:
    """The listening socket. Raises OSError naming the address when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{error.strerror}: {host}:{port}. Choose another with --port.") from error
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


def environ_of(settings: Settings, dsn: str) -> dict[str, str]:
    """The environment variables with which a child of the server reads the same settings."""
    names = (
        *("host", "port", "workers", "lanes", "operator_token", "log_level", "data"),
        *("public_url", "stripe_url", "sandbox", "sandbox_url", "private_webhooks"),
    )
    return {
        **os.environ,
        **{f"TENUTO_{name.upper()}": str(getattr(settings, name)) for name in names},
        **({"TENUTO_SECRET_KEY": settings.secret_key} if settings.secret_key else {}),
        # The workers get a database in any case; whether strangers may register was decided before.
        "TENUTO_REGISTRATION": "open" if settings.is_registration_open else "closed",
        "TENUTO_DATABASE": dsn,
    }


class Workers:
    """The worker processes, kept alive until :meth:`stop`."""

    def __init__(self, listener: socket.socket, settings: Settings, dsn: str) -> None:
        self._listener, self._settings = listener, settings
        self._environ = {**environ_of(settings, dsn), _WORKER: str(listener.fileno())}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start_after = 0.0
        self._pause = RESTART_SECONDS
        self._is_stopping = False

    def start(self) -> None:
        """Start them all."""
        self._processes = [self._spawn() for _ in range(max(1, self._settings.workers))]

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tenuto.server"],  # nothing of the folder it is started in is imported
            env=self._environ,
            pass_fds=[self._listener.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [process.pid for process in self._processes]

    def tend(self, on_restart: Callable[[int], None]) -> None:
        """Start again whoever died; called every moment or two."""
        now = time.monotonic()
        for index, process in enumerate(self._processes):
            if process.poll() is None or self._is_stopping or now < self._start_after:
                continue
            on_restart(process.returncode)
            # One that dies again at once is given more time each round, so that a broken start does not spin.
            self._pause = RESTART_SECONDS if now > self._start_after + STEADY_SECONDS else min(5.0, self._pause * 2)
            self._start_after = now + self._pause
            self._processes[index] = self._spawn()

    def stop(self) -> None:
        """Ask the workers to finish what they do, and end those that do not."""
        self._is_stopping = True
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        give_up_at = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.1, give_up_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Child:
    """A process beside the workers, kept alive until :meth:`stop`."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], sockets: Sequence[int] = ()) -> None:
        self._arguments, self._environ, self._sockets = list(arguments), dict(environ), list(sockets)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause = RESTART_SECONDS

    @property
    def pid(self) -> int | None:
        """The process id, once it was started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, without waiting for it."""
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tenuto.server", *self._arguments],
            env=self._environ,
            pass_fds=self._sockets,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def tend(self, on_restart: Callable[[int], None]) -> None:
        """Start it again if it died, after a pause that grows while it dies at once."""
        if self._process is None or self._process.poll() is None:
            return
        lived = time.monotonic() - self._started_at
        if lived < self._pause:
            return
        self._pause = RESTART_SECONDS if lived > STEADY_SECONDS else min(5.0, self._pause * 2)
        on_restart(self._process.returncode)
        self.start()

    def stop(self) -> None:
        """End it, and let go of its port."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


class Sandbox:
    """The simulator of Stripe as a process. Its book and port survive it; who asks meanwhile waits at its socket."""

    def __init__(self, data: Path) -> None:
        self._listener = listen("127.0.0.1", 0)
        self._address = data / SANDBOX_ADDRESS
        socket_fd = self._listener.fileno()
        self._child = Child([str(data / SANDBOX_FILE)], {**os.environ, _SANDBOX: str(socket_fd)}, [socket_fd])

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def pid(self) -> int | None:
        """The process id, once it was started."""
        return self._child.pid

    def start(self) -> None:
        """Start it, and write down where it answers."""
        self._address.parent.mkdir(parents=True, exist_ok=True)
        self._address.write_text(f"{self.url}\n")
        self._child.start()

    def tend(self, on_restart: Callable[[int], None]) -> None:
        """Start it again if it died."""
        self._child.tend(on_restart)

    def stop(self) -> None:
        """End it, and let go of its port."""
        self._child.stop()
        if self._listener.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._address.unlink()
        self._listener.close()


def run_courier() -> None:
    """The body of the process that delivers webhooks. On Linux it stands back behind the workers."""
    die_with_parent()
    os.nice(COURIER_NICENESS)
    import uvloop

    from tenuto import logs
    from tenuto.engine import Engine, read_settings
    from tenuto.gateway.egress import Egress
    from tenuto.service.deliveries import UNDER_WAY_MAX, Courier
    from tenuto.service.issuers import refresh_keys
    from tenuto.worker import Clockwork, Sweep

    settings, _ = read_settings()
    logs.configure(settings.log_level)

    async def run() -> None:
        stopping = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stopping.set)
        engine = await Engine.open(settings, settings.database, patience=START_SECONDS)
        egress = Egress(allow_private=settings.may_call_near, connections_max=UNDER_WAY_MAX)
        # Keys of issuers have a door of their own: no receiver of webhooks that hangs is in their way.
        keys = Egress(allow_private=settings.may_call_near, total_seconds=KEYS_SECONDS)
        clockwork = Clockwork(engine, (Sweep("refresh_keys", partial(refresh_keys, get=keys.get), 0.5),))
        clockwork.start()
        try:
            await Courier(engine, egress.post).run(stopping)
        finally:
            await egress.close()
            await keys.close()
            await clockwork.stop()
            await engine.close()

    uvloop.run(run())


def run_sandbox(data: Path) -> None:
    """The body of the simulator's process: Stripe's routes, on the socket it was given."""
    die_with_parent()
    from tenuto.gateway.simulator import run

    run(data=data, socket_fd=int(os.environ[_SANDBOX]), say=lambda _: None)


def wait_until_ready(host: str, port: int, *, seconds: float) -> bool:
    """Whether the service answers /readyz with 200 within so many seconds."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        try:
            with socket.create_connection((host, port), timeout=1) as connection:
                connection.settimeout(max(0.1, give_up_at - time.monotonic()))
                connection.sendall(f"GET /readyz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def die_with_parent() -> None:
    """On Linux, ask the kernel to end this process when its parent is gone, however that ended."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            sys.exit(0)


def run_worker() -> None:
    """The body of a worker process: the application on the socket it was given, and the clockwork beside it."""
    die_with_parent()
    import uvicorn

    from tenuto import logs
    from tenuto.api.app import Application
    from tenuto.engine import Engine, read_settings
    from tenuto.service.usage import open_lanes
    from tenuto.worker import Clockwork

    settings, _ = read_settings()
    logs.configure(settings.log_level)
    running: list[tuple[Engine, Clockwork]] = []

    async def open_engine() -> Engine:
        engine = await Engine.open(settings, settings.database, patience=START_SECONDS)
        engine.lanes = open_lanes(engine)
        engine.lanes.start()
        clockwork = Clockwork(engine)
        clockwork.start()
        running.append((engine, clockwork))
        # What start-up made stays for good: keep the collector from walking it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        return engine

    async def close() -> None:
        for engine, clockwork in running:
            await clockwork.stop()
            await engine.close()

    config = uvicorn.Config(
        Application(open_engine, close),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(STOP_SECONDS),
        h11_max_incomplete_event_size=65_536,
    )
    listener = socket.socket(fileno=int(os.environ[_WORKER]))
    uvicorn.Server(config).run(sockets=[listener])


async def prepare(dsn: str) -> list[str]:
    """Refuse an unsafe server, then bring the schema up to date; the migrations that were applied."""
    from tenuto.store.database import migrate, refuse_unsafe_settings

    await refuse_unsafe_settings(dsn)
    return await migrate(dsn)


class Server:
    """All of it in one object: database, workers, socket. For the command line, the demo, the bench and the tests."""

    def __init__(self, settings: Settings, say: Callable[[str], None] = lambda _: None) -> None:
        self.settings, self._say = settings, say
        self._stop_database: Callable[[], None] = lambda: None
        self._listener: socket.socket | None = None
        self.workers: Workers | None = None
        self.sandbox: Sandbox | None = None
        self.courier: Child | None = None
        self.dsn = settings.database

    def start(self) -> None:
        """Bring everything up. Raises what keeps it from coming up, with a sentence that says what to do."""
        if self.settings.secret_key:
            from tenuto.vault import master_key

            master_key(self.settings.secret_key, Path(self.settings.data))  # a key that is none is told at once
        self._listener = listen(self.settings.host, self.settings.port)
        if not self.dsn:
            from tenuto.postgres import EmbeddedPostgres

            self._say("Starting the embedded PostgreSQL")
            embedded = EmbeddedPostgres.start(Path(self.settings.data))
            self._stop_database, self.dsn = embedded.stop, embedded.dsn
        try:
            applied = asyncio.run(prepare(self.dsn))
            if applied:
                self._say(f"Applied {len(applied)} migration(s): {', '.join(applied)}")
            if self.settings.is_sandbox_ours:
                self.sandbox = Sandbox(Path(self.settings.data))
            settings = self._settings_of_workers()
            self.workers = Workers(self._listener, settings, self.dsn)
            self.workers.start()
            self.courier = Child((), {**environ_of(settings, self.dsn), _COURIER: "1"})
            self.courier.start()
            if self.sandbox is not None:
                self.sandbox.start()
        except BaseException:
            self.stop()
            raise

    def _settings_of_workers(self) -> Settings:
        """What is known only now that the sockets are there."""
        return replace(
            self.settings,
            public_url=self.settings.public_url or self.url,
            sandbox_url=self.settings.sandbox_url or (self.sandbox.url if self.sandbox is not None else ""),
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port in fact (the port may have been chosen by the system)."""
        assert self._listener is not None
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self.address
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - only spelled

    def run(self) -> None:
        """Tend the workers until SIGINT or SIGTERM."""
        stopping = False

        def stop(*_: object) -> None:
            nonlocal stopping
            stopping = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        while not stopping:
            self.tend()
            time.sleep(RESTART_SECONDS)

    def tend(self) -> None:
        """Start again what died."""
        if self.workers is not None:
            self.workers.tend(lambda code: self._say(f"A worker ended with {code}; starting another"))
        if self.sandbox is not None:
            self.sandbox.tend(lambda code: self._say(f"The simulator of Stripe ended with {code}; starting it again"))
        if self.courier is not None:
            self.courier.tend(lambda code: self._say(f"The courier of webhooks ended with {code}; starting another"))

    def stop(self) -> None:
        """Take everything down, workers first."""
        if self.workers is not None:
            self.workers.stop()
        if self.courier is not None:
            self.courier.stop()
        if self.sandbox is not None:
            self.sandbox.stop()
        if self._listener is not None:
            self._listener.close()
        self._stop_database()


if __name__ == "__main__":
    if _SANDBOX in os.environ:
        run_sandbox(Path(sys.argv[1]))
    elif _COURIER in os.environ:
        run_courier()
    else:
        run_worker()
