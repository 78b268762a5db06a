"""The trial MinIO with its own command: it creates its bucket."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import time
from pathlib import Path

import minio
import urllib3

from devcluster.binaries import ensure_binaries
from devcluster.building import ConsoleReporter
from tests.chart.helm import RELEASE, VARIANTS, one, render


def test_the_command_of_the_chart_makes_the_bucket_and_takes_the_keys(tmp_path: Path) -> None:
    manifests = render(VARIANTS["MinIO for trials"])
    (container,) = one(manifests, "Deployment", f"{RELEASE}-minio")["spec"]["template"]["spec"]["containers"]
    keys = one(manifests, "Secret")["stringData"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (script,) = container["args"]
    here = re.sub(r"/data\b", str(tmp_path / "data"), script).replace(":9000", f"127.0.0.1:{port}")
    binary = ensure_binaries(ConsoleReporter()).minio
    names = {
        entry["name"]: keys[entry["valueFrom"]["secretKeyRef"]["key"]]
        for entry in container["env"]
        if "valueFrom" in entry
    }
    plain = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    environment = {
        **names,
        **plain,
        "HOME": str(tmp_path),
        "PATH": f"{binary.parent}:/usr/bin:/bin",
        "MINIO_CI_CD": "on",
    }

    with subprocess.Popen([*container["command"], here], env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            client = minio.Minio(
                f"127.0.0.1:{port}",
                access_key=keys["AWS_ACCESS_KEY_ID"],
                secret_key=keys["AWS_SECRET_ACCESS_KEY"],
                secure=False,
            )
            wait_for(f"http://127.0.0.1:{port}{container['readinessProbe']['httpGet']['path']}")
            assert [bucket.name for bucket in client.list_buckets()] == ["datasets"]
            client.put_object("datasets", "key", data=io.BytesIO(b"x"), length=1)
        finally:
            server.terminate()


def wait_for(url: str) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            if urllib3.request("GET", url, retries=False, timeout=5).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        assert time.monotonic() < end, f"{url} does not answer"
        time.sleep(0.2)
