"""The doctor command: say why something does not work, in a form that can be published."""

from aireiter_async.cli._doctor._command import Surroundings, doctor

__all__ = ["Surroundings", "doctor"]
