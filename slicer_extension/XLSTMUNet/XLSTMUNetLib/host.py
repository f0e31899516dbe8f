"""What needs the desktop application: settings, interpreters, packages, slice views."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from xlstm_unet.errors import XLSTMUNetError
from xlstm_unet.worker.client import WorkerClient
from XLSTMUNetLib.installation import Plan, carry_out, held_versions, make_plan, recorded, undo
from XLSTMUNetLib.mrml import ijk_to_ras, place_roi, read_volume, transform_between
from XLSTMUNetLib.state import ModelInfo
from XLSTMUNetLib.workplace import Kind, Workplace


class Host:
    """The application that the module lives in."""

    def new_client(self, tell: Callable[[XLSTMUNetError], None]) -> WorkerClient:
        """Return a client of a worker as the settings say; Slicer's Python where they are wrong."""
        workplace = self.workplace()
        try:
            command = workplace.command(self.slicer_python())
        except XLSTMUNetError as error:
            tell(error)
            workplace = Workplace()
            command = workplace.command(self.slicer_python())
        environment = workplace.environment(os.environ, slicer.util.startupEnvironment())
        return WorkerClient(command, environment)

    def slicer_python(self) -> str:
        """Return Slicer's own interpreter."""
        return shutil.which("PythonSlicer") or os.path.join(slicer.app.slicerHome, "bin", "PythonSlicer")

    def workplace(self) -> Workplace:
        """Return where the worker runs, as the user's settings say."""
        settings = slicer.app.userSettings()
        kind = settings.value("XLSTMUNet/Worker") or Kind.SLICER.value
        return Workplace(
            Kind(kind) if kind in list(Kind) else Kind.SLICER,
            settings.value("XLSTMUNet/Python") or "",
            settings.value("XLSTMUNet/Remote") or "",
        )

    def store_workplace(self, workplace: Workplace) -> None:
        """Store where the worker runs in the user's settings."""
        settings = slicer.app.userSettings()
        settings.setValue("XLSTMUNet/Worker", workplace.kind.value)
        settings.setValue("XLSTMUNet/Python", workplace.python)
        settings.setValue("XLSTMUNet/Remote", workplace.remote)

    def plan_text(self, workplace: Workplace) -> str:
        """Return in words what a workplace means, and what installing would do."""
        if workplace.kind is not Kind.SLICER:
            return workplace.describe()
        return f"{workplace.describe()}\n{self.plan().describe()}"

    def plan(self) -> Plan:
        """Return what is missing in Slicer's own Python."""
        held = held_versions({"vtk": vtk.vtkVersion.GetVTKVersion()})
        return make_plan(SlicerPip(), _torch_utils(), held)

    def install(self) -> bool:
        """Say what is missing and install it if the user agrees; whether anything was installed."""
        plan = self.plan()
        if plan.empty:
            slicer.util.infoDisplay(plan.describe())
            return False
        if not slicer.util.confirmOkCancelDisplay(plan.describe(), windowTitle=_("xLSTM-UNet: install")):
            return False
        carry_out(plan, SlicerPip(), _torch_utils(), self._record())
        return True

    def remove_installed(self) -> None:
        """Remove what was installed here, after asking."""
        names = ", ".join(self.installed_here())
        if names and slicer.util.confirmOkCancelDisplay(_("Remove {names}?").format(names=names)):
            undo(SlicerPip(), self._record())

    def installed_here(self) -> list[str]:
        """Return the names of the packages that this module has installed."""
        return sorted(recorded(self._record()))

    def new_region(self, volume: Any, model: ModelInfo | None) -> Any:
        """Return a new ROI of the size that a model expects, where the slice views cross."""
        image = read_volume(volume, copy=False)
        view = model.field_of_view if model is not None else None
        size = view["extent_mm"] if view is not None else [length / 2 for length in image.extent_mm]
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", _("Region"))
        roi.CreateDefaultDisplayNodes()
        local = transform_between(None, volume.GetParentTransformNode()).TransformPoint(_crossing())
        center = np.linalg.inv(ijk_to_ras(volume)) @ [*local, 1.0]
        place_roi(roi, volume, center[:3], list(reversed(size)))
        return roi

    def _record(self) -> Path:
        return Path(slicer.app.slicerUserSettingsFilePath).with_name("XLSTMUNet-installed.json")


class SlicerPip:
    """``slicer.packaging``, as the installation wants it."""

    def check(self, requirement: str) -> bool:
        """Whether a requirement is met."""
        from slicer.packaging import pip_check

        return bool(pip_check(requirement))

    def install(self, requirements: list[str], constraints: str) -> None:
        """Install with pip, showing progress; the user has agreed already."""
        from slicer.packaging import pip_ensure

        pip_ensure(requirements, constraints=constraints, prompt_install=False, requester="xLSTM-UNet")

    def uninstall(self, packages: list[str]) -> None:
        """Remove with pip."""
        from slicer.packaging import pip_uninstall

        pip_uninstall(packages)


def _torch_utils() -> Any:
    try:
        import PyTorchUtils
    except ImportError:
        return None
    return PyTorchUtils.PyTorchUtilsLogic()


def _crossing() -> list[float]:
    """Return the point where the three slice views cross, in the world."""
    nodes = [slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}") for name in ("Yellow", "Green", "Red")]
    if any(node is None for node in nodes):
        return [0.0, 0.0, 0.0]
    return [float(node.GetSliceToRAS().GetElement(axis, 3)) for axis, node in enumerate(nodes)]
