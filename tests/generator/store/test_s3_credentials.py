"""Where the bucket store finds credentials, besides the environment: as `docs/published.md` says, where AWS clients do.

One local server is the store, the security token service (STS) and the metadata service of a machine. The addresses of
the last two are fixed, so requests to them are sent to that server.
"""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import certifi
import pytest
import urllib3

from diffugen_api.contract import ExitCode
from diffugen_api.v1alpha1 import S3
from diffugen_generator.failures import StoreRefused, StoreUnreachable
from diffugen_generator.store.s3 import S3Store

NAMES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_REGION", "AWS_CA_BUNDLE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "SSL_CERT_FILE"),
    *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    "AWS_EC2_METADATA_DISABLED",
)
METADATA = "http://169.254.169.254/latest"
ROLES = f"{METADATA}/meta-data/iam/security-credentials/"
TWO_PROFILES = """
[default]
aws_access_key_id = of-default
aws_secret_access_key = secret-of-default
[team]
aws_access_key_id = of-team
aws_secret_access_key = 100%secret
aws_session_token = token-of-team
"""


class Cloud:
    """What the server answers, by method and address, and what it was asked; the store has any object."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.root = f"http://127.0.0.1:{server.server_port}"
        self.answers: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.certificates: set[str | None] = set()
        self.store = S3Store(S3(endpoint=self.root, bucket="data", region="eu-west-1"), "")

    def signed_with(self) -> tuple[str, str | None]:
        """Read an object; return the access key and the session token of the request."""
        self.store.read("a")
        headers = self.asked[-1][1]
        return headers["Authorization"].partition("Credential=")[2].partition("/")[0], headers.get(
            "X-Amz-Security-Token"
        )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without credentials, in an environment without any."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path


@pytest.fixture
def web_identity(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The token's file of a pod with a web identity."""
    (home / "token").write_text("first-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/drawer")
    monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "pod")
    return home / "token"


@pytest.fixture
def cloud(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Starts the server; use it after the environment is set, since a store reads that when it is opened."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            address = self.headers.get("X-Sent-To") or self.path
            found.asked.append((f"{self.command} {address}", dict(self.headers)))
            default = (200, "") if address == self.path else (404, "")
            status, body = found.answers.get(f"{self.command} {address.partition('?')[0]}", default)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = answer  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            pass

    urlopen = urllib3.PoolManager.urlopen

    def redirected(self: urllib3.PoolManager, method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:
        if not url.startswith("http://127.0.0.1"):
            options["headers"] = {**(options.get("headers") or {}), "X-Sent-To": url}
            found.certificates.add(self.connection_pool_kw.get("ca_certs"))
            url = found.root
        return urlopen(self, method, url, **options)

    monkeypatch.setattr(urllib3.PoolManager, "urlopen", redirected)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True).start()
        found = Cloud(server)
        yield found
        server.shutdown()


def in_time(**more: float) -> str:
    return (datetime.now(UTC) + timedelta(**more)).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- the shared credentials file ---


@pytest.mark.parametrize(
    ("profile", "expected"), [("", ("of-default", None)), ("team", ("of-team", "token-of-team"))], ids=["none", "team"]
)
@pytest.mark.parametrize("place", [".aws/credentials", "elsewhere"])
def test_a_profile_of_the_shared_file(
    place: str,
    profile: str,
    expected: tuple[str, str | None],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    cloud: Cloud,
) -> None:
    (home / place).write_text(TWO_PROFILES)
    if place == "elsewhere":
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / place))
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)

    assert cloud.signed_with() == expected
    assert cloud.store._credentials.retrieve().secret_key == ("100%secret" if profile else "secret-of-default")


def test_the_environment_comes_before_the_shared_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".aws" / "credentials").write_text(TWO_PROFILES)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    store = S3Store(S3(endpoint="http://127.0.0.1:9", bucket="data"), "")

    assert store._credentials.retrieve().access_key == "of-environment"


@pytest.mark.parametrize(
    "text",
    ["no section\n", "[default]\naws_access_key_id = x\n", "[other]\n"],
    ids=["no file of sections", "half", "other"],
)
def test_a_shared_file_of_no_use_is_no_crash(text: str, home: Path, cloud: Cloud) -> None:
    (home / ".aws" / "credentials").write_text(text)

    with pytest.raises(StoreRefused, match="no usable credentials"):
        cloud.store.read("a")


# --- a web identity ---

STS = "POST https://sts.eu-west-1.amazonaws.com"


def given(key: str, until: str) -> tuple[int, str]:
    """What STS answers (API reference, AssumeRoleWithWebIdentity)."""
    parts = {"AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": f"token-of-{key}", "Expiration": until}
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in parts.items())
    result = "AssumeRoleWithWebIdentityResult"
    space = "https://sts.amazonaws.com/doc/2011-06-15/"
    outer = "AssumeRoleWithWebIdentityResponse"
    return 200, f'<{outer} xmlns="{space}"><{result}><Credentials>{inner}</Credentials></{result}></{outer}>'


def test_a_web_identity_is_exchanged_until_it_expires(web_identity: Path, cloud: Cloud) -> None:
    cloud.answers[STS] = given("first", in_time(seconds=5))  # counts as expired

    assert cloud.signed_with() == ("first", "token-of-first")
    query = parse_qs(urlsplit(cloud.asked[0][0]).query)
    assert query["Action"] == ["AssumeRoleWithWebIdentity"]
    assert query["WebIdentityToken"] == ["first-token"]
    assert query["RoleArn"] == ["arn:aws:iam::1:role/drawer"]
    assert query["RoleSessionName"] == ["pod"]

    web_identity.write_text("second-token")  # as the kubelet does
    cloud.answers[STS] = given("second", in_time(hours=1))
    assert cloud.signed_with() == ("second", "token-of-second")
    assert "second-token" in cloud.asked[-2][0]
    assert cloud.signed_with() == ("second", "token-of-second")
    assert [address.startswith(STS) for address, _ in cloud.asked] == [True, False, True, False, False]
    assert cloud.certificates == {certifi.where()}


def test_a_refused_web_identity_is_no_usable_credential_and_not_shown(web_identity: Path, cloud: Cloud) -> None:
    cloud.answers[STS] = (403, "<ErrorResponse/>")

    with pytest.raises(StoreRefused, match="no usable credentials") as caught:
        cloud.store.read("a")

    assert "first-token" not in str(caught.value)


@pytest.mark.usefixtures("web_identity")
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_of_web_identities_is_a_temporary_error(status: int, cloud: Cloud) -> None:
    cloud.answers[STS] = (status, "busy")

    with pytest.raises(StoreUnreachable, match="credentials for AWS_WEB_IDENTITY_TOKEN_FILE does not answer") as caught:
        cloud.store.read("a")

    assert caught.value.exit_code == ExitCode.TRY_AGAIN
    assert len(cloud.asked) == 2


@pytest.mark.usefixtures("web_identity")
def test_an_answer_of_another_server_is_no_usable_credential(cloud: Cloud) -> None:
    cloud.answers[STS] = (200, "<html><br>")

    with pytest.raises(StoreRefused, match="no usable credentials"):
        cloud.store.read("a")


# --- the role of a machine ---


def test_the_role_of_a_machine(cloud: Cloud) -> None:
    role = {"AccessKeyId": "of-role", "SecretAccessKey": "s", "Token": "token-of-role", "Expiration": in_time(hours=1)}
    cloud.answers = {
        f"PUT {METADATA}/api/token": (200, "session"),
        f"GET {ROLES}": (200, "drawer"),
        f"GET {ROLES}drawer": (200, json.dumps({"Code": "Success", **role})),
    }

    assert cloud.signed_with() == ("of-role", "token-of-role")
    assert cloud.signed_with() == ("of-role", "token-of-role")
    (first, _), *others = [(address, headers) for address, headers in cloud.asked if METADATA in address]
    assert [first, *(address for address, _ in others)] == list(cloud.answers)
    assert [headers["X-aws-ec2-metadata-token"] for _, headers in others] == ["session", "session"]


def test_the_role_of_a_machine_can_be_left_out(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(StoreRefused, match="no usable credentials"):
        cloud.store.read("a")
    assert cloud.asked == []


@pytest.mark.parametrize(
    "answer", [(404, ""), (200, "{}"), (200, "[]"), (200, '{"Code": "Failed"}'), (500, "")], ids=str
)
def test_a_machine_without_a_usable_role(answer: tuple[int, str], cloud: Cloud) -> None:
    cloud.answers = {
        f"PUT {METADATA}/api/token": (200, "session"),
        f"GET {ROLES}": (200, "drawer"),
        f"GET {ROLES}drawer": answer,
    }

    with pytest.raises(StoreRefused, match="no usable credentials"):
        cloud.store.read("a")
