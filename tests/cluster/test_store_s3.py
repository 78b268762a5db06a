"""The bucket store against a real MinIO and a real VersityGW: the rules of the store protocol, and every kind of
unusable endpoint."""

import http.server
import io
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from minio.credentials.providers import StaticProvider

from devcluster import Cluster
from devcluster.cluster import MinioAccess
from diffugen_api.v1alpha1 import S3
from diffugen_generator.failures import (
    BucketMissing,
    Missing,
    StoreFailure,
    StoreMisconfigured,
    StoreRefused,
    StoreUnreachable,
)
from diffugen_generator.planning.holdings import ids_below
from diffugen_generator.planning.plan import plan
from diffugen_generator.publishing.publish import publish
from diffugen_generator.publishing.published import current_of, dataset_of
from diffugen_generator.store.clearing import clear
from diffugen_generator.store.folder import FolderStore
from diffugen_generator.store.s3 import S3Store
from tests.cluster.gateways import a_gateway
from tests.generator.made import a_finished_store, a_model, an_order, run_shards

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["minio", "versitygw"])
def access(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioAccess]:
    if request.param == "minio":
        cluster: Cluster = request.getfixturevalue("cluster")
        yield cluster.minio
        return
    with a_gateway(tmp_path_factory.mktemp("versitygw")) as gateway:
        yield gateway


@pytest.fixture
def bucket(access: MinioAccess) -> str:
    name = f"store-{next(_numbers)}"
    access.client().make_bucket(name)
    return name


@pytest.fixture
def store(access: MinioAccess, bucket: str) -> S3Store:
    return store_in(access, bucket)


def store_in(access: MinioAccess, bucket: str, *, secret: str | None = None, endpoint: str | None = None) -> S3Store:
    keys = StaticProvider(access.access_key, secret or access.secret_key)
    return S3Store(S3(endpoint=endpoint or access.endpoint, bucket=bucket), "sets/vision/cars", credentials=keys)


def test_an_object_is_read_as_it_was_written(store: S3Store) -> None:
    store.check()
    store.write("a/b.json", b"one")
    store.write("a/b.json", b"two")

    assert store.read("a/b.json") == b"two"
    assert store.exists("a/b.json")
    assert not store.exists("a")
    assert not store.exists("a/b")


def test_an_empty_object_exists(store: S3Store) -> None:
    store.write("empty", b"")

    assert store.read("empty") == b""
    assert store.exists("empty")


def test_objects_lie_below_the_datasets_root(access: MinioAccess, bucket: str, store: S3Store) -> None:
    store.write("a", b"")

    names = [item.object_name for item in access.client().list_objects(bucket, recursive=True)]
    assert names == ["sets/vision/cars/a"]
    assert store.uri == f"s3://{bucket}/sets/vision/cars"


def test_missing_objects_are_named(store: S3Store) -> None:
    with pytest.raises(Missing, match="has no a/b") as failure:
        store.read("a/b")

    assert failure.value.key == "a/b"


def test_of_two_writers_that_read_the_same_content_one_succeeds(store: S3Store) -> None:
    _, nothing = store.read_tagged("current.json")
    assert store.replace("current.json", b"one", nothing)
    assert not store.replace("current.json", b"two", nothing)
    data, tag = store.read_tagged("current.json")
    assert data == b"one"

    assert store.replace("current.json", b"three", tag)
    assert not store.replace("current.json", b"four", tag)
    assert store.read("current.json") == b"three"
    store.delete(["current.json"])
    assert not store.replace("current.json", b"five", tag)


def test_a_copy_is_made_in_the_store(store: S3Store) -> None:
    store.write("a", b"picture", "image/png")

    store.copy("a", "there/b c+d.png")

    assert store.read("there/b c+d.png") == b"picture"
    with pytest.raises(Missing, match="has no nothing"):
        store.copy("nothing", "c")


def test_a_file_of_many_parts_is_uploaded(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 40_000 * 2)

    store.upload("large", tmp_path / "large")

    assert store.read("large") == (tmp_path / "large").read_bytes()


def test_more_keys_than_one_page_of_a_listing_are_sorted(store: S3Store) -> None:
    ids = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}{number:016x}" for number in range(2300)]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda i: store.write(f"labels/base/x/{i[:2]}/{i}.json", b""), ids))

    keys = list(store.list("labels/base/x/"))

    assert keys == sorted(f"labels/base/x/{i[:2]}/{i}.json" for i in ids)
    found = [number for batch in ids_below(store.list, "labels/base/x/", ".json") for number in batch]
    assert set(found) == {int(i, 16) for i in ids}
    assert list(store.list("labels/base/y/")) == []


def test_folders_and_deletions_by_the_thousand(store: S3Store) -> None:
    ids = [f"{number:04d}" for number in range(1200)]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda i: store.write(f"plans/{i}/a b+c.json", b""), ids))
    store.write("plans.json", b"")

    assert list(store.folders("plans/")) == ids
    assert list(store.folders("")) == ["plans"]
    assert list(store.folders("nothing/")) == []

    assert clear(store, store.list("plans/")) == 1200
    store.delete(["never/there"])

    assert list(store.list("")) == ["plans.json"]


def test_a_missing_bucket_names_the_field(access: MinioAccess) -> None:
    with pytest.raises(BucketMissing, match=r"spec.output.s3.bucket: .* has no bucket 'nothing'; create it") as failure:
        store_in(access, "nothing").check()

    assert (failure.value.reason, failure.value.exit_code) == ("BucketNotFound", 64)
    for broken in (
        lambda s: s.read("a"),
        lambda s: s.write("a", b""),
        lambda s: list(s.list("")),
        lambda s: s.copy("a", "b"),
    ):
        with pytest.raises((BucketMissing, Missing)):
            broken(store_in(access, "nothing"))


def test_a_wrong_secret_is_refused(access: MinioAccess, bucket: str) -> None:
    with pytest.raises(StoreRefused, match="SignatureDoesNotMatch.*spec.output.s3.secretRef") as failure:
        store_in(access, bucket, secret="wrong-secret").check()

    assert (failure.value.reason, failure.value.exit_code) == ("StoreCredentialsRefused", 77)


def test_credentials_come_from_the_environment(
    access: MinioAccess, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", access.secret_key)

    S3Store(S3(endpoint=access.endpoint, bucket=bucket), "").write("a", b"")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreRefused, match="InvalidAccessKeyId|XAdminUserNotFound"):
        S3Store(S3(endpoint=access.endpoint, bucket=bucket), "").check()


def test_missing_credentials_are_reported(
    access: MinioAccess, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/role")

    with pytest.raises(StoreRefused, match="no usable credentials.*spec.output.s3.secretRef"):
        S3Store(S3(endpoint=access.endpoint, bucket=bucket), "").check()


def test_credentials_without_the_right_to_write(access: MinioAccess, bucket: str) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["*"]},
                "Action": ["s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
            }
        ],
    }
    access.client().set_bucket_policy(bucket, json.dumps(policy))
    anonymous = S3Store(S3(endpoint=access.endpoint, bucket=bucket), "sets", credentials=Anonymous())

    anonymous.check()
    with pytest.raises(StoreRefused, match="may not write .*/sets/a"):
        anonymous.write("a", b"")
    with pytest.raises(StoreRefused, match=r"may not delete .*/sets/a( \(AccessDenied\))?; allow them to"):
        anonymous.delete(["a"])


class Anonymous(StaticProvider):
    """No credentials: requests are not signed."""

    def __init__(self) -> None:
        pass

    def retrieve(self) -> None:  # type: ignore[override]  # minio treats this as "do not sign"
        return None


# --- endpoints that are not a store ---


@contextmanager
def listening(*, accept: bool) -> Iterator[str]:
    """An endpoint that takes connections and never answers, or whose queue is full so that it takes none."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(5 if accept else 0)
        address = server.getsockname()
        held = []
        for _ in range(0 if accept else 3):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            held.append(one)
        yield f"http://127.0.0.1:{address[1]}"
        for one in held:
            one.close()


@contextmanager
def answering(status: int, body: bytes, kind: str) -> Iterator[str]:
    """A web server that is no store."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def failure_at(endpoint: str) -> tuple[StoreFailure, float]:
    keys = StaticProvider("key", "secret")
    store = S3Store(S3(endpoint=endpoint, bucket="data"), "sets", credentials=keys)
    began = time.monotonic()
    with pytest.raises(StoreFailure) as failure:
        store.check()
    return failure.value, time.monotonic() - began


def test_a_port_without_a_server() -> None:
    failure, seconds = failure_at("http://127.0.0.1:9")

    assert isinstance(failure, StoreUnreachable)
    assert failure.exit_code == 75
    assert "spec.output.s3.endpoint: http://127.0.0.1:9 refuses connections" in str(failure)
    assert seconds < 15


def test_an_unknown_host() -> None:
    failure, seconds = failure_at("http://nowhere.invalid:9000")

    assert isinstance(failure, StoreUnreachable)
    assert "there is no such host" in str(failure)
    assert seconds < 15


@pytest.mark.parametrize("accept", [True, False])
def test_an_endpoint_that_never_answers_is_reported_soon(accept: bool) -> None:
    with listening(accept=accept) as endpoint:
        failure, seconds = failure_at(endpoint)

    assert isinstance(failure, StoreUnreachable)
    assert "does not answer" in str(failure)
    assert seconds < 15


@pytest.mark.parametrize("page", [b"<html>Console</html>", b"<!doctype html><p>Console"])
@pytest.mark.parametrize("status", [200, 302, 404])
def test_a_web_page_is_not_a_store(status: int, page: bytes) -> None:
    with answering(status, page, "text/html") as endpoint:
        failure, _ = failure_at(endpoint)

    assert isinstance(failure, StoreMisconfigured)
    assert failure.exit_code == 64
    assert "not as an S3 store" in str(failure)


def test_a_failing_store_is_tried_again() -> None:
    body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
    with answering(503, body, "application/xml") as endpoint:
        failure, seconds = failure_at(endpoint)

    assert isinstance(failure, StoreUnreachable)
    assert "SlowDown" in str(failure)
    assert seconds < 15


# --- the steps, on a bucket as in a folder ---


def test_a_dataset_is_planned_and_published_in_a_bucket(store: S3Store, tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"))

    plan(order, store)
    assert run_shards(order, store) == 16
    outcome = publish(order, store)

    assert outcome.published
    assert outcome.published.uri == f"{store.uri}/revisions/{order.revision}"
    assert current_of(store)["uri"] == outcome.published.uri
    again = plan(order, store).plan
    assert again
    assert again[0].reused == 16
    assert publish(order, store) == outcome


def test_a_bucket_and_a_folder_get_the_same_files(store: S3Store, tmp_path: Path) -> None:
    order = an_order(a_model(tmp_path / "model"))
    folder: FolderStore = a_finished_store(order, tmp_path / "folder")
    publish(order, folder)
    plan(order, store)
    run_shards(order, store)
    publish(order, store)

    assert list(store.list("")) == list(folder.list(""))
    assert dataset_of(store) == dataset_of(folder)


def test_images_in_one_bucket_are_labeled_into_another(
    access: MinioAccess, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from diffugen_generator.cli import app
    from generator.training import scenes
    from tests.generator.made import png

    client, target = access.client(), f"{bucket}-labelled"
    client.make_bucket(target)
    for number, image in enumerate(scenes.draw(3, np.random.default_rng(2)).images):
        data = png(image)
        client.put_object(bucket, f"mine/{number}.png", io.BytesIO(data), len(data))
        client.put_object(bucket, f"mine/{number}.txt", io.BytesIO(b"a ball and a star on snow"), 25)
    client.put_object(bucket, "mine/broken.png", io.BytesIO(b"no"), 2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", access.secret_key)
    options = ["--model", "builtin://shapes", "--device", "cpu", "--json", "--endpoint", access.endpoint]
    options += [part for name in scenes.CLASSES for part in ("--class", name)]

    done = CliRunner().invoke(app, ["label", f"s3://{bucket}/mine", "--store", f"s3://{target}/sets", *options])

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["stages"][0]["labelled"], told["skipped"]) == (3, {"Unreadable": 1})
    names = {each.object_name for each in client.list_objects(target, "sets/default/labelled/", recursive=True)}
    assert "sets/default/labelled/current.json" in names
