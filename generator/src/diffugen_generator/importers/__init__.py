"""Configuration files of other programs, converted to manifests: pure, without torch. Today: DiffuGen's."""
