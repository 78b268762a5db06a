"""The registry of dataset formats: the format `NAME` of the spec is the file `publishing/formats/NAME.py`.

To add a format, add that file, with `FORMAT` set to its `DatasetFormat`, and add its name to `Format` in the API
(`diffugen_api.v1alpha1.output`). A file is imported only when a dataset asks for its format, so a format may import a
library that not every installation has; such a library stands in `_LIBRARIES`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

from diffugen_api.plan import SpecError
from diffugen_generator.publishing import formats
from diffugen_generator.publishing.dataset_format import DatasetFormat

_LIBRARIES = {"huggingface": ("pyarrow",)}
"""The libraries of the extra `formats` that a format needs."""


def format_named(name: str) -> type[DatasetFormat]:
    """Return the format that the spec calls `name`."""
    module = import_module(f"{formats.__name__}.{name}")
    found: type[DatasetFormat] = module.FORMAT
    return found


def check_formats(names: Iterable[str]) -> None:
    """Raise `SpecError` where a format needs a library that is not installed; to be called before anything is drawn.

    It imports no format: the plan is quick, and most libraries of formats are not.
    """
    for name in names:
        for library in _LIBRARIES.get(name, ()):
            if find_spec(library) is None:
                raise SpecError(
                    "ExtraNotInstalled",
                    f"spec.output.formats: {name} needs {library}, which is not installed here: "
                    f"pip install 'diffugen[formats]', or remove {name} from formats.",
                )
