"""`diffugen import`: a configuration file of DiffuGen in, a manifest with comments out."""

from __future__ import annotations

from pathlib import Path

from diffugen_api.faults import Fault
from diffugen_generator.commands.manifests import InvalidManifest, check
from diffugen_generator.importers.checkout import Checkout
from diffugen_generator.importers.config import read_config
from diffugen_generator.importers.conversion import Conversion, convert
from diffugen_generator.importers.json_fields import InvalidConfigError
from diffugen_generator.importers.manifest_draft import Options


def import_config(file: Path, options: Options, root: Path | None = None) -> str:
    """Return the manifest of a configuration file as YAML.

    `root` is the folder that the file's relative paths start from. Raises `InvalidManifest` with every fault of the
    file, each named by its key.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidManifest(file, [Fault("", f"it cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise InvalidManifest(file, [Fault("", "it is not text in UTF-8")]) from error
    try:
        conversion = convert(read_config(text), options, Checkout.of(file, root))
    except InvalidConfigError as error:
        raise InvalidManifest(file, [Fault(each.key, each.message) for each in error.problems]) from None
    return _checked(conversion, file)


def _checked(conversion: Conversion, file: Path) -> str:
    dataset, faults = check(conversion.document)
    if dataset is None:
        raise InvalidManifest(file, [Fault(conversion.draft.key_of(each.path), each.message) for each in faults])
    return conversion.text(dataset.spec, file.name)
