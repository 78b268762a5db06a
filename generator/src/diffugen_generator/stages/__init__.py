"""The work of one shard: draw what is missing, label it, store everything; `run_shard` is the entry."""
