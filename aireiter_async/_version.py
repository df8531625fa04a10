"""The package's version, as pyproject.toml states it: reading the metadata would take 5 ms."""

__version__ = "0.1.0"
