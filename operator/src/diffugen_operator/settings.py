"""All settings of the operator, in one object.

Every attribute is an environment variable (`DIFFUGEN_` and its name in capitals) and a flag (`--` and its name with
dashes). The flag takes precedence. Times are in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from diffugen_api.v1alpha1 import S3
from diffugen_operator import __version__

ENV_PREFIX = "DIFFUGEN_"
_SINGULAR = f"{ENV_PREFIX}NAMESPACE"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Describes a valid value, for the error message about an invalid one."""

    text: str


def _separated(value: object) -> object:
    """Split a comma-separated text; the first of equal names is kept."""
    if not isinstance(value, str):
        return value
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


Count = Annotated[int, Field(ge=1), Wanted("a whole number, 1 or more")]
WholeNumber = Annotated[int, Wanted("a whole number")]
WholeSeconds = Annotated[int, Field(ge=0, lt=2**31), Wanted("a whole number of seconds, 0 or more")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), Wanted("a number of seconds above 0")]
SecondsOrNever = Annotated[float, Field(ge=0, allow_inf_nan=False), Wanted("a number of seconds, 0 or more")]
SomeSeconds = Annotated[float, Wanted("a number of seconds")]
Port = Annotated[int, Field(ge=0, le=65535), Wanted("a port, 0 to 65535")]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Wanted("one of DEBUG, INFO, WARNING, ERROR")]
LogFormat = Annotated[Literal["text", "json"], Wanted("one of text, json")]
PodTemplatePolicy = Annotated[Literal["any", "restricted"], Wanted("one of any, restricted")]
Namespaces = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=f"^{_LABEL}$")], ...],
    NoDecode,
    BeforeValidator(_separated),
    Wanted("names of namespaces (lower-case letters, digits and '-'), comma-separated"),
]
OptionalNamespace = Annotated[
    str, StringConstraints(pattern=f"^({_LABEL})?$"), Wanted("the name of a namespace, or nothing")
]
ConfigMapName = Annotated[
    str,
    StringConstraints(max_length=253, pattern=rf"^({_LABEL}(\.{_LABEL})*)?$"),
    Wanted("the name of a ConfigMap, or nothing"),
]


class Settings(BaseSettings):
    """How the operator runs."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, use_attribute_docstrings=True)

    kubeconfig: str = ""
    """A kubeconfig file; exactly this one is used. If empty: $KUBECONFIG, then the pod's service account, then
    ~/.kube/config."""

    context: str = ""
    """The kubeconfig's context. If empty: the current one at the start."""

    namespaces: Namespaces = ()
    """The namespaces to serve, comma-separated. If empty: all namespaces (this needs a ClusterRole)."""

    generator_image: str = f"diffugen/generator:{__version__}"
    """The image of pods that run a model, if `run.image` is not set."""

    light_image: str = f"diffugen/generator-light:{__version__}"
    """The image of pods that run no model (plan, publish, deciding labels again): the generator without
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

    store_addressing_style: str = "auto"
    """How requests name the default store's bucket, as `output.s3.addressingStyle`: auto, path or virtual."""

    store_secret: str = ""
    """The default store's Secret (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), which every namespace with datasets must
    hold under this name. Empty: the pods' own credentials, as of their service account."""

    ca_config_map: ConfigMapName = ""
    """A ConfigMap in every namespace with datasets, whose key `ca.crt` holds the certificates that pods trust instead
    of the usual ones, in PEM. Empty: the usual ones."""

    pod_template_policy: PodTemplatePolicy = "any"
    """What run.podTemplate may set. any: every field of a pod, so that users who may write datasets can run any pod in
    their namespace. restricted: where pods run, what they request, and plain environment variables; a dataset with
    another field is `InvalidPodTemplate`."""

    job_ttl: WholeSeconds = 3600
    """How long finished Jobs, their pods and logs are kept. Their results are in the status before that."""

    termination_grace: WholeSeconds = 120
    """How long a worker may take after SIGTERM to finish its batch and upload it."""

    workers: Count = 8
    """How many datasets are reconciled at the same time."""

    resync_interval: Seconds = 600.0
    """How often all objects are listed and reconciled again, in case a watch lost an event."""

    watch_silence: Seconds = 70.0
    """A watch without any event for this long counts as broken and is restarted. A working watch gets a bookmark
    about once a minute."""

    scrape_interval: Seconds = 5.0
    """How often the pods of a running stage are asked for their progress."""

    scrape_timeout: Seconds = 2.0
    """How long a pod may take to answer. For a pod that does not answer, the last progress counts; it is asked less
    often."""

    scrape_concurrency: Count = 32
    """How many pods of all datasets are asked at the same time; at most a quarter of them are pods that did
    not answer."""

    progress_interval: Seconds = 10.0
    """The shortest time between two status writes of a dataset that change only numbers."""

    no_progress_after: SecondsOrNever = 1800.0
    """A run without progress for this long is reported as Stalled until there is progress again; 0: never."""

    clean_up_timeout: Seconds = 1800.0
    """How long the clean-up of a deleted dataset (`deletionPolicy: Delete`) may take, from its start or the last
    retry. After that the resource is deleted anyway, with an Event that says what is left in the store."""

    backoff_base: Seconds = 0.5
    """The pause after a failed reconcile. It doubles with every further failure, with jitter."""

    backoff_limit: Seconds = 120.0
    """The longest pause after a failed reconcile."""

    request_timeout: Seconds = 30.0
    """How long one request to the API server may take (watches excepted)."""

    lease_namespace: OptionalNamespace = ""
    """The namespace of the Lease that elects the leader among several operators; only the leader works. Use the
    operator's own namespace. If empty: no election, and only one operator may run."""

    lease_name: str = "diffugen-operator"
    """The Lease's name. Operators that serve different namespaces need different names."""

    lease_duration: WholeNumber = 15
    """How long a Lease stays valid without renewal. After a crash there is no leader for at most this time plus
    lease_retry."""

    lease_renew_deadline: SomeSeconds = 10.0
    """A leader that could not renew its Lease for this long writes nothing more and exits. It must be less than
    lease_duration, by more than a request to the API server takes."""

    lease_retry: SomeSeconds = 2.0
    """How often a leader renews its Lease, and a standby reads it. It must be less than lease_renew_deadline."""

    http_host: str = "0.0.0.0"  # noqa: S104 - kubelet and Prometheus reach the pod by its address
    """The address on which /livez, /readyz and /metrics are served."""

    http_port: Port = 0
    """The port of /livez, /readyz and /metrics. 0 takes a free port and logs it."""

    stuck_after: Seconds = 300.0
    """If a reconcile takes longer than this, or a dataset waits longer for one, /livez fails."""

    log_format: LogFormat = "text"
    """text, or json (one object per line)."""

    log_level: LogLevel = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @classmethod
    def read(cls, flags: Mapping[str, str | None]) -> Self:
        """Return the settings from the flags, then the environment. Raises ValueError that names the invalid one."""
        given = {name: text for name, text in flags.items() if text is not None}
        if "namespaces" not in given and (singular := os.environ.get(_SINGULAR)) is not None:
            # A user with one namespace may write the singular. If it were ignored, all namespaces would be served.
            plural = os.environ.get(f"{_SINGULAR}S")
            if plural not in (None, singular):
                raise ValueError(f"{_SINGULAR} ({singular!r}) and {_SINGULAR}S ({plural!r}) differ: set one of them")
            given["namespaces"] = singular
        values: dict[str, Any] = given
        try:
            return cls(**values)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            if not fault["loc"]:
                raise ValueError(str(fault["ctx"]["error"])) from None
            raise _invalid(str(fault["loc"][0]), fault["input"]) from None

    @model_validator(mode="after")
    def _lease_times_are_in_order(self) -> Self:
        if not 0 < self.lease_retry < self.lease_renew_deadline < self.lease_duration:
            raise ValueError("lease_retry must be less than lease_renew_deadline, and that less than lease_duration")
        return self

    @model_validator(mode="after")
    def _default_store_is_valid(self) -> Self:
        if not self.store_endpoint:
            for name in ("store_bucket", "store_prefix", "store_secret"):
                if value := getattr(self, name):
                    message = f"{flag_of(name)} is {value!r}, but there is no default store: set --store-endpoint too"
                    raise ValueError(message)
            return self
        try:
            _ = self.default_store
        except ValidationError as error:
            name, wanted = _STORE_FIELDS[str(error.errors(include_url=False)[0]["loc"][0])]
            raise _invalid(name, getattr(self, name), wanted) from None
        return self

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
                "addressingStyle": self.store_addressing_style,
                **({"secretRef": {"name": self.store_secret}} if self.store_secret else {}),
            }
        )


_STORE_FIELDS = {
    "endpoint": ("store_endpoint", "scheme, host and port, as http://minio.storage:9000"),
    "bucket": ("store_bucket", "a bucket's name (3 to 63 lower-case letters, digits, dots and dashes)"),
    "prefix": ("store_prefix", "a folder (letters, digits, and . _ - /), without . or .. as a part"),
    "region": ("store_region", "a region's name of at most 63 characters"),
    "addressingStyle": ("store_addressing_style", "auto, path or virtual"),
    "secretRef": ("store_secret", "a Secret's name, or nothing"),
}
"""For each field of `output.s3`, the setting that holds it for the default store, and what a valid value is."""


def _invalid(name: str, value: object, wanted: str = "") -> ValueError:
    wanted = wanted or next(m.text for m in Settings.model_fields[name].metadata if isinstance(m, Wanted))
    return ValueError(f"{flag_of(name)} ({variable_of(name)}) is {str(value)!r}: set it to {wanted}")


def flag_of(name: str) -> str:
    """Return a setting's flag."""
    return f"--{name.replace('_', '-')}"


def variable_of(name: str) -> str:
    """Return a setting's environment variable."""
    return ENV_PREFIX + name.upper()


def described() -> dict[str, str]:
    """Return what each setting means: the text below it, above."""
    return {name: " ".join((field.description or "").split()) for name, field in Settings.model_fields.items()}


def defaults() -> dict[str, str]:
    """Return the default of each setting as a user would write it."""
    fields = {name: field.default for name, field in Settings.model_fields.items()}
    return {name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in fields.items()}


def table() -> str:
    """Return all settings as a Markdown table: flag, environment variable, default, meaning."""
    explained, rows = described(), ["| flag | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for name, value in defaults().items():
        default = f"`{value.replace(__version__, 'VERSION')}`" if value else ""
        rows.append(f"| `{flag_of(name)}` | `{variable_of(name)}` | {default} | {explained[name]} |")
    return "\n".join(rows)
