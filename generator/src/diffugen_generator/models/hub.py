"""Models of the Hugging Face hub, or of a mirror with the same API: `hf://ORG/NAME@REVISION`.

The plan resolves a branch or tag to its commit once; later steps use the commit. The hub publishes size and digest of
every file. So the plan downloads only some kilobytes of settings, and every fetched file is checked. `$HF_TOKEN` and
`$HF_ENDPOINT` have their usual meaning.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from diffugen_api.plan import SpecError
from diffugen_generator.failures import ModelRefused, ModelUnreachable
from diffugen_generator.families.checkpoint import CheckpointHeader
from diffugen_generator.models.digests import FileDigest, hashed
from diffugen_generator.models.headers import unreadable
from diffugen_generator.models.uris import HUB

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_ENDPOINT = "https://huggingface.co"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_URI = re.compile(r"hf://(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>refs/pr/\d+|[^/\s]+))?(?:/(?P<path>\S+))?")
_REVISION_AFTER_FILE = re.compile(r"(?P<path>\S+\.(?:safetensors|ckpt|bin|pt))@(?P<revision>refs/pr/\d+|[^/\s@]+)")
"""`FILE@REVISION`, which means the same as the revision after the repository."""
_TRANSPORTS = {"httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3"}
"""HTTP libraries of the hub's client, which depend on its version. Their errors are recognized by their module."""

T = TypeVar("T")


class Repository:
    """One repository of the hub at one commit."""

    def __init__(self, uri: str, field: str) -> None:
        """Parse the URI; no request is sent yet. Raises `SpecError` if `uri` does not name a repository."""
        match = _URI.fullmatch(uri)
        if match is None:
            raise SpecError(
                "UnknownModel", f"{field}: {uri!r} names no repository; write hf://ORG/NAME or hf://ORG/NAME@REVISION."
            )
        path, revision = match["path"] or "", match["revision"]
        if revision is None and (after := _REVISION_AFTER_FILE.fullmatch(path)):
            path, revision = after["path"], after["revision"]
        self._repo, self._revision = match["repo"], (revision or "main").replace("%2F", "/")
        self.path = path
        """A file in the repository; empty for the whole repository."""
        self._field = field
        self._endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _ENDPOINT

    @property
    def uri(self) -> str:
        """The repository, at its commit."""
        return f"{HUB}{self._repo}@{self.commit}{self.path and '/' + self.path}"

    @property
    def identity(self) -> list[str]:
        """What identifies the repository's content: the same identity always means the same content."""
        return ["hf", self._repo, self.commit]

    @property
    def commit(self) -> str:
        """The commit that the revision names."""
        if _COMMIT.fullmatch(self._revision):
            return self._revision
        return str(self._info.sha)

    def names(self) -> Collection[str]:
        """Return the names of its files."""
        return [file.rfilename for file in self._info.siblings or []]

    def digest(self, name: str) -> FileDigest | None:
        """Return the digest that the hub publishes for a large file; None for other files."""
        (file,) = (each for each in self._info.siblings or [] if each.rfilename == name)
        return FileDigest(file.lfs.size, file.lfs.sha256) if file.lfs else None

    def header(self, name: str) -> CheckpointHeader:
        """Return the header of a safetensors file; reads it by ranges."""
        from huggingface_hub import HfApi, errors  # noqa: PLC0415 - half a second, only for such models

        api = HfApi(endpoint=self._endpoint, token=_token())
        try:
            found = self._asked(
                lambda: api.parse_safetensors_file_metadata(self._repo, name, revision=self.commit, timeout=15)
            )
        except errors.SafetensorsParsingError:
            fault = unreadable(name, self._start(name))
            raise SpecError(
                "UnsupportedModel", f"{self._field}: {self.uri!r} {fault.replace('copy it again', 'name another')}"
            ) from None
        shapes = {tensor: tuple(info.shape) for tensor, info in found.tensors.items()}
        return CheckpointHeader(shapes, {str(key): str(value) for key, value in (found.metadata or {}).items()})

    def _start(self, name: str) -> bytes:
        """Return the first bytes of a file."""
        from huggingface_hub import get_session, hf_hub_url  # noqa: PLC0415 - half a second, only for such models

        url = hf_hub_url(self._repo, name, revision=self.commit, endpoint=self._endpoint)
        token = _token()
        asked = {"Range": "bytes=0-7"} | ({"Authorization": f"Bearer {token}"} if token else {})
        return self._asked(lambda: bytes(get_session().get(url, headers=asked, follow_redirects=True).content[:8]))

    def fetch(self, names: Collection[str], folder: Path) -> Mapping[str, FileDigest]:
        """Fetch files into a folder and return their digests; a partial download that is already there continues."""
        return {name: self._fetch(name, folder) for name in names}

    def _fetch(self, name: str, folder: Path) -> FileDigest:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - half a second, only for such models

        for last in (False, True):
            path = self._asked(
                lambda: hf_hub_download(
                    self._repo,
                    name,
                    revision=self.commit,
                    local_dir=folder,
                    endpoint=self._endpoint,
                    token=_token(),
                )
            )
            digest = hashed(Path(path))
            if self._is_right(name, Path(path), digest):
                return digest
            Path(path).unlink()
            shutil.rmtree(folder / ".cache", ignore_errors=True)
            if last:
                break
        raise ModelUnreachable(f"{self._field}: {name} of {self.uri} arrived damaged, twice; try again")

    def _is_right(self, name: str, path: Path, digest: FileDigest) -> bool:
        (file,) = (each for each in self._info.siblings or [] if each.rfilename == name)
        if file.lfs:
            return digest == (file.lfs.size, file.lfs.sha256)
        blob = b"blob %d\0" % digest.size + path.read_bytes()  # git's hash of a file covers this header and its content
        return file.blob_id in {None, hashlib.sha1(blob, usedforsecurity=False).hexdigest()}

    @cached_property
    def _info(self) -> ModelInfo:
        from huggingface_hub import HfApi  # noqa: PLC0415 - half a second, only for such models

        api = HfApi(endpoint=self._endpoint, token=_token())
        return self._asked(lambda: api.model_info(self._repo, revision=self._revision, files_metadata=True, timeout=15))

    def _asked(self, ask: Callable[[], T]) -> T:
        """Return the hub's answer; if the hub refuses, raise the matching error."""
        from huggingface_hub import errors  # noqa: PLC0415

        where = f"{self._endpoint}/{self._repo}"
        try:
            return ask()
        except errors.GatedRepoError as error:
            raise ModelRefused(
                f"{self._field}: {where} is gated; accept its terms there and give the pods your token as HF_TOKEN"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise SpecError(
                "UnknownModel", f"{self._field}: {where} has no revision {self._revision!r}; name one that it has."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise SpecError(
                "UnknownModel",
                f"{self._field}: there is no repository {where}, or it is private; check its name, or give the pods a "
                "token that may read it as HF_TOKEN.",
            ) from error
        except errors.LocalEntryNotFoundError as error:  # the client raises it if the hub does not answer
            raise self._unreachable(error) from error
        except errors.EntryNotFoundError as error:
            raise SpecError(
                "UnknownModel", f"{self._field}: {where} has no such file at {self._revision!r}; check its name."
            ) from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in {401, 403}:
                raise ModelRefused(
                    f"{self._field}: {where} refuses access (HTTP {status}); give the pods a token that may read it "
                    "as HF_TOKEN"
                ) from error
            raise ModelUnreachable(f"{self._field}: {where} answers HTTP {status}; try again later") from error
        except errors.HFValidationError as error:
            raise SpecError("UnknownModel", f"{self._field}: {self._repo!r} is no repository's name: {error}") from None
        except Exception as error:
            family, *_ = type(error).__module__.split(".")
            if family not in _TRANSPORTS and not isinstance(error, ConnectionError | TimeoutError):
                raise
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ModelUnreachable:
        return ModelUnreachable(
            f"{self._field}: {self._endpoint} does not answer ({type(error).__name__}); where it cannot be reached "
            "set HF_ENDPOINT to a mirror, or name a folder or s3:// instead"
        )


def _token() -> str | bool:
    return os.environ.get("HF_TOKEN") or False
