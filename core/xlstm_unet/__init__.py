"""xLSTM-UNet: interactive biomedical image segmentation.

>>> import xlstm_unet as xu
>>> segment = xu.load("nuclei")  # doctest: +SKIP
>>> labels = segment(image).labels  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlstm_unet.images import Image, read_image
    from xlstm_unet.spec import ModelSpec
    from xlstm_unet.zoo import import_nnunet, load

__version__ = "0.1.0"

__all__ = ["Image", "ModelSpec", "__version__", "import_nnunet", "load", "read_image"]

_HOME = {
    "Image": "xlstm_unet.images",
    "ModelSpec": "xlstm_unet.spec",
    "import_nnunet": "xlstm_unet.zoo",
    "load": "xlstm_unet.zoo",
    "read_image": "xlstm_unet.images",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package stays instant."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
