"""The LabeledDataset API, as its two programs share it.

The pydantic models in `v1alpha1` are the only source: the CRD and the API reference are rendered from
them. `plan` expands a spec (its samples and their content addresses), `layout` where each
thing lies in the object store, `contract` what operator and generator promise each other.

This package imports pydantic and the standard library, nothing else.
"""
