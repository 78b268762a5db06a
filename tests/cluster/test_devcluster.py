"""The throwaway cluster behaves like a kubelet, and leaves nothing behind."""

import io
import ipaddress
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.audit import user_of
from devcluster.cluster import ClusterError
from devcluster.node.paths import PathMap
from tests.cluster.pods import (
    Json,
    eventually,
    mentions,
    named,
    pod,
    pod_spec,
    shell,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

_numbers = itertools.count()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace for this test alone, where only restricted pods are admitted."""
    name = f"test-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    eventually(lambda: cluster.get("serviceaccount", "default", namespace=name))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def state_of(cluster: Cluster, namespace: str, kind: str) -> Json:
    """The `kind` of state that the test's pod is in; fails when it is in another."""
    status = cluster.get("pod", "pod", namespace=namespace)["status"]
    state: Json = status["containerStatuses"][0]["state"]
    assert kind in state, state
    return dict(state[kind])


def test_an_indexed_job_runs_on_pretended_gpus(cluster: Cluster, namespace: str) -> None:
    script = """
        cat /etc/spec/words
        echo "$JOB_COMPLETION_INDEX $IP $WORD $GREETING"
        sleep 1
        echo "did $JOB_COMPLETION_INDEX" > "$DIFFUGEN_TERMINATION_LOG"
    """
    container = shell(
        script,
        env=[
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "word"}}},
            {"name": "GREETING", "value": "hello-$(WORD)"},
        ],
        volumeMounts=[{"name": "spec", "mountPath": "/etc/spec"}],
        resources={"limits": {"nvidia.com/gpu": "1"}},
    )
    template = {"spec": pod_spec(container, volumes=[{"name": "spec", "configMap": {"name": "spec"}}])}
    job = named(namespace, "Job", "three", spec={
        "completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 0, "template": template,
    })  # fmt: skip

    cluster.apply(
        named(namespace, "ConfigMap", "spec", data={"words": "from the map\n"}),
        named(namespace, "Secret", "keys", stringData={"word": "sesame"}),
        {**job, "apiVersion": "batch/v1"},
    )
    wait = ("wait", "--for=condition=complete", "job/three", "-n", namespace, "--timeout=150s")
    cluster.kubectl(*wait, timeout_s=160)

    pods = cluster.items("pods", namespace=namespace)
    indexes = [item["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for item in pods]
    addresses = [item["status"]["podIP"] for item in pods]
    ends = [item["status"]["containerStatuses"][0]["state"]["terminated"] for item in pods]
    assert sorted(indexes) == ["0", "1", "2"]
    assert len(set(addresses)) == 3
    assert all(ipaddress.ip_address(address).is_loopback for address in addresses)
    assert [end["message"] for end in ends] == [f"did {index}\n" for index in indexes]
    assert {(end["exitCode"], end["reason"]) for end in ends} == {(0, "Completed")}
    for item, index, address in zip(pods, indexes, addresses, strict=True):
        log = cluster.pod_log(namespace, item["metadata"]["name"])
        assert log == f"from the map\n{index} {address} sesame hello-sesame\n"
    # Two GPUs, three pods: the third began when another had ended.
    assert max(end["startedAt"] for end in ends) >= min(end["finishedAt"] for end in ends)


def test_kubectl_shows_logs(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(namespace, shell("echo one; echo two; sleep 1; echo three")))
    eventually(lambda: "two" in cluster.pod_log(namespace, "pod"))

    assert cluster.kubectl("logs", "pod", "-n", namespace, "--follow") == "one\ntwo\nthree\n"
    assert cluster.kubectl("logs", "pod", "-n", namespace, "--tail=1") == "three\n"


def test_a_long_message_is_cut_and_a_failure_is_reported(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(namespace, shell("head -c 9000 /dev/zero | tr '\\0' x > /dev/termination-log; exit 77")))

    end = eventually(lambda: state_of(cluster, namespace, "terminated"))

    assert (end["exitCode"], end["reason"], end["message"]) == (77, "Error", "x" * 4096)
    assert cluster.get("pod", "pod", namespace=namespace)["status"]["phase"] == "Failed"


def test_a_container_over_its_memory_limit_is_killed(cluster: Cluster, namespace: str) -> None:
    grow = "python3 -c 'import time; much = b\"x\" * (200 << 20); time.sleep(60)'; true"  # in a process below the first
    cluster.apply(pod(namespace, {**shell(grow), "resources": {"limits": {"memory": "100Mi"}}}))

    end = eventually(lambda: state_of(cluster, namespace, "terminated"))

    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_volumes_and_init_containers(cluster: Cluster, namespace: str) -> None:
    mounts = [{"name": "scratch", "mountPath": "/data"}, {"name": "facts", "mountPath": "/data/facts"}]
    init = {**shell("echo prepared > /data/file", volumeMounts=mounts), "name": "init"}
    show = shell('cat "$DIR/file" /data/facts/who; cd /data && cat facts/who; test -d "$HOME" && test -d "$TMPDIR"')
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {
            "name": "facts",
            "downwardAPI": {"items": [{"path": "who", "fieldRef": {"fieldPath": "metadata.name"}}]},
        },
    ]
    main = {**show, "volumeMounts": mounts, "env": [{"name": "DIR", "value": "/data"}]}
    cluster.apply(pod(namespace, main, initContainers=[init], volumes=volumes))

    end = eventually(lambda: state_of(cluster, namespace, "terminated"))

    assert end["exitCode"] == 0
    assert cluster.pod_log(namespace, "pod", "main") == "prepared\npodpod"


def test_projections_and_whole_maps(cluster: Cluster, namespace: str) -> None:
    show = """
        echo "$P_ONE $BOTH $ODD $UNKNOWN $NODE $GPUS"
        cat /etc/all/one /etc/one-file
        test -s /var/run/secrets/kubernetes.io/serviceaccount/token
        grep -c "BEGIN CERT" /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    """
    main = shell(
        show,
        envFrom=[{"configMapRef": {"name": "map"}, "prefix": "P_"}, {"secretRef": {"name": "no", "optional": True}}],
        env=[
            {"name": "BOTH", "value": "$(P_ONE)+$(P_TWO)"},
            {"name": "ODD", "value": "$$(P_ONE)"},
            {"name": "UNKNOWN", "value": "$(NOBODY)"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "GPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
        resources={"limits": {"memory": "1Gi"}},
        volumeMounts=[
            {"name": "all", "mountPath": "/etc/all"},
            {"name": "all", "mountPath": "/etc/one-file", "subPath": "two"},
        ],
    )
    projected = {"projected": {"sources": [{"configMap": {"name": "map"}}]}}
    cluster.apply(
        named(namespace, "ConfigMap", "map", data={"ONE": "1", "TWO": "2", "one": "first\n", "two": "second\n"}),
        pod(namespace, main, volumes=[{"name": "all", **projected}]),
    )

    end = eventually(lambda: state_of(cluster, namespace, "terminated"))

    assert cluster.pod_log(namespace, "pod") == "1 1+2 $(P_ONE) $(NOBODY) node-0 1024\nfirst\nsecond\n2\n"
    assert end["exitCode"] == 0


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/data", "/real/data"),
        ("--in=/data/x", "--in=/real/data/x"),
        ('cat "/data/x" /data;', 'cat "/real/data/x" /real/data;'),
        ("/data/inner/x", "/other/x"),
        ("a:/data:b", "a:/real/data:b"),
        ("/database /my/data s3://bucket/data", "/database /my/data s3://bucket/data"),
    ],
)
def test_mount_paths_in_texts_are_replaced(text: str, rewritten: str) -> None:
    paths = PathMap({"/data/": Path("/real/data"), "/data/inner": Path("/other")})
    assert paths.rewrite(text) == rewritten


def test_a_missing_secret_is_waited_for(cluster: Cluster, namespace: str) -> None:
    word = {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "late", "key": "word"}}}
    cluster.apply(pod(namespace, shell("echo $WORD", env=[word])))

    waiting = eventually(
        lambda: (
            state_of(cluster, namespace, "waiting") if "message" in state_of(cluster, namespace, "waiting") else None
        )
    )
    assert waiting == {"reason": "CreateContainerConfigError", "message": 'secret "late" not found'}

    cluster.apply(named(namespace, "Secret", "late", stringData={"other": "thing"}))
    wanted = {
        "reason": "CreateContainerConfigError",
        "message": f"couldn't find key word in Secret {namespace}/late",
    }
    eventually(lambda: state_of(cluster, namespace, "waiting") == wanted)

    cluster.apply(named(namespace, "Secret", "late", stringData={"word": "here"}))
    assert eventually(lambda: state_of(cluster, namespace, "terminated"))["exitCode"] == 0


@pytest.mark.parametrize(("policy", "reason"), [("Never", "ErrImageNeverPull"), ("IfNotPresent", "ImagePullBackOff")])
def test_an_unknown_image_does_not_run(cluster: Cluster, namespace: str, policy: str, reason: str) -> None:
    cluster.apply(pod(namespace, shell("true", image="busybox", imagePullPolicy=policy)))

    eventually(lambda: state_of(cluster, namespace, "waiting")["reason"] == reason)


def test_a_missing_program_ends_the_pod(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(namespace, {**shell(""), "command": ["no-such-program"]}))

    end = eventually(lambda: state_of(cluster, namespace, "terminated"))
    assert (end["exitCode"], end["reason"]) == (128, "StartError")


def test_deletion_sends_sigterm_first(cluster: Cluster, namespace: str) -> None:
    bucket = namespace
    cluster.make_bucket(bucket)
    polite = shell("trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.1; done")
    cluster.apply(pod(namespace, polite))
    eventually(lambda: cluster.pod_log(namespace, "pod") == "up\n")

    cluster.kubectl("delete", "pod", "pod", "-n", namespace, "--timeout=15s")

    assert cluster.pod_log(namespace, "pod") == "up\nasked\n"


def test_deletion_waits_for_a_limited_time(cluster: Cluster, namespace: str) -> None:
    marker = f"stubborn-{namespace}"
    stubborn = shell("trap '' TERM; echo up; while :; do sleep 0.1; done", env=[{"name": "MARK", "value": marker}])
    cluster.apply(pod(namespace, stubborn, terminationGracePeriodSeconds=1))
    eventually(lambda: cluster.pod_log(namespace, "pod") == "up\n")
    assert mentions(marker)

    cluster.kubectl("delete", "pod", "pod", "-n", namespace, "--timeout=15s")

    assert not mentions(marker)


def test_a_deadline_ends_the_pod(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(namespace, shell("sleep 60"), activeDeadlineSeconds=1, terminationGracePeriodSeconds=1))

    status = eventually(lambda: failed_status(cluster, namespace))
    assert status["reason"] == "DeadlineExceeded"


def failed_status(cluster: Cluster, namespace: str) -> Json:
    status: Json = cluster.get("pod", "pod", namespace=namespace)["status"]
    assert status["phase"] == "Failed"
    return status


def test_a_container_is_restarted_on_failure(cluster: Cluster, namespace: str) -> None:
    twice = shell(
        "test -e /data/been && exit 0; touch /data/been; exit 1",
        volumeMounts=[{"name": "d", "mountPath": "/data"}],
    )
    again = pod(namespace, twice, volumes=[{"name": "d", "emptyDir": {}}])
    again["spec"]["restartPolicy"] = "OnFailure"
    cluster.apply(again)

    eventually(lambda: cluster.get("pod", "pod", namespace=namespace)["status"]["phase"] == "Succeeded")
    assert cluster.get("pod", "pod", namespace=namespace)["status"]["containerStatuses"][0]["restartCount"] == 1


def test_pods_that_are_not_restricted_are_refused(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        cluster.apply(pod(namespace, {**shell("true"), "securityContext": {}}))


def test_the_operator_user_has_only_its_given_rights_and_is_in_the_audit_log(cluster: Cluster, namespace: str) -> None:
    as_operator = f"--kubeconfig={cluster.operator_kubeconfig}"
    with pytest.raises(ClusterError, match="forbidden"):
        cluster.kubectl(as_operator, "create", "secret", "generic", "x", "-n", namespace)

    (event,) = [e for e in cluster.writes_of("operator") if f"/namespaces/{namespace}/" in e["requestURI"]]
    assert (event["verb"], event["objectRef"]["resource"], event["responseStatus"]["code"]) == (
        "create",
        "secrets",
        403,
    )


def test_an_anonymous_request_is_in_the_audit_log_without_a_name(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(ClusterError, match="Unauthorized"):
        cluster.kubectl("--token=unknown", "get", "pods", "-n", namespace)

    here = [e for e in cluster.audit_events() if e["requestURI"].startswith(f"/api/v1/namespaces/{namespace}/pods")]
    assert [user_of(e) for e in here if e["responseStatus"]["code"] == 401] == [None]
    assert cluster.audit_events("operator"), "who is known is told apart from it"


def test_a_lost_node_loses_its_containers(cluster: Cluster, namespace: str) -> None:
    marker = f"lost-{namespace}"
    # Killing only the shell would not end the processes that it forked.
    forks = shell("sleep 60 & echo up; wait; true", env=[{"name": "MARK", "value": marker}])
    cluster.apply(pod(namespace, forks))
    eventually(lambda: cluster.pod_log(namespace, "pod") == "up\n")

    cluster.node.kill()
    assert not mentions(marker)

    cluster.node.start()
    end = eventually(lambda: state_of(cluster, namespace, "terminated"))
    assert (end["exitCode"], end["reason"]) == (137, "ContainerStatusUnknown")


def test_pods_continue_without_the_api_server(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(namespace, shell("echo up; sleep 2; echo down")))
    eventually(lambda: cluster.pod_log(namespace, "pod") == "up\n")

    cluster.apiserver.kill()
    eventually(lambda: cluster.pod_log(namespace, "pod") == "up\ndown\n")
    cluster.apiserver.start()

    eventually(lambda: cluster.get("pod", "pod", namespace=namespace)["status"]["phase"] == "Succeeded")


def test_pods_of_a_lost_node_are_evicted() -> None:
    with Cluster.start(nodes=2, node_monitor_grace_s=4, unreachable_toleration_s=1) as two:
        template = {"spec": pod_spec(shell("echo up; sleep 60"))}
        spec = {"completionMode": "Indexed", "completions": 1, "podReplacementPolicy": "Failed", "template": template}
        two.apply({**named("default", "Job", "job", spec=spec), "apiVersion": "batch/v1"})
        first = eventually(lambda: running_pods(two)[0])
        home = next(node for node in two.nodes if node.name == first["spec"]["nodeName"])

        home.kill()
        eventually(lambda: "deletionTimestamp" in two.items("pods", namespace="default")[0]["metadata"])

        home.start()  # only the node can tell the Job that the pod has ended
        eventually(lambda: not running_pods(two))
        eventually(lambda: two.get("job", "job", namespace="default")["status"].get("failed") == 1)


def running_pods(cluster: Cluster) -> list[Json]:
    return [item for item in cluster.items("pods", namespace="default") if item["status"]["phase"] == "Running"]


def test_the_store_can_be_another_one() -> None:
    with Cluster.start(nodes=0, store="versitygw") as gateway:
        gateway.make_bucket("datasets")
        client = gateway.minio.client()
        client.put_object("datasets", "a/b", io.BytesIO(b"one"), 3)

        assert client.get_object("datasets", "a/b").data == b"one"


def test_an_unknown_store_is_refused_before_anything_starts() -> None:
    with pytest.raises(ClusterError, match="there is no store 'other'; there are minio, versitygw"):
        Cluster.start(store="other")
