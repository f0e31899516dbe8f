"""Third-party packages for the worker: what is missing, what installing would do, and how it is undone.

Nothing is installed without being asked. numpy, SimpleITK and vtk stay at Slicer's versions: pip is given
them as constraints. PyTorch comes through the PyTorch extension, which chooses the build for the graphics
card.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xlstm_unet.errors import ConfigError, OutputError
from xlstm_unet.files import atomic_path
from XLSTMUNetLib.core import PACKAGED, core_folders

HELD = ("numpy", "SimpleITK", "vtk")
"""Packages of Slicer's that pip must not touch."""

_OWN = ("numpy", "torch")
"""Requirements that Slicer has, and that the PyTorch extension brings."""


class Pip(Protocol):
    """What is needed of ``slicer.packaging``."""

    def check(self, requirement: str) -> bool:
        """Whether a requirement is met."""

    def install(self, requirements: list[str], constraints: str) -> None:
        """Install with pip; ``constraints`` is a file."""

    def uninstall(self, packages: list[str]) -> None:
        """Remove with pip."""


class Torch(Protocol):
    """What is needed of the PyTorch extension's ``PyTorchUtilsLogic``."""

    def torchInstalled(self) -> bool:
        """Whether there is a PyTorch."""

    def installTorch(self, askConfirmation: bool, torchVersionRequirement: str) -> object:
        """Install the build that fits the graphics card; None if the user declined."""


def requirements() -> dict[str, str]:
    """Return what the core depends on, by name: the whole line of each requirement."""
    folder = core_folders()[0]
    file = folder / "pyproject.toml" if folder.name == PACKAGED else folder.parent / "pyproject.toml"
    lines = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0]: line for line in lines}


def held_versions(other: Mapping[str, str]) -> dict[str, str]:
    """Return the versions that must stay.

    Parameters
    ----------
    other
        Versions of packages that have no metadata of their own, such as Slicer's vtk.
    """
    found = dict(other)
    for name in HELD:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Plan:
    """What installing would do.

    Parameters
    ----------
    torch
        Requirement of PyTorch, or empty if it is there.
    packages
        Requirements that are missing.
    held
        Versions that stay.
    """

    torch: str
    packages: tuple[str, ...]
    held: Mapping[str, str]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to install."""
        return not self.torch and not self.packages

    def describe(self) -> str:
        """Return the steps in words."""
        if self.empty:
            return "Everything that the worker needs is installed; nothing is downloaded any more."
        steps = []
        if self.torch:
            steps.append(
                f"Install {self.torch} with the PyTorch extension, in the build for this computer "
                "(0.2 to 3 GB to download)."
            )
        if self.packages:
            steps.append(f"Install with pip into Slicer's Python: {', '.join(self.packages)}.")
        held = ", ".join(f"{name} {version}" for name, version in self.held.items())
        steps.append(f"These stay as they are: {held}. 'Undo...' removes what was installed.")
        return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def make_plan(pip: Pip, torch: Torch | None, held: Mapping[str, str]) -> Plan:
    """Return what is missing."""
    needed = requirements()
    wanted = "" if torch is not None and torch.torchInstalled() else needed["torch"]
    missing = [line for name, line in needed.items() if name not in _OWN and not pip.check(line)]
    return Plan(wanted, tuple(missing), held)


def carry_out(plan: Plan, pip: Pip, torch: Torch | None, record: Path) -> None:
    """Install what a plan says, and write down what came new.

    Parameters
    ----------
    plan
        What to do.
    pip, torch
        Slicer's means.
    record
        File that remembers what was installed, for `undo`.

    Raises
    ------
    ConfigError
        If PyTorch is missing and the PyTorch extension too, or the user declined; nothing more is installed.
    """
    before = installed()
    try:
        if plan.torch:
            _install_torch(plan.torch, torch)
        if plan.packages:
            with tempfile.TemporaryDirectory() as folder:
                constraints = Path(folder) / "constraints.txt"
                constraints.write_text(constraint_lines(plan.held), encoding="utf-8")
                pip.install(list(plan.packages), str(constraints))
    finally:
        _remember(record, installed() - before)


def undo(pip: Pip, record: Path) -> list[str]:
    """Remove what was installed, and return the packages' names."""
    names = sorted(recorded(record) & installed())
    if names:
        pip.uninstall(names)
    record.unlink(missing_ok=True)
    return names


def recorded(record: Path) -> set[str]:
    """Return the names of the packages that were installed here."""
    try:
        return set(json.loads(record.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{record} cannot be read ({error}).", "Remove it; packages then stay.") from error


def constraint_lines(held: Mapping[str, str]) -> str:
    """Return the text of a constraints file."""
    return "".join(f"{name}=={version}\n" for name, version in held.items())


def installed(
    distributions: Callable[[], Iterable[importlib.metadata.Distribution]] | None = None,
) -> set[str]:
    """Return the names of the packages that there are."""
    return {
        str(each.metadata["Name"])
        for each in (distributions or importlib.metadata.distributions)()
        if each.metadata
    }


def _install_torch(requirement: str, torch: Torch | None) -> None:
    if torch is None:
        raise ConfigError(
            "PyTorch is missing, and so is the extension that installs it.",
            "Install the extension 'PyTorch' with the Extensions Manager, restart Slicer, and try again.",
        )
    version = requirement.removeprefix("torch")
    if torch.installTorch(askConfirmation=True, torchVersionRequirement=version) is None:
        raise ConfigError(
            "PyTorch was not installed.", "Try again, or choose another Python or a remote machine."
        )


def _remember(record: Path, names: set[str]) -> None:
    names = names | recorded(record)
    if names:
        record.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(sorted(names)), encoding="utf-8")
