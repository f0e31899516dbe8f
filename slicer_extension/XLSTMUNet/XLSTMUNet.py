"""The 3D Slicer module: a thin widget over XLSTMUNetLib, which does the work through a worker process."""

import enum
import os

import ctk
import qt
import slicer
import vtk
from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

SAMPLE = "hippocampus_148.nii.gz"


class XLSTMUNet(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("xLSTM-UNet")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["SegmentEditor", "Segmentations", "Markups", "Sequences"]
        parent.contributors = ["The xLSTM-UNet developers"]
        parent.helpText = _(
            "Segment MRI with small networks that run on a laptop's CPU, correct the result with the Segment "
            "Editor's tools, and fine-tune the network on your corrections. Everything stays on your computer; "
            "fine-tuning never replaces a model before you press Keep, and can be undone. "
            "Not for clinical use."
        )
        parent.acknowledgementText = _(
            "The network follows xLSTM-UNet (Chen and others, 2024, arXiv:2407.01530). The sample image is from "
            "the Medical Segmentation Decathlon (Antonelli and others, 2022, CC BY-SA 4.0)."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def samplePath(name=SAMPLE):
    """Return the path of a file of the samples."""
    return os.path.join(os.path.dirname(__file__), "Resources", "Samples", name)


def registerSampleData():
    """Add the sample MRI to the Sample Data module; it is shipped with the extension, nothing is downloaded."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="xLSTM-UNet",
        sampleName="MRHippocampus",
        thumbnailFileName=os.path.join(os.path.dirname(__file__), "Resources", "Icons", "MRHippocampus.png"),
        customDownloader=lambda source: loadSample(),
    )


def loadSample():
    """Load the sample MRI and return its volume node."""
    return slicer.util.loadVolume(samplePath(), {"name": "MRHippocampus"})


class Budget(enum.Enum):
    """How long to learn, in seconds."""

    SHORT = 30
    USUAL = 120
    LONG = 600

    def label(self):
        """Return what the list shows."""
        return _("{seconds} s").format(seconds=self.value) if self.value < 60 else _("{minutes} min").format(
            minutes=self.value // 60
        )


@parameterNodeWrapper
class XLSTMUNetParameterNode:
    """What the panel's choices are stored as in a scene."""

    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    region: vtkMRMLMarkupsROINode
    allFrames: bool = False
    budget: Budget = Budget.USUAL
    model: str = ""
    device: str = "auto"


class XLSTMUNetWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: it shows the controller's state and passes clicks on."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._observedSegmentation = None
        self._applying = False

    def setup(self):
        """Build the panel, once."""
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/XLSTMUNet.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self._addEditor()
        self._timer = self._makeTimer(30, False, lambda: self.logic.controller.background.drain())
        self._countTimer = self._makeTimer(2000, True, self._saveCorrections)
        self._newController()
        self._fillSettings()
        for button, slot in (
            (self.ui.segmentButton, self.onSegment),
            (self.ui.newRegionButton, self.onNewRegion),
            (self.ui.acceptButton, self.onAccept),
            (self.ui.clearAcceptedButton, self.onClearAccepted),
            (self.ui.fineTuneButton, self.onFineTune),
            (self.ui.stopButton, self.onStop),
            (self.ui.curveButton, self.onCurve),
            (self.ui.previewButton, self.onPreview),
            (self.ui.keepButton, self.onKeep),
            (self.ui.discardButton, self.onDiscard),
            (self.ui.useVersionButton, self.onUseVersion),
            (self.ui.undoVersionButton, self.onUndoVersion),
            (self.ui.forgetButton, self.onForget),
            (self.ui.installButton, self.onInstall),
            (self.ui.removeButton, self.onRemoveInstalled),
            (self.ui.testButton, self.onTestWorker),
        ):
            button.clicked.connect(slot)
        self.ui.modelComboBox.currentIndexChanged.connect(self.onModelChosen)
        self.ui.deviceComboBox.currentIndexChanged.connect(self.onDeviceChosen)
        self.ui.workerComboBox.currentIndexChanged.connect(self.onSettingsChanged)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()
        self.logic.controller.start()

    def cleanup(self):
        """End the worker; the application or the module is closing."""
        self.removeObservers()
        self._setParameterNode(None)
        self._timer.stop()
        self._countTimer.stop()
        self.editor.setSegmentationNode(None)
        self.logic.controller.close()

    def enter(self):
        """Show the panel."""
        self.initializeParameterNode()

    def exit(self):
        """Hide the panel: an active effect must not go on painting."""
        self.editor.setActiveEffect(None)

    def onSceneStartClose(self, caller, event):
        """Let go of the nodes of a scene that is closing, and end what runs on them."""
        self._setParameterNode(None)
        self._observe(None)
        self.logic.controller.scene_closed()

    def onSceneEndClose(self, caller, event):
        """Start again in the empty scene."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Take the parameter node of the scene; choose the first volume where none is chosen."""
        self._setParameterNode(self.logic.getParameterNode())
        if self._parameterNode is not None and self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    def _setParameterNode(self, node):
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = node
        if node is not None:
            self._parameterNodeGuiTag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()

    def onParametersChanged(self, caller=None, event=None):
        """Follow the choice of nodes."""
        if self._parameterNode is not None:
            self.editor.setSegmentationNode(self._parameterNode.segmentation)
            self.editor.setSourceVolumeNode(self._parameterNode.inputVolume)
            self._observe(self._parameterNode.segmentation)
        self.show()

    # Buttons

    def onSegment(self):
        """Segment, or cancel what runs."""
        from XLSTMUNetLib.segmenting import RegionNeededError, Request

        controller, parameters = self.logic.controller, self._parameterNode
        if controller.state.busy:
            controller.cancel()
            return
        model = controller.state.model(parameters.model)
        if model is None:
            return
        request = Request(
            parameters.inputVolume,
            model,
            parameters.segmentation,
            parameters.region,
            parameters.device,
            parameters.allFrames,
            before_writing=self._saveUndoState,
        )
        try:
            with self._errorsShown():
                controller.segment(request, self._showResult)
        except RegionNeededError as error:
            if slicer.util.confirmOkCancelDisplay(
                "\n\n".join((str(error), _("Put a region into the middle of the slice views now?")))
            ):
                self.onNewRegion()

    def onNewRegion(self):
        """Put a box of the size that the model expects where the slice views cross."""
        volume = self._parameterNode.inputVolume
        if volume is None:
            return
        with self._errorsShown():
            self._parameterNode.region = self.logic.newRegion(volume, self._parameterNode.model)

    def onAccept(self):
        """Mark everything within the region as right."""
        from XLSTMUNetLib.corrections import accept_region

        parameters = self._parameterNode
        with self._errorsShown():
            accept_region(parameters.segmentation, parameters.inputVolume, parameters.region)
            self._saveCorrections()

    def onClearAccepted(self):
        """Take back every accepted region."""
        from XLSTMUNetLib.corrections import clear_accepted

        clear_accepted(self._parameterNode.segmentation)
        self._saveCorrections()

    def onFineTune(self):
        """Learn from the corrections, or cancel the learning."""
        controller, parameters = self.logic.controller, self._parameterNode
        if controller.state.busy:
            controller.cancel()
            return
        with self._errorsShown():
            controller.tuning.tune(
                parameters.segmentation, parameters.inputVolume, parameters.device, parameters.budget.value
            )

    def onStop(self):
        """End the learning with the best so far."""
        self.logic.controller.tuning.stop()

    def onCurve(self):
        """Show the learning curve in a plot view."""
        from XLSTMUNetLib.curve import show_curve

        tuning = self.logic.controller.state.tuning
        if tuning is not None:
            slicer.modules.plots.logic().ShowChartInLayout(show_curve(slicer.mrmlScene, tuning))

    def onPreview(self):
        """Segment with what was learned, into a segmentation of its own."""
        from XLSTMUNetLib.segmenting import Request

        controller, parameters = self.logic.controller, self._parameterNode
        version = self._pending()
        model = controller.state.model(parameters.model)
        if version is None or model is None:
            return
        request = Request(
            parameters.inputVolume,
            model,
            roi=parameters.region,
            device=parameters.device,
            run_as=version["folder"],
        )
        with self._errorsShown():
            controller.segment(request)

    def onKeep(self):
        """Use what was learned from now on; ask once more if old skills were lost."""
        version = self._pending()
        if version is None:
            return
        force = version["verdict"] == "refuse"
        if force and not slicer.util.confirmOkCancelDisplay(
            "\n\n".join((version["message"], _("Keep it nevertheless? Undo brings the old model back.")))
        ):
            return
        self.logic.controller.tuning.keep(version["version"], force=force, done=self._choose)

    def onDiscard(self):
        """Drop what was learned."""
        version = self._pending()
        if version is not None:
            self.logic.controller.tuning.discard(version["version"])

    def onUseVersion(self):
        """Go to the chosen version."""
        chosen = self._chosenVersion()
        if chosen is not None:
            self.logic.controller.tuning.use(chosen["model"], chosen["number"])

    def onUndoVersion(self):
        """Go back to the version before the one in use."""
        chosen = self._chosenVersion()
        if chosen is not None:
            self.logic.controller.tuning.undo(chosen["model"])

    def onForget(self):
        """Delete the corrections stored for the model in use."""
        model = self._parameterNode.model
        if slicer.util.confirmOkCancelDisplay(
            _("Delete all corrections stored for {model}? Versions that learned from them stay.").format(model=model)
        ):
            self.logic.controller.tuning.forget(model)

    def onInstall(self):
        """Say what is missing, and install it if the user agrees."""
        with self._errorsShown():
            if self.logic.install():
                self._restartWorker()
        self._showPlan()

    def onRemoveInstalled(self):
        """Remove what was installed here."""
        with self._errorsShown():
            self.logic.removeInstalled()
        self._showPlan()

    def onTestWorker(self):
        """Start the worker with the settings as they are."""
        self._storeSettings()
        self._restartWorker()

    def onModelChosen(self, index):
        """Store the chosen model."""
        if not self._applying and self._parameterNode is not None and index >= 0:
            self._parameterNode.model = self.ui.modelComboBox.itemData(index)

    def onDeviceChosen(self, index):
        """Store the chosen device."""
        if not self._applying and self._parameterNode is not None and index >= 0:
            self._parameterNode.device = self.ui.deviceComboBox.itemData(index)

    def onSettingsChanged(self, index=0):
        """Say what the chosen workplace means."""
        self._showPlan()

    # Showing

    def show(self):
        """Bring the panel in line with the controller's state."""
        from XLSTMUNetLib.state import Phase
        from XLSTMUNetLib.words import comparison, counts_text, model_text, unknown_text

        if self._applying or self.logic is None or self.logic.controller is None:
            return
        self._applying = True
        try:
            state, parameters, ui = self.logic.controller.state, self._parameterNode, self.ui
            usable = [model for model in state.models if not model.problem]
            self._fill(ui.modelComboBox, [(m.name, m.name) for m in usable], parameters.model if parameters else "")
            self._fill(ui.deviceComboBox, list(state.devices), parameters.device if parameters else "auto")
            if parameters is not None and not parameters.model and usable:
                parameters.model = usable[0].name
            model = state.model(parameters.model) if parameters is not None else None
            ui.modelInfoLabel.text = model_text(model)
            segmenting = state.phase in (Phase.SEGMENTING, Phase.CANCELLING)
            ready = parameters is not None and model is not None and state.phase is Phase.READY
            ui.segmentButton.text = _("Cancel") if segmenting else _("Segment")
            ui.segmentButton.enabled = ready or state.phase is Phase.SEGMENTING
            ui.allFramesCheckBox.visible = self.logic.isSequence(parameters.inputVolume if parameters else None)
            ui.progressBar.value = int(1000 * state.progress)
            ui.statusLabel.text = state.status
            corrected = bool(state.counts)
            ui.countsLabel.text = counts_text(state.counts)
            ui.unknownLabel.text = unknown_text(state.unknown)
            ui.unknownLabel.visible = bool(state.unknown)
            ui.acceptButton.enabled = ready and parameters.region is not None and parameters.segmentation is not None
            ui.clearAcceptedButton.enabled = ready and bool(state.counts.get("accepted_voxels"))
            tuning = state.phase is Phase.TUNING
            ui.fineTuneButton.text = _("Cancel") if tuning else _("Fine-tune")
            ui.fineTuneButton.enabled = tuning or (ready and corrected)
            ui.stopButton.enabled = tuning
            ui.curveButton.enabled = state.tuning is not None
            pending = self._pending()
            ui.comparisonLabel.text = comparison(pending)
            for button in (ui.previewButton, ui.keepButton, ui.discardButton):
                button.enabled = pending is not None and state.phase is Phase.READY
            if state.tuning is not None and slicer.mrmlScene.GetFirstNode(
                "xLSTM-UNet learning curve", "vtkMRMLPlotChartNode"
            ):
                from XLSTMUNetLib.curve import show_curve

                show_curve(slicer.mrmlScene, state.tuning)
            self._showVersions(state)
        finally:
            self._applying = False

    def _showVersions(self, state):
        from XLSTMUNetLib.words import version_text

        items = [
            (f"{version['number']} {model['name']}", version_text(model, version))
            for model in state.versions
            for version in model["versions"]
            if not version["pending"]
        ]
        box = self.ui.versionComboBox
        self._fill(box, items, box.itemData(box.currentIndex))
        for button in (self.ui.useVersionButton, self.ui.undoVersionButton):
            button.enabled = bool(items) and not state.busy
        self.ui.forgetButton.enabled = not state.busy

    def _fill(self, box, items, current):
        """Make a list show ``(data, text)`` items, leaving it alone where it already does."""
        shown = [(box.itemData(index), box.itemText(index)) for index in range(box.count)]
        if shown != items:
            box.clear()
            for data, text in items:
                box.addItem(text, data)
        place = next((index for index, (data, _text) in enumerate(items) if data == current), 0 if items else -1)
        if box.currentIndex != place:
            box.currentIndex = place

    def _showPlan(self):
        try:
            text = self.logic.planText(self._workplace())
        except Exception as error:
            text = str(error)
        self.ui.planLabel.text = text
        self.ui.removeButton.enabled = bool(self.logic.installedHere())

    # Helpers

    def _errorsShown(self):
        return _ErrorsShown(self.logic.tell)

    def _makeTimer(self, milliseconds, once, call):
        timer = qt.QTimer()
        timer.setInterval(milliseconds)
        timer.setSingleShot(once)
        timer.timeout.connect(call)
        return timer

    def _addEditor(self):
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.editor.setMaximumNumberOfUndoStates(10)
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag("XLSTMUNet")
        self.editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNode(node))
        self.editor.setSegmentationNodeSelectorVisible(False)
        self.editor.setSourceVolumeNodeSelectorVisible(False)
        self.ui.editorPlace.layout().addWidget(self.editor)

    def _newController(self):
        self.logic.makeController()
        self.logic.controller.background.timer = self._timer
        self.logic.controller.state.on_change = self.show

    def _restartWorker(self):
        with self._errorsShown():
            self.logic.controller.close()
            self._newController()
            self.logic.controller.start()

    def _observe(self, segmentation):
        """Count corrections some seconds after the last change of a segmentation."""
        if segmentation is self._observedSegmentation:
            return
        event = slicer.vtkSegmentation.SourceRepresentationModified
        if self._observedSegmentation is not None:
            self.removeObserver(self._observedSegmentation.GetSegmentation(), event, self.onSegmentsChanged)
        self._observedSegmentation = segmentation
        if segmentation is not None:
            self.addObserver(segmentation.GetSegmentation(), event, self.onSegmentsChanged)
            self._countTimer.start()

    def onSegmentsChanged(self, caller, event):
        """Wait for the end of a stroke, then count."""
        self._countTimer.start()

    def _saveCorrections(self):
        parameters, controller = self._parameterNode, self.logic.controller
        if parameters is not None and not controller.state.busy:
            controller.tuning.save(parameters.segmentation, parameters.inputVolume)

    def _saveUndoState(self, segmentation):
        self.editor.setSegmentationNode(segmentation)
        self.editor.saveStateForUndo()

    def _showResult(self, segmentation):
        if self._parameterNode is not None:
            self._parameterNode.segmentation = segmentation

    def _choose(self, model):
        if self._parameterNode is not None:
            self._parameterNode.model = model

    def _pending(self):
        tuning = self.logic.controller.state.tuning
        return tuning.version if tuning is not None else None

    def _chosenVersion(self):
        data = self.ui.versionComboBox.itemData(self.ui.versionComboBox.currentIndex)
        if not data:
            return None
        number, _space, model = data.partition(" ")
        return {"model": model, "number": int(number)}

    def _fillSettings(self):
        from XLSTMUNetLib.workplace import Kind

        workplace = self.logic.workplace()
        for kind, text in (
            (Kind.SLICER, _("Slicer's own Python")),
            (Kind.PYTHON, _("Another Python on this computer")),
            (Kind.REMOTE, _("Another computer, through ssh")),
        ):
            self.ui.workerComboBox.addItem(text, kind.value)
        self.ui.workerComboBox.currentIndex = [kind.value for kind in Kind].index(workplace.kind.value)
        self.ui.pythonPathLineEdit.currentPath = workplace.python
        self.ui.remoteLineEdit.text = workplace.remote
        self._showPlan()

    def _workplace(self):
        from XLSTMUNetLib.workplace import Kind, Workplace

        box = self.ui.workerComboBox
        return Workplace(
            Kind(box.itemData(box.currentIndex)), self.ui.pythonPathLineEdit.currentPath, self.ui.remoteLineEdit.text
        )

    def _storeSettings(self):
        self.logic.storeWorkplace(self._workplace())
        self._showPlan()


class _ErrorsShown:
    """Show the core's errors to the user and go on; a model's wish for a region goes to the caller."""

    def __init__(self, tell):
        self._tell = tell

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        from XLSTMUNetLib.segmenting import RegionNeededError

        from xlstm_unet.errors import XLSTMUNetError

        if isinstance(error, XLSTMUNetError) and not isinstance(error, RegionNeededError):
            self._tell(error)
            return True
        return False


class XLSTMUNetLogic(ScriptedLoadableModuleLogic):
    """What needs the application: settings, packages, interpreters; the rest is the controller's."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.controller = None

    def getParameterNode(self):
        """Return the module's parameter node in the scene."""
        return XLSTMUNetParameterNode(super().getParameterNode())

    def makeController(self):
        """Make a controller with a worker as the settings say; it has not been started."""
        from XLSTMUNetLib.controller import Controller
        from XLSTMUNetLib.workplace import Workplace

        from xlstm_unet.errors import XLSTMUNetError
        from xlstm_unet.worker.client import WorkerClient

        workplace = self.workplace()
        try:
            command = workplace.command(self.slicerPython())
        except XLSTMUNetError as error:
            self.tell(error)
            workplace = Workplace()
            command = workplace.command(self.slicerPython())
        environment = workplace.environment(os.environ, slicer.util.startupEnvironment())
        self.controller = Controller(WorkerClient(command, environment), self.tell)

    def tell(self, error):
        """Show an error of the core's: what is wrong, and what to do."""
        if slicer.app.testingEnabled():
            raise error
        slicer.util.errorDisplay(str(error), windowTitle=_("xLSTM-UNet"))

    def slicerPython(self):
        """Return Slicer's own interpreter."""
        import shutil

        return shutil.which("PythonSlicer") or os.path.join(slicer.app.slicerHome, "bin", "PythonSlicer")

    def isSequence(self, volume):
        """Whether a volume shows the frames of a sequence."""
        from XLSTMUNetLib.sequences import browser_of

        return browser_of(volume) is not None

    def newRegion(self, volume, modelName):
        """Return a new ROI of the size that a model expects, where the slice views cross."""
        from XLSTMUNetLib.mrml import ijk_to_ras, place_roi, read_volume, transform_between

        image = read_volume(volume, copy=False)
        model = self.controller.state.model(modelName)
        view = model.field_of_view if model is not None else None
        size = view["extent_mm"] if view is not None else [length / 2 for length in image.extent_mm]
        world = [slicer.util.getNode(f"vtkMRMLSliceNode{name}").GetSliceToRAS() for name in ("Red", "Yellow", "Green")]
        point = [world[1].GetElement(0, 3), world[2].GetElement(1, 3), world[0].GetElement(2, 3)]
        local = transform_between(None, volume.GetParentTransformNode()).TransformPoint(point)
        inverse = vtk.vtkMatrix4x4()
        inverse.DeepCopy(slicer.util.vtkMatrixFromArray(ijk_to_ras(volume)))
        inverse.Invert()
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", _("Region"))
        roi.CreateDefaultDisplayNodes()
        place_roi(roi, volume, inverse.MultiplyPoint((*local, 1.0))[:3], list(reversed(size)))
        return roi

    # Settings and packages

    def workplace(self):
        """Return where the worker runs, as the user's settings say."""
        from XLSTMUNetLib.workplace import Kind, Workplace

        settings = slicer.app.userSettings()
        kind = settings.value("XLSTMUNet/Worker") or Kind.SLICER.value
        return Workplace(
            Kind(kind) if kind in list(Kind) else Kind.SLICER,
            settings.value("XLSTMUNet/Python") or "",
            settings.value("XLSTMUNet/Remote") or "",
        )

    def storeWorkplace(self, workplace):
        """Store where the worker runs in the user's settings."""
        settings = slicer.app.userSettings()
        settings.setValue("XLSTMUNet/Worker", workplace.kind.value)
        settings.setValue("XLSTMUNet/Python", workplace.python)
        settings.setValue("XLSTMUNet/Remote", workplace.remote)

    def planText(self, workplace):
        """Return in words what a workplace means, and what installing would do."""
        from XLSTMUNetLib.workplace import Kind

        if workplace.kind is not Kind.SLICER:
            return workplace.describe()
        return workplace.describe() + "\n" + self.plan().describe()

    def plan(self):
        """Return what is missing in Slicer's own Python."""
        from XLSTMUNetLib.installation import held_versions, make_plan

        held = held_versions({"vtk": vtk.vtkVersion.GetVTKVersion()})
        return make_plan(_SlicerPip(), self._torchUtils(), held)

    def install(self):
        """Say what is missing and install it if the user agrees; whether anything was installed."""
        from XLSTMUNetLib.installation import carry_out

        plan = self.plan()
        if plan.empty:
            slicer.util.infoDisplay(plan.describe())
            return False
        if not slicer.util.confirmOkCancelDisplay(plan.describe(), windowTitle=_("xLSTM-UNet: install")):
            return False
        carry_out(plan, _SlicerPip(), self._torchUtils(), self._record())
        return True

    def removeInstalled(self):
        """Remove what was installed here, after asking."""
        from XLSTMUNetLib.installation import undo

        names = ", ".join(self.installedHere())
        if names and slicer.util.confirmOkCancelDisplay(_("Remove {names}?").format(names=names)):
            self.controller.close()
            undo(_SlicerPip(), self._record())

    def installedHere(self):
        """Return the names of the packages that this module has installed."""
        from XLSTMUNetLib.installation import recorded

        return sorted(recorded(self._record()))

    def _record(self):
        from pathlib import Path

        settings = slicer.app.slicerUserSettingsFilePath
        return Path(settings).with_name("XLSTMUNet-installed.json")

    def _torchUtils(self):
        try:
            import PyTorchUtils
        except ImportError:
            return None
        return PyTorchUtils.PyTorchUtilsLogic()


class _SlicerPip:
    """``slicer.packaging``, as the installation wants it."""

    def check(self, requirement):
        from slicer.packaging import pip_check

        return pip_check(requirement)

    def install(self, requirements, constraints):
        from slicer.packaging import pip_ensure

        pip_ensure(requirements, constraints=constraints, prompt_install=False, requester="xLSTM-UNet")

    def uninstall(self, packages):
        from slicer.packaging import pip_uninstall

        pip_uninstall(packages)


class XLSTMUNetTest(ScriptedLoadableModuleTest):
    """What only a desktop Slicer can show; needs the packages of Set-up. It was not run where this was made."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run every test."""
        for test in (self.test_sample_is_segmented, self.test_result_is_one_undo_step, self.test_scene_close):
            self.setUp()
            test()

    def _segmentSample(self):
        slicer.util.selectModule("XLSTMUNet")
        widget = slicer.modules.XLSTMUNetWidget
        volume = loadSample()
        widget._parameterNode.inputVolume = volume
        widget._parameterNode.segmentation = None
        widget._parameterNode.model = "hippocampus-mri"
        self._wait(lambda: widget.logic.controller.state.phase == "ready")
        widget.onSegment()
        self._wait(lambda: not widget.logic.controller.state.busy)
        return widget, volume

    def test_sample_is_segmented(self):
        """The sample is segmented from the panel, with both parts of the hippocampus."""
        self.delayDisplay("Segmenting the sample")
        widget, volume = self._segmentSample()
        segmentation = widget._parameterNode.segmentation
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 2)
        for index in range(2):
            segment = segmentation.GetSegmentation().GetNthSegmentID(index)
            array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume)
            self.assertGreater(int((array > 0).sum()), 500)

    def test_result_is_one_undo_step(self):
        """Segmenting again can be undone by one press of the editor's Undo."""
        widget, volume = self._segmentSample()
        segmentation = widget._parameterNode.segmentation
        segment = segmentation.GetSegmentation().GetNthSegmentID(0)
        segmentation.GetSegmentation().GetSegment(segment)
        before = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume).copy()
        slicer.util.arrayFromVolume(volume)[:10] = 0
        slicer.util.arrayFromVolumeModified(volume)
        widget.onSegment()
        self._wait(lambda: not widget.logic.controller.state.busy)
        widget.editor.undo()
        after = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume)
        self.assertTrue((before == after).all())

    def test_scene_close(self):
        """Closing the scene while work runs ends it and leaves a usable panel."""
        widget, _volume = self._segmentSample()
        widget.onSegment()
        slicer.mrmlScene.Clear()
        self._wait(lambda: not widget.logic.controller.state.busy)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)

    def _wait(self, condition, seconds=120):
        import time

        until = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), until)
            slicer.app.processEvents()
            time.sleep(0.01)
