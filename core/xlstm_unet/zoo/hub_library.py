"""The Hub's own library, imported when it is first needed, and its errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from xlstm_unet.errors import (
    HubError,
    HubGatedError,
    HubMissingError,
    HubOfflineError,
    OutputError,
    XLSTMUNetError,
)

_CHUNK_BYTES = 2**18
_TRANSPORTS = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
"""Packages whose errors mean that there is no way to the Hub."""


def hub_library() -> ModuleType:
    """Import huggingface_hub; nothing else in this package does.

    Raises
    ------
    HubError
        If it is not installed.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise HubError(f"The Hub needs huggingface_hub: {error}.", "pip install huggingface_hub") from error
    # Its chunks of 10 MiB would leave a slow line without progress or a way to stop for half a minute.
    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, _CHUNK_BYTES)
    return huggingface_hub


def endpoint() -> str:
    """Return the address of the Hub in use."""
    return str(hub_library().constants.ENDPOINT)


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turn what the library raises into errors of this package.

    Parameters
    ----------
    subject
        What it was about: ``owner/name``, or words.
    """
    hub_library()
    from huggingface_hub import errors

    try:
        yield
    except XLSTMUNetError:
        raise
    except errors.GatedRepoError as error:  # a kind of RepositoryNotFoundError
        raise HubGatedError(
            f"{subject} is given only to those who accept its terms.",
            f"Open {endpoint()}/{subject}, accept them, then log in here with: hf auth login",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubMissingError(
            f"There is no {subject} on {endpoint()}, or it is private.",
            "Check the name (owner/name); for a private one log in with: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubMissingError(
            f"{subject} has no such revision.",
            "Leave out what follows the @, or give a branch, tag or commit.",
        ) from error
    except errors.HFValidationError as error:
        raise HubMissingError(
            f"{subject!r} cannot be the name of a repository.", "Give owner/name."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise offline(subject) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        hint = "Log in with: hf auth login" if status in (401, 403) else "Try again later."
        raise HubError(f"The Hub answered {status} for {subject}: {_first_line(error)}", hint) from error
    except errors.EntryNotFoundError as error:
        raise HubMissingError(
            f"{subject} lacks a file: {_first_line(error)}", "Tell its owner, or choose another revision."
        ) from error
    except Exception as error:
        if _is_transport(error):
            raise offline(subject) from error
        if isinstance(error, OSError):
            raise OutputError(
                f"Could not store {subject}: {error.strerror or error}.",
                "Check that the Hub's cache (HF_HOME) may be written to and has room.",
            ) from error
        raise HubError(
            f"{subject}: {type(error).__name__}: {_first_line(error)}", "Please report it."
        ) from error


def offline(subject: str) -> HubOfflineError:
    """Return the error for what is neither reachable nor on this machine."""
    return HubOfflineError(
        f"The Hub at {endpoint()} cannot be reached for {subject}.",
        "Check the network, the proxy (HTTPS_PROXY) and that HF_HUB_OFFLINE is not set.",
    )


def _is_transport(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or any(
        kind.__module__.split(".")[0] in _TRANSPORTS for kind in type(error).__mro__
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
