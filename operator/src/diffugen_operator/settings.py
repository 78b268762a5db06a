"""All that can be configured, in one object.

Every attribute is an environment variable (`DIFFUGEN_` and its name in capitals) and a flag (`--` and its
name with dashes); the flag wins. Times are in seconds.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Self, get_type_hints

from pydantic import ValidationError

from diffugen_api.v1alpha1 import S3
from diffugen_operator import __version__

ENV_PREFIX = "DIFFUGEN_"
_SINGULAR = f"{ENV_PREFIX}NAMESPACE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the operator runs."""

    kubeconfig: str = ""
    """A kubeconfig file; where empty, $KUBECONFIG, then the pod's service account, then ~/.kube/config."""

    namespaces: tuple[str, ...] = ()
    """The namespaces to serve, comma-separated; none means all of them (which needs a ClusterRole)."""

    generator_image: str = f"diffugen/generator:{__version__}"
    """The image of pods that run a model, where `run.image` names none."""

    light_image: str = f"diffugen/generator-light:{__version__}"
    """The image of pods that run no model (plan, publish, labels decided anew): the generator without
    torch."""

    store_endpoint: str = ""
    """The default store, for datasets that set no `output.s3`: its endpoint, e.g. http://minio.storage:9000. Empty:
    there is none, and such a dataset is `StoreNotSet`."""

    store_bucket: str = ""
    """The default store's bucket; needed with store_endpoint."""

    store_prefix: str = ""
    """The folder in the default store's bucket."""

    store_region: str = "us-east-1"
    """The default store's region."""

    store_secret: str = ""
    """The default store's Secret (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), which every namespace with datasets must
    hold under this name. Empty: the pods' own credentials, as of their service account."""

    ca_config_map: str = ""
    """A ConfigMap in every namespace with datasets, whose key `ca.crt` holds the certificates that pods trust instead
    of the usual ones, in PEM. Empty: the usual ones."""

    job_ttl: int = 3600
    """How long finished Jobs and their pods (their logs) are kept; what they did is in the status by then."""

    termination_grace: int = 120
    """What a worker may take on SIGTERM to finish its batch and upload it."""

    workers: int = 8
    """How many datasets are reconciled at the same time."""

    resync_interval: float = 600.0
    """How often everything is listed and looked at anew, in case a watch lost something."""

    watch_silence: float = 70.0
    """A watch that says nothing for so long is taken for broken, whatever TCP says of it, and begun anew; a sound
    one brings a bookmark about once a minute."""

    scrape_interval: float = 5.0
    """How often the pods of a running stage are asked for their progress."""

    scrape_timeout: float = 2.0
    """How long one pod may take to answer; a pod that does not is counted as before, and asked less often."""

    scrape_concurrency: int = 32
    """How many pods are asked at the same time, over all datasets; of those that said nothing, a quarter of it."""

    progress_interval: float = 10.0
    """Least time between two status writes of a dataset that bring nothing but new numbers."""

    no_progress_after: float = 1800.0
    """A run in which nothing has moved for so long is called Stalled, until something moves; 0: never."""

    clean_up_timeout: float = 1800.0
    """How long the clean-up of a deleted dataset (`deletionPolicy: Delete`) may take, from its begin or the last retry,
    before the resource is let go all the same, with an Event that says what is left."""

    backoff_base: float = 0.5
    """The pause after a failed reconcile; doubled with every failure that follows, with jitter."""

    backoff_limit: float = 120.0
    """The longest pause after a failed reconcile."""

    request_timeout: float = 30.0
    """How long one request to the API server may take (watches excepted)."""

    lease_namespace: str = ""
    """Where the Lease lies by which one of several operators is the leader, the only one that works; best
    the operator's own namespace. Empty: no election; two processes must not run then."""

    lease_name: str = "diffugen-operator"
    """The Lease's name. Operators that serve different namespaces need different ones."""

    lease_duration: int = 15
    """How long a Lease that is not renewed is respected: the longest that nobody leads after a crash, with
    lease_retry added."""

    lease_renew_deadline: float = 10.0
    """A leader that could not renew its Lease for so long writes nothing more and ends; less than
    lease_duration, by more than a request to the API server may be on its way."""

    lease_retry: float = 2.0
    """How often a leader renews its Lease, and a standby looks at it; less than lease_renew_deadline."""

    http_host: str = "0.0.0.0"  # noqa: S104 - kubelet and Prometheus reach the pod by its address
    """Where /livez, /readyz and /metrics listen."""

    http_port: int = 0
    """The port of /livez, /readyz and /metrics; 0 takes a free one, which is logged."""

    stuck_after: float = 300.0
    """A reconcile that takes longer, or a dataset that waits longer for one, makes /livez fail."""

    log_format: str = "text"
    """text, or json: one object a line."""

    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @classmethod
    def read(cls, environment: Mapping[str, str], flags: Mapping[str, str | None]) -> Self:
        """Return the settings from the environment and, before it, flags; names the one that is at fault."""
        values: dict[str, Any] = {}
        types = get_type_hints(cls)
        for field in fields(cls):
            text = flags.get(field.name)
            if text is None:
                text = _from_environment(environment, field.name)
            if text is None:
                continue
            try:
                values[field.name] = _parse(text, types[field.name])
            except ValueError:
                raise _fault(field.name, text, _KINDS[types[field.name]]) from None
        return cls(**values)

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        for names, fits, wanted in _BOUNDS:
            for name in names:
                if not fits(value := getattr(self, name)):
                    raise _fault(name, ",".join(value) if isinstance(value, tuple) else value, wanted)
        self._check_default_store()
        if not 0 < self.lease_retry < self.lease_renew_deadline < self.lease_duration:
            raise ValueError("lease_retry must be less than lease_renew_deadline, and that less than lease_duration")

    @property
    def default_store(self) -> S3 | None:
        """The store of datasets that name none, if there is one."""
        if not self.store_endpoint:
            return None
        return S3.model_validate(
            {
                "endpoint": self.store_endpoint,
                "bucket": self.store_bucket,
                "prefix": self.store_prefix,
                "region": self.store_region,
                **({"secretRef": {"name": self.store_secret}} if self.store_secret else {}),
            }
        )

    def _check_default_store(self) -> None:
        if not self.store_endpoint:
            for name in ("store_bucket", "store_prefix", "store_secret"):
                if value := getattr(self, name):
                    flag = f"--{name.replace('_', '-')}"
                    raise ValueError(f"{flag} is {value!r}, but there is no default store: set --store-endpoint too")
            return
        try:
            _ = self.default_store
        except ValidationError as error:
            name, wanted = _STORE_FIELDS[str(error.errors(include_url=False)[0]["loc"][0])]
            raise _fault(name, getattr(self, name), wanted) from None


_KINDS = {int: "a whole number", float: "a number of seconds"}
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS = ("text", "json")
_TIMES = (
    "resync_interval",
    "watch_silence",
    "scrape_interval",
    "scrape_timeout",
    "progress_interval",
    "clean_up_timeout",
    "backoff_base",
    "backoff_limit",
    "request_timeout",
    "stuck_after",
)

_STORE_FIELDS = {
    "endpoint": ("store_endpoint", "scheme, host and port, as http://minio.storage:9000"),
    "bucket": ("store_bucket", "a bucket's name (3 to 63 small letters, digits, dots and dashes)"),
    "prefix": ("store_prefix", "a folder (letters, digits, and . _ - /), without . or .. as a part"),
    "region": ("store_region", "a region's name of at most 63 characters"),
    "secretRef": ("store_secret", "a Secret's name, or nothing"),
}
"""The fields of `output.s3`: which setting has them of the default store, and what it has to fulfil."""

_BOUNDS: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("workers", "scrape_concurrency"), lambda value: value >= 1, "1 or more"),
    (("job_ttl", "termination_grace"), lambda value: 0 <= value < 2**31, "a number of seconds, 0 or more"),
    (_TIMES, lambda value: isfinite(value) and value > 0, "a number of seconds above 0"),
    (("no_progress_after",), lambda value: isfinite(value) and value >= 0, "a number of seconds, 0 or more"),
    (("http_port",), lambda value: 0 <= value <= 65535, "a port, 0 to 65535"),
    (("log_level",), lambda value: value in _LEVELS, f"one of {', '.join(_LEVELS)}"),
    (("log_format",), lambda value: value in _FORMATS, f"one of {', '.join(_FORMATS)}"),
    (
        ("namespaces",),
        lambda value: all(_LABEL.fullmatch(name) for name in value),
        "names of namespaces (small letters, digits and dashes), comma-separated",
    ),
    (
        ("ca_config_map",),
        lambda value: not value or (len(value) <= 253 and bool(_SUBDOMAIN.fullmatch(value))),
        "a ConfigMap's name, or nothing",
    ),
    (("lease_namespace",), lambda value: not value or bool(_LABEL.fullmatch(value)), "a namespace's name, or nothing"),
)
"""Settings, what each has to fulfil, and how that is said."""


def _fault(name: str, value: object, wanted: str) -> ValueError:
    flag = f"--{name.replace('_', '-')}"
    return ValueError(f"{flag} ({ENV_PREFIX}{name.upper()}) is {str(value)!r}: set it to {wanted}")


def _from_environment(environment: Mapping[str, str], name: str) -> str | None:
    text = environment.get(ENV_PREFIX + name.upper())
    # Who names one namespace writes the singular; unheeded, it would mean that all of them are served.
    other = environment.get(_SINGULAR) if name == "namespaces" else None
    if text is not None and other is not None and text != other:
        raise ValueError(f"{_SINGULAR} ({other!r}) and {_SINGULAR}S ({text!r}) say different things: set one of them")
    return other if text is None else text


def described() -> dict[str, str]:
    """Return what each setting means: the text below it, above."""
    text = inspect.getsource(Settings)
    found = re.findall(r'^    (\w+): [^\n]+\n    """(.*?)"""', text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(words.split()) for name, words in found}


def table() -> str:
    """Return all settings as a Markdown table: flag, environment variable, default, meaning."""
    explained, rows = described(), ["| flag | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for field in fields(Settings):
        flag, default = f"`--{field.name.replace('_', '-')}`", shown(field.default).replace(__version__, "VERSION")
        variable = f"`{ENV_PREFIX}{field.name.upper()}`"
        rows.append(f"| {flag} | {variable} | {f'`{default}`' if default else ''} | {explained[field.name]} |")
    return "\n".join(rows)


def shown(default: object) -> str:
    """Return a default as one would write it."""
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _parse(text: str, kind: Any) -> Any:
    if kind in (int, float, str):
        return kind(text)
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
