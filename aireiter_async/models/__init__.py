"""One class for each documented model, which validates its parameters.

The classes are imported on first access; importing this package alone is cheap.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aireiter_async.models._base import Model as Model
from aireiter_async.models._catalogue import build as build
from aireiter_async.models._catalogue import describe as describe
from aireiter_async.models._catalogue import example as example
from aireiter_async.models._catalogue import load as load
from aireiter_async.models._catalogue import loaded as loaded
from aireiter_async.models._catalogue import with_channel as with_channel
from aireiter_async.models._errors import InvalidParamsError as InvalidParamsError
from aireiter_async.models._errors import Problem as Problem
from aireiter_async.models._errors import UnknownModelError as UnknownModelError

if TYPE_CHECKING:
    from aireiter_async.models._declare import Parameter as Parameter

    # the star imports export every declared class
    from aireiter_async.models.audio import *  # noqa: F403
    from aireiter_async.models.gpt import *  # noqa: F403
    from aireiter_async.models.happyhorse import *  # noqa: F403
    from aireiter_async.models.images import *  # noqa: F403
    from aireiter_async.models.kling import *  # noqa: F403
    from aireiter_async.models.midjourney import *  # noqa: F403
    from aireiter_async.models.seedance import *  # noqa: F403
    from aireiter_async.models.seedream import *  # noqa: F403
    from aireiter_async.models.videos import *  # noqa: F403

    MODELS: Mapping[str, type[Model]]

else:  # hidden from type checkers, which would accept any name

    def __getattr__(name: str) -> Any:
        """Import the classes on first access (PEP 562)."""
        if not name.startswith("_") or name == "__all__":
            _open()
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_PUBLIC = (
    "InvalidParamsError",
    "MODELS",
    "Model",
    "Parameter",
    "Problem",
    "UnknownModelError",
    "build",
    "describe",
    "example",
    "load",
    "loaded",
    "with_channel",
)


def __dir__() -> list[str]:
    """List the public names, including the classes."""
    _open()
    return sorted(globals())


def _open() -> None:
    models = load()
    classes = {cls.__name__: cls for cls in models.values()}
    here = globals()
    here.update(classes, MODELS=models, __all__=sorted((*_PUBLIC, *classes)))
    here["Parameter"] = import_module("aireiter_async.models._declare").Parameter
