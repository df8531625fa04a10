"""The package's version, stated here only: reading the metadata at run time would take 5 ms."""

__version__ = "0.1.0"
