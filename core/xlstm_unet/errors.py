"""Errors that a user can act on.

Every message names the thing, the value and what was expected; ``hint`` says what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class XLSTMUNetError(Exception):
    """Base of every error raised on purpose.

    Parameters
    ----------
    message
        What is wrong, with the name of the thing and the value found.
    hint
        What the user can do about it.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return message and hint as one text."""
        return f"{self.message} {self.hint}".strip()


class ImageError(XLSTMUNetError):
    """An image that cannot be read or that a model cannot take."""

    code = "image"


class ModelError(XLSTMUNetError):
    """A model specification or network that does not fit."""

    code = "model"


class ModelNotFoundError(ModelError):
    """No model of that name."""

    code = "model-not-found"


class BundleError(ModelError):
    """A model bundle or checkpoint that is damaged, hostile or of another version."""

    code = "bundle"


class DatasetError(XLSTMUNetError):
    """A training or evaluation folder that does not hold what it should."""

    code = "dataset"


class ConfigError(XLSTMUNetError):
    """A training configuration with an unknown, missing or impossible field."""

    code = "config"


class TrainingError(XLSTMUNetError):
    """Training that cannot go on: the loss is not finite, or a checkpoint does not fit."""

    code = "training"


class DeviceError(XLSTMUNetError):
    """A device that does not exist or ran out of memory at the smallest setting."""

    code = "device"


class CorrectionsError(XLSTMUNetError):
    """Corrections that do not fit their image or model, or that hold nothing to learn."""

    code = "corrections"


class ImageChangedError(CorrectionsError):
    """Corrections of an image whose pixels are others now."""

    code = "image-changed"


class VersionNotFoundError(XLSTMUNetError):
    """No such version of a fine-tuned model."""

    code = "version-not-found"


class GuardError(XLSTMUNetError):
    """A fine-tuned version that forgot too much to be kept without force."""

    code = "guard"


class OutputError(XLSTMUNetError):
    """A result that could not be written."""

    code = "output"


class CancelledError(XLSTMUNetError):
    """The user cancelled; nothing was written."""

    code = "cancelled"

    def __init__(self, message: str = "Cancelled.", hint: str = "") -> None:
        super().__init__(message, hint)


class HubError(XLSTMUNetError):
    """The Hub, or what came from it, cannot be used."""

    code = "hub"


class HubOfflineError(HubError):
    """There is no way to the Hub, and the model is not on this machine."""

    code = "hub-offline"


class HubMissingError(HubError):
    """No such repository or revision, or none that this user may see."""

    code = "hub-missing"


class HubGatedError(HubError):
    """A repository whose terms have to be accepted first."""

    code = "hub-gated"


class HubDamagedError(HubError):
    """What came is not what the Hub announced; it was thrown away."""

    code = "hub-damaged"


class TooLargeError(HubError):
    """More than may be fetched without asking."""

    code = "too-large"


class ConfirmationError(XLSTMUNetError):
    """Something that needs the user's agreement, and nobody to ask."""

    code = "confirmation"
