"""The LabeledDataset API, as its two programs share it.

The pydantic models in `v1alpha1` are the only source: the CRD and the API reference are rendered from them. `plan`
expands a spec into its samples and their content addresses. `layout` has the keys of all objects in the store.
`contract` has the interface between operator and generator.

This package imports pydantic and the standard library, nothing else.
"""
