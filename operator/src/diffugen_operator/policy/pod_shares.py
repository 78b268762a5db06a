"""How stages that run side by side share `run.parallelism`.

Together they run that many pods and no more. A stage begins once there is a pod for it, in the spec's order, and
keeps one until it is done: only where `run.parallelism` is edited to less than the stages under way are there more.
What is left goes round evenly, to none more than it has shards to do; so as the one runs out of shards, the
others get its pods. A Job in a queue keeps what it was created with until it has fewer shards left, as only Kueue may
resize it: there, what begins later shares what is left.
"""

from __future__ import annotations

from collections.abc import Sequence


def shares(whole: int, needs: Sequence[int]) -> list[int]:
    """Return each one's part of the whole: at least 1, at most what it needs; a remainder goes to the first."""
    parts = [0] * len(needs)
    left, waiting = whole, len(needs)
    # Those that need least come first: what they leave is the others'.
    for place in sorted(range(len(needs)), key=lambda place: (needs[place], -place)):
        parts[place] = max(1, min(needs[place], left // waiting))
        left, waiting = left - parts[place], waiting - 1
    return parts
