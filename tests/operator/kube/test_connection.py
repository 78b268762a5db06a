"""Logins: credentials are renewed before they expire, and after a 401 every client uses a new login."""

# ruff: noqa: F811

from __future__ import annotations

import asyncio
import json
import ssl
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
import yaml

from diffugen_operator.kube import connection as connection_module
from diffugen_operator.kube.api import ApiError, Cluster
from diffugen_operator.kube.cache import Resource
from diffugen_operator.kube.connection import Connection, WatchEndedError
from diffugen_operator.kube.credentials import Credential
from diffugen_operator.kube.kubeconfig import Access, LoginError
from diffugen_operator.settings import Settings
from diffugen_operator.telemetry.metrics import Metrics
from tests.operator.kube.test_api import JOB, ApiServer, a_kubeconfig, api, ended  # noqa: F401  (a fixture)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
API_VERSION = "client.authentication.k8s.io/v1"


class Login:
    """A connection by a kubeconfig that the test edits, with a clock that the test sets."""

    def __init__(self, folder: Path, server: str) -> None:
        self.file, self.now, self.restarts = Path(a_kubeconfig(folder, server)), NOW, list[tuple[str, str]]()
        self.connection = Connection(
            Settings(kubeconfig=str(self.file)),
            Metrics().count_request,
            now=lambda: self.now,
            count_restart=lambda resource, reason: self.restarts.append((resource, reason)),
        )
        self.cluster = Cluster(self.connection, Settings())

    def user(self, user: dict[str, Any], **config: Any) -> None:
        there = yaml.safe_load(self.file.read_text())
        self.file.write_text(yaml.safe_dump({**there, "users": [{"name": "u", "user": user}], **config}))

    def exec_plugin(self, script: str) -> None:
        program = self.file.with_name("plugin")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.user({"exec": {"command": "./plugin", "apiVersion": API_VERSION, "env": [{"name": "WHO", "value": "me"}]}})


@pytest.fixture
async def login(api: ApiServer, tmp_path: Path) -> AsyncIterator[Login]:
    login = Login(tmp_path, api.url)  # type: ignore[attr-defined]  # the port is known only here
    yield login
    await login.connection.close()


def tokens(api: ApiServer) -> list[str]:
    return [headers["Authorization"] for headers in api.headers]


def printing(count: Path, *, lives: timedelta) -> str:
    """Return a script that prints another token each time, and counts."""
    expires = (NOW + lives).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = f'{{"token": "$WHO-$(wc -l < {count} | tr -d " ")", "expirationTimestamp": "{expires}"}}'
    credential = f'{{"apiVersion": "{API_VERSION}", "kind": "ExecCredential", "status": {status}}}'
    return f"echo >> {count}\ncat <<EOF\n{credential}\nEOF"


async def test_an_exec_plugin_runs_once_and_again_before_its_credential_expires(
    api: ApiServer,
    login: Login,
    tmp_path: Path,
) -> None:
    login.exec_plugin(printing(tmp_path / "count", lives=timedelta(minutes=15)))

    for minutes in (0, 12, 14):
        login.now = NOW + timedelta(minutes=minutes)
        await login.cluster.create_job(JOB)

    assert tokens(api) == ["Bearer me-1", "Bearer me-1", "Bearer me-2"]


async def test_after_a_later_failure_of_the_plugin_the_old_credential_stays_in_use(
    api: ApiServer,
    login: Login,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    login.exec_plugin(printing(tmp_path / "count", lives=timedelta(minutes=15)))
    await login.cluster.create_job(JOB)
    login.exec_plugin("echo no network >&2; exit 3")
    login.now = NOW + timedelta(minutes=14)

    await login.cluster.create_job(JOB)

    assert tokens(api) == ["Bearer me-1", "Bearer me-1"]
    assert "ended with exit code 3: no network. The former one stays in use." in caplog.text


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo who are you >&2; exit 1", "ended with exit code 1: who are you"),
        ("echo '[]'", "printed no ExecCredential"),
        ("echo '{}'", "printed no ExecCredential: it must be of kind ExecCredential"),
        (
            f'echo \'{{"kind": "ExecCredential", "apiVersion": "{API_VERSION}", "status": {{}}}}\'',
            "its status has neither a token nor a client certificate",
        ),
    ],
)
async def test_a_plugin_without_a_credential_at_the_start_is_reported(login: Login, script: str, words: str) -> None:
    login.exec_plugin(script)

    with pytest.raises(LoginError, match=words):
        await login.cluster.create_job(JOB)


async def test_a_program_that_is_not_installed_is_reported_with_its_hint(login: Login) -> None:
    login.user({"exec": {"command": "no-such-plugin", "apiVersion": API_VERSION, "installHint": "Install it."}})

    with pytest.raises(LoginError, match=r"no-such-plugin .* cannot run: .*\. Install it\."):
        await login.cluster.create_job(JOB)


async def test_a_token_file_is_read_again_each_minute(api: ApiServer, login: Login, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    login.user({"tokenFile": "token"})
    await login.cluster.create_job(JOB)
    (tmp_path / "token").write_text("two\n")

    for seconds in (50, 61):
        login.now = NOW + timedelta(seconds=seconds)
        await login.cluster.create_job(JOB)

    assert tokens(api) == ["Bearer one", "Bearer one", "Bearer two"]


async def test_any_401_causes_a_new_login(api: ApiServer, login: Login) -> None:
    api.will({}).will({"reason": "Unauthorized"}, 401)
    await login.cluster.create_job(JOB)
    login.user({"token": "new-token"})
    with pytest.raises(ApiError, match="401 Unauthorized"):
        await login.cluster.create_job(JOB)

    await login.cluster.create_job(JOB)

    assert tokens(api) == ["Bearer secret-token", "Bearer secret-token", "Bearer new-token"]
    assert api.ports[0] == api.ports[1] != api.ports[2], "another pool: a connection may have the former certificate"


async def test_the_context_that_the_settings_name_is_used(api: ApiServer, login: Login) -> None:
    there = yaml.safe_load(login.file.read_text())
    named = {"name": "named", "context": {"cluster": "c", "user": "v"}}
    users = [*there["users"], {"name": "v", "user": {"token": "of-v"}}]
    login.user({}, users=users, contexts=[*there["contexts"], named])
    settings = Settings(kubeconfig=str(login.file), context="named")
    connection = Connection(settings, Metrics().count_request)

    await Cluster(connection, settings).create_job(JOB)
    await connection.close()

    assert tokens(api) == ["Bearer of-v"]


async def test_a_renewed_client_certificate_opens_other_connections(
    api: ApiServer, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate belongs to a connection, and a token does not."""
    due = iter(
        (timedelta(minutes=number), certificate) for number, certificate in enumerate(["one", "one", "two", "two"], 1)
    )

    async def obtained(access: Access, now: Any) -> Credential:
        after, certificate = next(due)
        return Credential(certificate=certificate, renew_at=NOW + after)

    monkeypatch.setattr(connection_module, "obtain", obtained)
    monkeypatch.setattr(kopf.ConnectionInfo, "as_ssl_context", lambda self: ssl.create_default_context())

    for minutes in range(4):
        login.now = NOW + timedelta(minutes=minutes)
        await login.cluster.create_job(JOB)

    first, second, _, last = api.ports  # The request that renewed it is the last one on the former connections.
    assert first == second != last


async def waiting_watch(api: ApiServer, login: Login) -> asyncio.Future[Any]:
    """Begin a watch of Jobs; return its wait for the next event, which never comes."""
    api.falls_silent = True
    api.will({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}})
    watch = login.cluster.watch(Resource.JOBS, "vision", 7)
    await anext(watch)
    waits = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    return waits


async def test_a_new_login_ends_every_watch_and_lets_requests_finish(api: ApiServer, login: Login) -> None:
    waits = await waiting_watch(api, login)
    lent = (await login.connection.lend()).aiohttp_session
    api.will({"reason": "Unauthorized"}, 401)

    with pytest.raises(ApiError, match="401"):
        await login.cluster.get(Resource.JOBS, "vision", "j")

    with pytest.raises(WatchEndedError):
        await asyncio.wait_for(waits, 5)
    assert lent.closed, "kopf asks for another session before its next request"
    assert not (await login.connection.lend()).aiohttp_session.closed


async def test_a_new_login_ends_kopfs_watch_and_that_is_counted(api: ApiServer, login: Login) -> None:
    url = f"{api.url}/apis/diffugen.dev/v1alpha1/labeleddatasets?watch=true"  # type: ignore[attr-defined]
    api.falls_silent = True
    api.will({"type": "BOOKMARK"})
    watch = await (await login.connection.lend()).aiohttp_session.get(url)
    await watch.content.readline()
    waits = asyncio.ensure_future(watch.content.readline())
    await asyncio.sleep(0)
    api.will({"reason": "Unauthorized"}, 401)

    with pytest.raises(ApiError, match="401"):
        await login.cluster.get(Resource.JOBS, "vision", "j")

    assert isinstance(await ended(waits), aiohttp.ClientConnectionError)
    api.falls_silent = False
    async with (await login.connection.lend()).aiohttp_session.get(url) as again:
        await again.read()
    assert login.restarts == [("labeleddatasets", "login")]


async def test_a_kubeconfig_that_now_names_another_cluster_is_not_followed(
    api: ApiServer,
    login: Login,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await login.cluster.create_job(JOB)
    elsewhere = {"name": "e", "cluster": {"server": "http://127.0.0.1:9"}}
    there = yaml.safe_load(login.file.read_text())
    switched = {"name": "switched", "context": {"cluster": "e", "user": "u"}}
    contexts = {"contexts": [*there["contexts"], switched], "clusters": [*there["clusters"], elsewhere]}
    login.user({"token": "new-token"}, **{"current-context": "switched"}, **contexts)
    api.will({}, 401)

    with pytest.raises(ApiError, match="401"):
        await login.cluster.create_job(JOB)
    await login.cluster.create_job(JOB)

    assert tokens(api)[-1] == "Bearer new-token", "the context of the start, whichever is the current one by now"
    login.user({"token": "t"}, clusters=[{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}])
    api.will({}, 401)
    login.connection._tried_at = float("-inf")
    with pytest.raises(ApiError, match="401"):
        await login.cluster.create_job(JOB)
    await login.cluster.create_job(JOB)
    assert "now leads to http://127.0.0.1:9 instead of" in caplog.text
    assert len(api.asked) == 5


async def test_restarts_of_kopfs_watch_are_counted_by_reason(api: ApiServer, login: Login) -> None:
    for status in (410, 404, 200, 200):
        api.will({"type": "BOOKMARK"}, status)
    url = f"{api.url}/apis/diffugen.dev/v1alpha1/labeleddatasets?watch=true"  # type: ignore[attr-defined]
    session = (await login.connection.lend()).aiohttp_session

    for _ in range(4):
        async with session.get(url) as response:
            json.loads(await response.read())

    assert [reason for _, reason in login.restarts] == ["gone", "missing", "ended"]
    assert {resource for resource, _ in login.restarts} == {"labeleddatasets"}


async def test_times_come_from_the_api_server_and_not_from_the_local_clock(
    api: ApiServer, login: Login, caplog: pytest.LogCaptureFixture
) -> None:
    assert login.connection.server_time() == NOW
    api.will({}, Date="Sun, 22 Nov 2026 11:50:00 GMT").will({}, Date="Sun, 22 Nov 2026 11:50:01 GMT").will({}, Date="?")

    for _ in range(3):
        await login.cluster.create_job(JOB)

    assert login.connection.server_time() == NOW - timedelta(minutes=10) + timedelta(seconds=0.5)
    assert caplog.text.count("The API server's clock is") == 1


async def test_after_a_file_descriptor_was_closed_under_a_connection_all_watches_begin_again(
    api: ApiServer, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uvloop reports it: https://github.com/MagicStack/uvloop/issues/653."""
    waits = await waiting_watch(api, login)

    async def refused(*_: Any) -> None:
        raise RuntimeError("File descriptor 14 is used by transport <TCPTransport closed=False reading=True 0x55c4>")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refused)
    with pytest.raises(aiohttp.ClientConnectionError, match="File descriptor 14 is used by transport"):
        await login.cluster.create_job(JOB)
    monkeypatch.undo()

    with pytest.raises(WatchEndedError):
        await asyncio.wait_for(waits, 5)
    await login.cluster.create_job(JOB)
