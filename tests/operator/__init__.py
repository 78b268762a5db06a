# ruff: noqa: A005 - this folder is named after the program that it tests
