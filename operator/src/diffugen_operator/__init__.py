"""The controller that turns LabeledDatasets into Jobs and published datasets.

Level-triggered: whatever changes puts a dataset's name on a queue; a reconcile observes, decides (purely),
acts, and writes the status once. kopf carries the watch events and nothing else.
"""

from __future__ import annotations

__version__ = "0.1.0"
