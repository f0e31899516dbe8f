"""The panel: its ``.ui`` file in real Qt, and a smoke test of the widget with small stand-ins.

The stand-ins (folder ``stand_ins``) are what slicer-core lacks: PythonQt's manner of Qt, the base classes of
scripted modules, the parameter node wrapper, and the widgets of ctk and MRML. Everything else is real: Qt,
the scene, the Segment Editor's logic, the worker.
"""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import slicer
import slicer.util
from conftest import HERE, MODULE, WORKER_PYTHON, worker_environment

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
UI = MODULE / "Resources" / "UI" / "XLSTMUNet.ui"


class Settings(dict):
    """Slicer's settings."""

    def value(self, name):
        return self.get(name)

    def setValue(self, name, value):
        self[name] = value


@pytest.fixture(scope="module")
def application(wired):
    """A Qt application, with the stand-ins in place."""
    sys.path.insert(0, str(HERE / "stand_ins"))
    slicer.__path__.append(str(HERE / "stand_ins" / "slicer"))
    from PyQt6 import QtWidgets

    app = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    import mrml_widgets

    slicer.qMRMLSegmentEditorWidget = lambda: sys.modules["qt"].Like(mrml_widgets.qMRMLSegmentEditorWidget())
    return app


@pytest.fixture
def slicer_app(application, tmp_path, home):
    """What ``slicer.app`` answers; the settings name another Python, as a user may."""
    started = worker_environment(XLSTM_UNET_HOME=str(home))
    settings = Settings({"XLSTMUNet/Worker": "python", "XLSTMUNet/Python": WORKER_PYTHON})
    slicer.app = SimpleNamespace(
        connections={},
        connect=lambda signal, slot: slicer.app.connections.update({signal: slot}),
        testingEnabled=lambda: False,
        userSettings=lambda: settings,
        slicerUserSettingsFilePath=str(tmp_path / "Slicer ü.ini"),
        slicerHome=str(tmp_path),
        startupEnvironment=lambda: SimpleNamespace(keys=lambda: list(started), value=started.get),
    )
    return slicer.app


def process_events(application, condition, timeout=400.0):
    """Run Qt's event loop until a condition holds; return the longest time that it was blocked."""
    longest, until = 0.0, time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        before = time.perf_counter()
        application.processEvents()
        longest = max(longest, time.perf_counter() - before)
        time.sleep(0.002)
    return longest


@pytest.fixture
def told(monkeypatch):
    """What is shown to the user; questions are answered with yes."""
    shown = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: shown.append(text))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: shown.append(text) or True)
    return shown


class Lent:
    """A client that other tests use too: closing it does nothing."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        return getattr(self._client, name)

    def close(self):
        """Leave it open."""


@pytest.fixture
def widget(scene, slicer_app, told, application, shared_client, monkeypatch):
    """The module's widget, set up, with the worker that all tests share."""
    from XLSTMUNetLib.host import Host

    monkeypatch.setattr(Host, "new_client", lambda self, tell: Lent(shared_client))
    yield from set_up(application)


@pytest.fixture
def own_widget(scene, slicer_app, told, application):
    """The same with a worker of its own, started as the settings say."""
    yield from set_up(application)


def set_up(application):
    import XLSTMUNet

    widget = XLSTMUNet.XLSTMUNetWidget(SimpleNamespace(isEntered=True))
    widget.folder = str(MODULE)
    widget.setup()
    process_events(application, lambda: widget.logic.controller.state.phase != "starting")
    yield widget
    widget.cleanup()


def test_the_file_is_loaded_by_qt_and_names_only_properties_that_there_are(application):
    import qt

    panel = slicer.util.loadUI(str(UI))
    ui = slicer.util.childWidgetVariables(panel)
    named = {node.get("name") for node in ElementTree.parse(UI).iter("widget")}
    assert named - {"XLSTMUNet"} <= set(vars(ui))
    assert isinstance(panel, qt.Like)
    assert list(ui.inputVolumeSelector.nodeTypes) == ["vtkMRMLScalarVolumeNode"]
    for node in ElementTree.parse(UI).iter("widget"):
        meta = getattr(ui, node.get("name"), panel).real.metaObject()
        for prop in node.findall("property"):
            if prop.get("stdset") != "0":
                assert meta.indexOfProperty(prop.get("name")) >= 0, (node.get("name"), prop.get("name"))


def test_parameters_of_the_file_are_those_of_the_parameter_node(slicer_app):
    import XLSTMUNet

    named = {
        prop.findtext("string")
        for prop in ElementTree.parse(UI).iter("property")
        if prop.get("name") == "SlicerParameterName"
    }
    assert named <= set(XLSTMUNet.XLSTMUNetParameterNode.__annotations__)
    assert named == {"inputVolume", "segmentation", "region", "allFrames", "budget"}


def test_every_button_has_a_tip_and_every_text_is_translatable(application):
    panel = slicer.util.childWidgetVariables(slicer.util.loadUI(str(UI)))
    buttons = [
        node.get("name")
        for node in ElementTree.parse(UI).iter("widget")
        if node.get("class") == "QPushButton"
    ]
    assert len(buttons) >= 16
    for name in buttons:
        assert getattr(panel, name).toolTip, name


def test_the_module_says_what_it_is(slicer_app):
    import XLSTMUNet

    parent = SimpleNamespace()
    XLSTMUNet.XLSTMUNet(parent)
    assert parent.title == "xLSTM-UNet"
    assert parent.categories == ["Segmentation"]
    assert "Not for clinical use" in parent.helpText
    assert "CC BY-SA" in parent.acknowledgementText
    assert slicer_app.connections["startupCompleted()"] is XLSTMUNet.registerSampleData
    assert os.path.isfile(XLSTMUNet.samplePath())


def test_the_sample_is_registered(slicer_app, monkeypatch):
    import XLSTMUNet

    calls = []
    logic = SimpleNamespace(registerCustomSampleDataSource=lambda **arguments: calls.append(arguments))
    monkeypatch.setitem(sys.modules, "SampleData", SimpleNamespace(SampleDataLogic=logic))
    XLSTMUNet.registerSampleData()
    assert calls[0]["sampleName"] == "MRHippocampus"
    assert os.path.isfile(calls[0]["thumbnailFileName"])


def test_from_click_to_segmentation(own_widget, told, application, load_volume):
    import XLSTMUNet

    widget = own_widget
    volume = load_volume(XLSTMUNet.samplePath(), "MRHippocampus")
    widget.ui.inputVolumeSelector.setCurrentNode(volume)
    widget._parameterNode.model = "untrained"
    assert widget.ui.segmentButton.enabled
    widget.ui.segmentButton.click()
    assert widget.ui.segmentButton.text == "Cancel"
    process_events(application, lambda: not widget.logic.controller.state.busy)
    assert not told
    segmentation = widget._parameterNode.segmentation
    assert segmentation.GetName() == "MRHippocampus - untrained"
    assert widget.ui.segmentationSelector.currentNode() is segmentation
    assert widget.ui.segmentButton.text == "Segment"
    assert "Done in" in widget.ui.statusLabel.text
    assert not widget._timer.isActive()


def test_cancel_by_the_same_button(widget, told, application):
    array = np.random.default_rng(0).normal(size=(96, 160, 160)).astype(np.float32)
    widget.ui.inputVolumeSelector.setCurrentNode(slicer.util.addVolumeFromArray(array))
    widget._parameterNode.model = "untrained"
    widget.ui.segmentButton.click()
    process_events(application, lambda: widget.ui.progressBar.value > 0)
    widget.ui.segmentButton.click()
    process_events(application, lambda: not widget.logic.controller.state.busy)
    assert widget.ui.statusLabel.text == "Cancelled."
    assert widget._parameterNode.segmentation is None
    assert not told


def test_the_scene_may_be_closed_while_work_runs(widget, told, application, scene, mri):
    widget.ui.inputVolumeSelector.setCurrentNode(mri)
    widget._parameterNode.model = "untrained"
    widget.ui.segmentButton.click()
    scene.Clear(0)
    process_events(application, lambda: not widget.logic.controller.state.busy)
    assert not told
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert widget._parameterNode.inputVolume is None
    assert not widget.ui.segmentButton.enabled or widget.ui.inputVolumeSelector.currentNode() is None


def test_no_volume_is_told(widget, told):
    widget._parameterNode.model = "untrained"
    widget.ui.segmentButton.click()
    assert "No volume is chosen" in told[0]


def test_set_up_says_what_each_choice_means(widget, slicer_app):
    ui = widget.ui
    assert WORKER_PYTHON in ui.planLabel.text
    ui.workerComboBox.currentIndex = 2
    ui.remoteLineEdit.text = "anna@gpu"
    widget.onSettingsChanged()
    assert "anna@gpu" in ui.planLabel.text
    widget._storeSettings()
    assert slicer_app.userSettings()["XLSTMUNet/Worker"] == "remote"
    assert widget.logic.host.workplace().remote == "anna@gpu"


def test_results_and_settings_live_in_the_scene(widget, application, scene, mri):
    widget.ui.inputVolumeSelector.setCurrentNode(mri)
    widget.ui.budgetComboBox.currentIndex = 2
    widget.ui.allFramesCheckBox.checked = True
    node = scene.GetSingletonNode("XLSTMUNet", "vtkMRMLScriptedModuleNode")
    assert node.GetNodeReference("inputVolume") is mri
    assert node.GetParameter("budget") == "LONG"
    assert node.GetParameter("allFrames") == "True"
