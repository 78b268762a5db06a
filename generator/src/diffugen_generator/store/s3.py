"""A store in an S3 bucket, by MinIO's client.

The client raises its own errors, those of urllib3, and a plain ValueError if there are no credentials. This module maps
them to failures that users can fix: the store is unreachable, the credentials are refused, the bucket is missing, the
settings in the spec are wrong. Every message names the field of the spec.

Timeouts: three attempts to connect of 3 s each, so that a wrong endpoint fails within 15 s. An answer may take 60 s. In
`check` it may take 10 s, without a retry, so that a server that accepts connections but never answers fails, too.
"""

from __future__ import annotations

import configparser
import io
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import NoReturn
from urllib.parse import urlsplit

import certifi
import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
)
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from diffugen_api.contract import ENV_ACCESS_KEY
from diffugen_api.v1alpha1 import S3
from diffugen_generator.failures import (
    BucketMissing,
    ClockSkewed,
    Missing,
    StoreFailure,
    StoreMisconfigured,
    StoreRefused,
    StoreUnreachable,
)
from diffugen_generator.store.protocol import BINARY
from diffugen_generator.store.s3_client import LeanMinio, status_of, use_addressing_style

LOG = logging.getLogger("diffugen")

CONNECT_SECONDS = 3.0
READ_SECONDS = 60.0
CHECK_SECONDS = 10.0
CHECK_WHOLE_SECONDS = 15.0
"""Limit of a whole check."""
POOL_SIZE = 64
"""Connections kept open: more than the threads that use one store at once."""

_CA_FILES = ("SSL_CERT_FILE", "AWS_CA_BUNDLE")
"""Variables that name a file with the certificates of authorities; the first that is set counts."""
_WEB_IDENTITY = "AWS_WEB_IDENTITY_TOKEN_FILE"
_OF_CONTAINERS = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_NO_METADATA = "AWS_EC2_METADATA_DISABLED"
_MISSING = {"NoSuchKey", "NoSuchVersion"}
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict"}
"""Error codes that mean: another writer was first."""
_REFUSED = {
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "InvalidTokenId",
    "NotSignedUp",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnauthorizedAccess",
    "XAdminUserNotFound",  # VersityGW, of an unknown access key
}
_SKEWED = "RequestTimeTooSkewed"
_MOST_SKEW = timedelta(minutes=15)
"""The largest difference of clocks at which a store accepts a signature (Amazon S3, MinIO)."""
_MISCONFIGURED = {
    "AuthorizationHeaderMalformed",
    "InvalidBucketName",
    "InvalidRegion",
    "PermanentRedirect",
    "TemporaryRedirect",
}
_PASSING = {408, 429}
"""HTTP statuses below 500 of temporary errors: a timeout of the request, too many requests."""
_PASSING_CODES = {"OperationAborted", "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}
"""Codes of temporary errors that some stores send with other statuses (S3 sends `RequestTimeout` with 400)."""


class S3Store:
    """The part of a bucket that belongs to one dataset.

    Credentials come from the `AWS_*` variables if they are set, else from the places where AWS clients look: config
    file, web identity, container or instance role.
    """

    def __init__(self, s3: S3, root: str, *, credentials: Provider | None = None) -> None:
        """Use the bucket of `s3`; `root` is the dataset's folder in it. Sends no request yet."""
        self._s3 = s3
        self._bucket = s3.bucket
        self._root = f"{root.strip('/')}/" if root.strip("/") else ""
        self._credentials = _CheckedProvider(credentials or _credentials(s3.region), self._subject())
        self._client = self._connect(_retries(total=5, read=2), READ_SECONDS)
        self.uri = f"s3://{s3.bucket}/{self._root}".rstrip("/")

    def check(self) -> None:
        """List one key with short timeouts; this finds every reason why a read can fail.

        A server that sends its answer byte by byte would pass every timeout of a socket, so the whole has a limit.
        """
        client = self._connect(_retries(total=2, read=0), CHECK_SECONDS)
        answered = Future[None]()

        def ask() -> None:
            try:
                with self._failures("list"):
                    next(client.keys(self._bucket, self._root), None)
            except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
                answered.set_exception(error)
            else:
                answered.set_result(None)

        Thread(target=ask, daemon=True).start()
        try:
            answered.result(CHECK_WHOLE_SECONDS)
        except TimeoutError:
            raise StoreUnreachable(
                f"spec.output.s3.endpoint: {self._s3.endpoint} has not answered whole within {CHECK_WHOLE_SECONDS:g} s"
            ) from None

    def read(self, key: str) -> bytes:
        """Return an object's bytes; raise `Missing` if it does not exist."""
        with self._failures("read", key):
            response = self._client.get_object(self._bucket, self._root + key)
            try:
                return response.data
            finally:
                response.close()
                response.release_conn()

    def write(self, key: str, data: bytes, content_type: str = BINARY) -> None:
        """Write an object; S3 shows it when it is complete."""
        with self._failures("write", key):
            self._client.put_object(self._bucket, self._root + key, io.BytesIO(data), len(data), content_type)

    def read_tagged(self, key: str) -> tuple[bytes | None, str]:
        """Return an object's bytes and its ETag; None and "" if it does not exist."""
        try:
            with self._failures("read", key):
                response = self._client.get_object(self._bucket, self._root + key)
                try:
                    return response.data, response.headers.get("ETag", "").strip('"')
                finally:
                    response.close()
                    response.release_conn()
        except Missing:
            return None, ""

    def replace(self, key: str, data: bytes, tag: str, content_type: str = BINARY) -> bool:
        """Write an object if its ETag is still `tag`; a store without conditional writes writes in any case.

        There, two writers are not kept apart, and a warning says so.
        """
        with self._failures("write", key):
            try:
                self._client.put_if(self._bucket, self._root + key, data, tag, content_type)
            except S3Error as error:
                if error.code in _CHANGED or error.response.status == HTTPStatus.PRECONDITION_FAILED:
                    return False
                if tag and error.code in _MISSING:  # deleted meanwhile
                    return False
                if error.code != "NotImplemented" and error.response.status != HTTPStatus.NOT_IMPLEMENTED:
                    raise
            except InvalidResponseError as error:  # an answer that is not XML
                if status_of(error) != HTTPStatus.NOT_IMPLEMENTED:
                    raise
            else:
                return True
            self.write(key, data, content_type)
        _warn_of_plain_writes(self._s3.endpoint)
        return True

    def upload(self, key: str, path: Path, content_type: str = BINARY) -> None:
        """Write a local file; a large one is sent in parts."""
        with self._failures("write", key):
            self._client.fput_object(self._bucket, self._root + key, str(path), content_type)

    def exists(self, key: str) -> bool:
        """Return whether an object with exactly this key exists."""
        try:
            with self._failures("read", key):
                self._client.stat_object(self._bucket, self._root + key)
        except Missing:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`, a thousand per request."""
        skip = len(self._root)
        with self._failures("list"):
            for key in self._client.keys(self._bucket, self._root + prefix):
                yield key[skip:]

    def details(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        """Yield key, size in bytes and ETag of the objects whose keys begin with `prefix`."""
        skip = len(self._root)
        with self._failures("list"):
            for each in self._client.list_objects(self._bucket, self._root + prefix, recursive=True):
                if not each.is_dir:
                    yield str(each.object_name)[skip:], int(each.size or 0), str(each.etag)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that begin with `prefix`, each with its object's size, a thousand per request."""
        skip = len(self._root)
        with self._failures("list"):
            for key, size in self._client.sizes(self._bucket, self._root + prefix):
                yield key[skip:], size

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield an object's bytes from `offset` on, in chunks; raise `Missing` if it does not exist."""
        with self._failures("read", key):
            try:
                response = self._client.get_object(self._bucket, self._root + key, offset)
            except S3Error as error:
                if error.code == "InvalidRange":  # the object ends at `offset`
                    return
                raise
            try:
                yield from response.stream(1 << 20)
            finally:
                response.close()
                response.release_conn()

    def read_range(self, key: str, offset: int, count: int) -> bytes:
        """Return `count` bytes of an object from `offset` on, fewer at its end; raise `Missing` if it is not there."""
        with self._failures("read", key):
            response = self._client.get_object(self._bucket, self._root + key, offset=offset, length=count)
            try:
                return bytes(response.data)
            finally:
                response.close()
                response.release_conn()

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store, without a download."""
        with self._failures("copy", source):
            self._client.copy(self._bucket, self._root + source, self._root + target)

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders right below `prefix`, sorted, without listing their objects."""
        skip = len(self._root) + len(prefix)
        with self._failures("list"):
            for folder in self._client.folders(self._bucket, self._root + prefix):
                yield folder[skip:].rstrip("/")

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects in one request; raise the failure of the first object that could not be deleted."""
        with self._failures("delete", keys[0] if keys else ""):
            kept = self._client.delete(self._bucket, [self._root + key for key in keys])
        if kept is None:
            return
        where = f"s3://{self._bucket}/{kept.name}"
        if kept.code == "AccessDenied":  # also the answer for a locked object
            raise StoreRefused(f"{self._subject()}: the credentials may not delete {where}; allow them to, or {_FIX}")
        raise StoreUnreachable(
            f"spec.output.s3.endpoint: {self._s3.endpoint} does not delete {where}: {kept.code} ({kept.message})"
        )

    def _connect(self, retries: urllib3.Retry, read_seconds: float) -> LeanMinio:
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
            retries=retries,
            maxsize=POOL_SIZE,
            cert_reqs="CERT_REQUIRED",
            ca_certs=_authorities(),
        )
        try:
            endpoint = urlsplit(self._s3.endpoint)
            client = LeanMinio(
                endpoint.netloc,
                secure=endpoint.scheme == "https",
                region=self._s3.region,
                credentials=self._credentials,
                http_client=pool,
            )
        except ValueError as error:
            raise StoreMisconfigured(
                f"spec.output.s3.endpoint: {self._s3.endpoint} is not the address of a store ({error}); "
                "give scheme, host and port, e.g. http://minio.storage:9000"
            ) from error
        use_addressing_style(client, self._s3.addressing_style)
        return client

    @contextmanager
    def _failures(self, verb: str, key: str = "") -> Iterator[None]:
        """Turn the client's exceptions into failures that name the field of the spec."""
        try:
            yield
        except StoreFailure:
            raise
        except S3Error as error:
            self._explain(error, verb, key)
        except (InvalidResponseError, ServerError) as error:
            self._explain_answer(error)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise StoreUnreachable(self._unreachable(error)) from error
        except (MinioException, ValueError, SyntaxError) as error:  # SyntaxError: invalid XML
            raise StoreMisconfigured(self._no_store(f"unreadable: {error}")) from error

    def _explain(self, error: S3Error, verb: str, key: str) -> NoReturn:
        code = error.code or ""
        if code in _MISSING:
            raise Missing(key, self.uri) from None
        if code == "NoSuchBucket":
            raise BucketMissing(
                f"spec.output.s3.bucket: {self._s3.endpoint} has no bucket {self._bucket!r}; create it or name another"
            ) from error
        ahead = _clock_ahead(error.response)
        # The answer to a HEAD request has no code.
        if code == _SKEWED or (error.response.status == HTTPStatus.FORBIDDEN and abs(ahead) > _MOST_SKEW):
            minutes = f"{abs(ahead).total_seconds() / 60:.0f} minutes {'ahead' if ahead > timedelta(0) else 'behind'}"
            raise ClockSkewed(
                f"this node's clock is {minutes if ahead else 'off'}, by the clock of {self._s3.endpoint}, which "
                "refuses signatures of another time: set it, for example with an NTP service"
            ) from error
        if code == "AccessDenied":
            raise StoreRefused(
                f"{self._subject()}: the credentials may not {verb} {self.uri}/{key} ({code}); allow them to, or {_FIX}"
            ) from error
        if code in _REFUSED or error.response.status in {401, 403}:
            raise StoreRefused(
                f"{self._subject()}: the credentials are refused ({code}: {error.message}); {_FIX}"
            ) from error
        if code in _MISCONFIGURED:
            raise StoreMisconfigured(
                f"spec.output.s3: {self._s3.endpoint} answers {code} ({error.message}); "
                "check region, endpoint and bucket"
            ) from error
        status = error.response.status
        answer = f"{self._s3.endpoint} answers {code or f'HTTP {status}'}: {error.message}"
        if 400 <= status < 500 and status not in _PASSING and code not in _PASSING_CODES:
            raise StoreMisconfigured(
                f"spec.output.s3: {answer}; another try gets the same answer: fix what it names"
            ) from error
        raise StoreUnreachable(f"spec.output.s3.endpoint: {answer}") from error

    def _explain_answer(self, error: InvalidResponseError | ServerError) -> NoReturn:
        status = error.status_code if isinstance(error, ServerError) else status_of(error)
        if status >= 500 or status in _PASSING:
            raise StoreUnreachable(
                f"spec.output.s3.endpoint: {self._s3.endpoint} reports a server error (HTTP {status})"
            ) from error
        raise StoreMisconfigured(self._no_store(f"HTTP {status}")) from error

    def _no_store(self, answer: str) -> str:
        return (
            f"spec.output.s3.endpoint: {self._s3.endpoint} answers, but not as an S3 store ({answer}); "
            "give the address of the S3 API, not of a console or a proxy"
        )

    def _unreachable(self, error: Exception) -> str:
        cause: Exception = error
        if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason:
            cause = error.reason
        what = f"spec.output.s3.endpoint: {self._s3.endpoint}"
        text = str(cause)
        for fault in ("certificate is not yet valid", "certificate has expired"):
            if fault in text:
                return f"{what}: its {fault}, by this node's clock; renew the certificate, or set the clock"
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return f"{what} has a certificate of an unknown authority; set SSL_CERT_FILE to the authority's certificate"
        if isinstance(cause, urllib3.exceptions.NameResolutionError):
            return f"{what}: there is no such host (its name does not resolve)"
        if isinstance(cause, urllib3.exceptions.NewConnectionError) and "refused" in text:
            return f"{what} refuses connections: nothing listens there"
        return f"{what} does not answer ({type(cause).__name__})"

    def _subject(self) -> str:
        return f"spec.output.s3 ({self._s3.endpoint}, bucket {self._bucket})"


_FIX = (
    "put valid ones into the Secret of spec.output.s3.secretRef "
    "(outside a cluster: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
)


def _clock_ahead(response: urllib3.BaseHTTPResponse) -> timedelta:
    """Return how far this machine's clock is ahead of the server's, from the time of its answer; 0 if it has none."""
    try:
        return datetime.now(UTC) - parsedate_to_datetime(response.headers.get("Date", ""))
    except (ValueError, TypeError):
        return timedelta(0)


def _retries(*, total: int, read: int) -> urllib3.Retry:
    return urllib3.Retry(
        total=total,
        redirect=0,  # an answer that names another host is an error: the request and its credentials stay here
        raise_on_redirect=False,
        connect=2,
        read=read,
        backoff_factor=0.3,
        status_forcelist=(500, 502, 503, 504),
        raise_on_status=False,  # the error in the answer is clearer than "too many retries"
    )


@cache
def _warn_of_plain_writes(endpoint: str) -> None:
    """Say once per process what a store without conditional writes means for users."""
    LOG.warning(
        "%s has no conditional writes (it answers NotImplemented), so two writers are not kept apart: do not publish "
        "or prune one dataset twice at the same time, or the work of one of them can be lost",
        endpoint,
    )


def _authorities() -> str:
    """Return the file with the certificates of the authorities that are trusted."""
    return next(filter(None, map(os.environ.get, _CA_FILES)), certifi.where())


def _credentials(region: str) -> Provider:
    if os.environ.get(ENV_ACCESS_KEY):
        return EnvAWSProvider()
    short_timeouts = urllib3.PoolManager(
        # The metadata address of a cloud answers at once; outside a cloud it never answers.
        timeout=urllib3.Timeout(connect=1, read=5),
        # a web identity is a POST, which is not repeated by default
        retries=urllib3.Retry(total=1, allowed_methods=None, status_forcelist=(429, 500, 502, 503, 504)),
        cert_reqs="CERT_REQUIRED",
        ca_certs=_authorities(),
    )
    return ChainedProvider([_SharedFile(), _Role(http_client=short_timeouts, region=region)])


class _CheckedProvider(Provider):
    """Raises `StoreRefused` if there are no credentials, where other providers raise a plain ValueError."""

    def __init__(self, provider: Provider, subject: str) -> None:
        self._provider = provider
        self._subject = subject

    def retrieve(self) -> Credentials:
        """Return the credentials; raise `StoreRefused` if there are none."""
        try:
            return self._provider.retrieve()
        except ValueError as error:
            raise StoreRefused(f"{self._subject}: no usable credentials ({error}); {_FIX}") from error


class _SharedFile(Provider):
    """The shared credentials file of AWS clients.

    Like these, and unlike MinIO's provider, it takes a `%` in a secret as it is, and a file that cannot be parsed is a
    ValueError.
    """

    def retrieve(self) -> Credentials:
        """Return the credentials of the profile; raise ValueError, as providers do, if there are none."""
        file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
        name = os.environ.get("AWS_PROFILE") or "default"
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except configparser.Error as error:
            raise ValueError(f"{file} is not a credentials file") from error
        profile = parser[name] if parser.has_section(name) else {}
        return Credentials(
            profile.get("aws_access_key_id", ""),
            profile.get("aws_secret_access_key", ""),
            profile.get("aws_session_token") or None,
        )


class _Role(IamAwsProvider):
    """The role of a pod or machine. Outside a cloud it raises ValueError; its base class raises network errors."""

    def retrieve(self) -> Credentials:
        """Return the role's credentials; raise ValueError, as providers do, if there is no role.

        Where the environment names a web identity, there is one: then a service that does not answer is temporary.
        `AWS_EC2_METADATA_DISABLED` leaves out the role of the machine, as AWS clients do.
        """
        disabled = os.environ.get(_NO_METADATA, "").lower() == "true"
        if disabled and not any(map(os.environ.get, (_WEB_IDENTITY, *_OF_CONTAINERS))):
            raise ValueError(f"{_NO_METADATA} is set")
        try:
            return super().retrieve()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if os.environ.get(_WEB_IDENTITY):
                raise StoreUnreachable(
                    f"the service that gives credentials for {_WEB_IDENTITY} does not answer ({type(error).__name__})"
                ) from error
            raise ValueError("no role") from error
        except (KeyError, TypeError, AttributeError, SyntaxError) as error:  # SyntaxError: invalid XML
            raise ValueError("an unreadable answer about the role") from error
