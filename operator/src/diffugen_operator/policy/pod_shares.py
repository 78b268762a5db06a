"""How stages that run side by side share `run.parallelism`.

Together they run at most that many pods. A stage begins once a pod is free for it, in the spec's order, and keeps at
least one pod until it is done. So more pods run only if `run.parallelism` is lowered below the number of active
stages. The remaining pods are divided evenly; no stage gets more pods than it has shards left. When one stage runs out
of shards, the others get its pods. A Job in a Kueue queue keeps the parallelism with which it was created until it has
fewer shards left, because only Kueue may resize it; stages that begin later share the rest.
"""

from __future__ import annotations

from collections.abc import Sequence


def shares(whole: int, needs: Sequence[int]) -> list[int]:
    """Return each share of the total: at least 1, at most the number needed; the first ones get the remainder."""
    parts = [0] * len(needs)
    left, waiting = whole, len(needs)
    # The stages that need the least come first: the others get the rest.
    for index in sorted(range(len(needs)), key=lambda index: (needs[index], -index)):
        parts[index] = max(1, min(needs[index], left // waiting))
        left, waiting = left - parts[index], waiting - 1
    return parts
