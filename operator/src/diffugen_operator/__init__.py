"""The controller that turns LabeledDatasets into Jobs and published datasets.

Level-triggered: every change adds a dataset's name to a queue; a reconcile observes, decides (without I/O), acts, and
writes the status once. kopf only transports the watch events of datasets.
"""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("diffugen-operator")
