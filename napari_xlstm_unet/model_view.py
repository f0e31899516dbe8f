"""What the dock shows of the part "Model"."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QPushButton

from napari_xlstm_unet.hub_part import HubPart
from napari_xlstm_unet.hub_view import ModelsDialog
from napari_xlstm_unet.model_part import ModelPart
from napari_xlstm_unet.qt_tools import Section, choose, combo, fill, remark
from napari_xlstm_unet.state import ModelInfo
from xlstm_unet.spec import ModelSpec


class ModelView(Section):
    """Lists of models and devices, and a line about the chosen model."""

    def __init__(self, part: ModelPart, hub: HubPart) -> None:
        super().__init__("Model")
        self._part = part
        self.models = combo()
        self.about = remark()
        self.devices = combo()
        self.models.setToolTip("Models that come with the package, those from the Hub, and your own.")
        self.more = QPushButton("Models…")
        self.more.setToolTip("Look at the models on this computer, search the Hub, download, remove.")
        line = QHBoxLayout()
        line.addWidget(self.models, 1)
        line.addWidget(self.more)
        self.form.addRow(line)
        self.form.addRow(self.about)
        self.row("Runs on", self.devices, "Automatic takes the fastest device that the worker found.")
        self.more.clicked.connect(lambda: ModelsDialog(hub, self).open())
        self.models.activated.connect(lambda place: part.choose(self.models.itemData(place)))
        self.devices.activated.connect(lambda place: part.choose_device(self.devices.itemData(place)))
        events = part.state.events
        events.models.connect(self._show_models)
        events.name.connect(self._show_name)
        events.spec.connect(self._show_spec)
        events.devices.connect(self._show_devices)
        events.device.connect(self._show_device)
        self._show_models()
        self._show_devices()
        self._show_spec()

    def _show_models(self) -> None:
        state = self._part.state
        fill(self.models, [(_title(info), info.name) for info in state.models], state.name)
        self.models.setEnabled(bool(state.models))
        for place, info in enumerate(state.models):
            self.models.model().item(place).setEnabled(not info.problem)
            self.models.setItemData(place, info.problem, 3)  # Qt.ToolTipRole

    def _show_name(self) -> None:
        choose(self.models, self._part.state.name)

    def _show_devices(self) -> None:
        state = self._part.state
        fill(self.devices, [(device.description, device.name) for device in state.devices], state.device)

    def _show_device(self) -> None:
        choose(self.devices, self._part.state.device)

    def _show_spec(self) -> None:
        spec = self._part.state.spec
        self.about.setText(_about(spec) if spec is not None else "")
        self.show_row(self.about, spec is not None)


_ORIGINS = {"own": " (yours)", "downloaded": " (Hub)"}


def _title(info: ModelInfo) -> str:
    return info.name + _ORIGINS.get(info.origin, "") + (" (damaged)" if info.problem else "")


def _about(spec: ModelSpec) -> str:
    text = spec.description.rstrip(".") or ", ".join(label.name for label in spec.labels)
    kind = f"{spec.dimension}D"
    if spec.object_diameter:
        kind += f", objects about {spec.object_diameter:g} px wide"
    return f"{text} ({kind})."
