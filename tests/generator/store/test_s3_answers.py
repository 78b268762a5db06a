"""Responses of an S3 store, and which of them cause a retry. `tests/cluster` uses a real store."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Protocol

import pytest
from minio.credentials.providers import StaticProvider

from diffugen_api.contract import ExitCode
from diffugen_api.v1alpha1 import S3
from diffugen_generator.failures import ClockSkewed, StoreFailure, StoreMisconfigured, StoreRefused, StoreUnreachable
from diffugen_generator.store import s3
from diffugen_generator.store.s3 import S3Store


class Answering(Protocol):
    """Starts a store whose clock is so far ahead."""

    def __call__(self, status: int, body: str, *, ahead: timedelta = ...) -> S3Store: ...


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Starts a store that answers every request with one status and one body."""
    servers = []

    def start(status: int, body: str, *, ahead: timedelta = timedelta(0)) -> S3Store:
        class Handler(BaseHTTPRequestHandler):
            def date_time_string(self, timestamp: float | None = None) -> str:
                return format_datetime(datetime.now(UTC) + ahead, usegmt=True)

            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/xml" if body.startswith("<") else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return a_store(f"http://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def a_store(endpoint: str) -> S3Store:
    return S3Store(S3(endpoint=endpoint, bucket="data"), "sets", credentials=StaticProvider("key", "secret"))


def an_error(code: str, message: str) -> str:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (400, "InvalidArgument", StoreMisconfigured),
        (405, "MethodNotAllowed", StoreMisconfigured),
        (409, "InvalidBucketState", StoreMisconfigured),
        (400, "RequestTimeout", StoreUnreachable),
        (408, "RequestIsLate", StoreUnreachable),
        (409, "OperationAborted", StoreUnreachable),
        (429, "TooManyRequests", StoreUnreachable),
    ],
)
def test_only_temporary_errors_are_retried(
    status: int, code: str, failure: type[StoreFailure], answering: Answering
) -> None:
    store = answering(status, an_error(code, "Its own words."))

    with pytest.raises(failure, match=rf"^spec\.output\.s3.* answers {code}: Its own words\.") as caught:
        store.read("a")

    assert (caught.value.exit_code == ExitCode.TRY_AGAIN) == (failure is StoreUnreachable)


@pytest.mark.parametrize(
    ("code", "minutes", "words"),
    [
        ("RequestTimeTooSkewed", -21, "this node's clock is 21 minutes ahead, by the clock of http://127.0.0.1"),
        ("RequestTimeTooSkewed", 47, "this node's clock is 47 minutes behind"),
        ("AccessDenied", 47, "this node's clock is 47 minutes behind"),  # the answer to HEAD names no cause
    ],
)
def test_a_wrong_clock_is_not_blamed_on_the_secret(code: str, minutes: int, words: str, answering: Answering) -> None:
    store = answering(403, an_error(code, "too large"), ahead=timedelta(minutes=minutes))

    with pytest.raises(ClockSkewed, match=words) as caught:
        store.read("a")

    assert caught.value.exit_code == ExitCode.TRY_AGAIN
    assert "Secret" not in str(caught.value)


def test_a_refusal_by_a_store_with_the_same_time_is_one_of_credentials(answering: Answering) -> None:
    with pytest.raises(StoreRefused):
        answering(403, an_error("AccessDenied", "no"), ahead=timedelta(minutes=3)).read("a")


def test_a_busy_proxy_is_a_temporary_error(answering: Answering) -> None:
    with pytest.raises(StoreUnreachable, match="HTTP 429"):
        answering(429, "too many requests").read("a")


@pytest.mark.parametrize("endpoint", ["http://minio:99999", "http://[:::::]"])
def test_an_invalid_endpoint_is_an_error_that_names_the_field(endpoint: str) -> None:
    with pytest.raises(StoreMisconfigured, match=r"^spec\.output\.s3\.endpoint: .* is not the address of a store"):
        a_store(endpoint)


class _Slow(BaseHTTPRequestHandler):
    """Answers byte by byte, without an end."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        pass


class _Elsewhere(BaseHTTPRequestHandler):
    """Names another address."""

    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(307)
        self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[S3Store]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield a_store(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_check_has_a_limit_however_slowly_an_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "CHECK_WHOLE_SECONDS", 0.5)

    with serving(_Slow) as store, pytest.raises(StoreUnreachable, match=r"has not answered whole within 0\.5 s"):
        store.check()


def test_a_redirect_is_not_followed() -> None:
    with serving(_Elsewhere) as store, pytest.raises(StoreFailure, match="307"):
        store.read("current.json")

    assert _Elsewhere.paths
    assert all(path.startswith("/data/") for path in _Elsewhere.paths)


class _Unconditional(BaseHTTPRequestHandler):
    """A store that knows no conditional writes: it refuses each, and takes plain ones."""

    refusal: ClassVar[tuple[str, str]]
    written: ClassVar[list[bytes]]

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        refused = "If-Match" in self.headers or "If-None-Match" in self.headers
        media_type, body = self.refusal if refused else ("application/xml", "")
        if not refused:
            self.written.append(data)
        self.send_response(501 if refused else 200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "refusal",
    [
        ("application/xml", an_error("NotImplemented", "A header you provided implies no functionality")),
        ("application/xml", an_error("UnsupportedHeader", "If-Match")),
        ("text/plain", "not implemented"),
        ("application/xml", ""),
    ],
    ids=["code", "another code", "text", "nothing"],
)
def test_a_store_without_conditional_writes_gets_plain_ones_and_one_warning(
    refusal: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    _Unconditional.refusal, _Unconditional.written = refusal, []

    with serving(_Unconditional) as store, caplog.at_level(logging.WARNING, "diffugen"):
        assert store.replace("current.json", b"one", "")
        assert store.replace("current.json", b"two", "tag")

    assert _Unconditional.written == [b"one", b"two"]
    [warning] = caplog.messages
    assert "has no conditional writes" in warning
    assert "two writers are not kept apart" in warning


@pytest.mark.parametrize(("status", "code"), [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")])
def test_a_write_that_another_was_before_is_not_repeated_without_its_condition(
    status: int, code: str, answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    store = answering(status, an_error(code, "changed"))

    assert not store.replace("current.json", b"one", "tag")
    assert not caplog.messages
