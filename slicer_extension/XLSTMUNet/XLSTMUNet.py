"""The 3D Slicer module: a thin widget over XLSTMUNetLib, which does the work through a worker process."""

import enum
import os

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
            "Segment MRI with small networks that run on a laptop's CPU, correct the result with the tools "
            "of the Segment Editor, and fine-tune the network on your corrections. Everything stays on your "
            "computer; fine-tuning never replaces a model before you press Keep, and can be undone. "
            "Not for clinical use."
        )
        parent.acknowledgementText = _(
            "The network follows xLSTM-UNet (Chen and others, 2024, arXiv:2407.01530). The sample image is "
            "from the Medical Segmentation Decathlon (Antonelli and others, 2022, CC BY-SA 4.0)."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def samplePath(name=SAMPLE):
    """Return the path of a file of the samples."""
    return os.path.join(os.path.dirname(__file__), "Resources", "Samples", name)


def registerSampleData():
    """Add the sample MRI to the Sample Data module; it is shipped with the extension."""
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
        return (
            _("{seconds} s").format(seconds=self.value)
            if self.value < 60
            else _("{minutes} min").format(minutes=self.value // 60)
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
        for selector in (self.ui.inputVolumeSelector, self.ui.segmentationSelector, self.ui.regionSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        self.logic = XLSTMUNetLogic()
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
            (self.ui.newModelButton, self.onNewModel),
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
        self._setParameterNode(None)
        self._observe(None)
        self.removeObservers()
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
        self._selectEditorNode()
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
            model = self.logic.controller.state.model(self._parameterNode.model)
            self._parameterNode.region = self.logic.host.new_region(volume, model)

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

    def onNewModel(self):
        """Make a model that knows the segments which the one in use does not, and go on with it."""
        with self._errorsShown():
            self.logic.controller.tuning.new_model(self._parameterNode.segmentation, self._choose)

    def onFineTune(self):
        """Learn from the corrections, or cancel the learning."""
        controller, parameters = self.logic.controller, self._parameterNode
        if controller.state.busy:
            controller.cancel()
            return
        with self._errorsShown():
            controller.tuning.tune(
                parameters.segmentation,
                parameters.inputVolume,
                parameters.device,
                budget=parameters.budget.value,
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
            _("Delete all corrections stored for {model}? Versions that learned from them stay.").format(
                model=model
            )
        ):
            self.logic.controller.tuning.forget(model)

    def onInstall(self):
        """Say what is missing, and install it if the user agrees."""
        with self._errorsShown():
            if self.logic.host.install():
                self._restartWorker()
        self._showPlan()

    def onRemoveInstalled(self):
        """Remove what was installed here."""
        with self._errorsShown():
            self.logic.host.remove_installed()
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
        from XLSTMUNetLib.panel import show

        if self._applying or self.logic is None or self.logic.controller is None:
            return
        self._applying = True
        try:
            show(self.ui, self.logic.controller.state, self._parameterNode)
        finally:
            self._applying = False

    def _showPlan(self):
        try:
            text = self.logic.host.plan_text(self._workplace())
        except Exception as error:
            text = str(error)
        self.ui.planLabel.text = text
        self.ui.removeButton.enabled = bool(self.logic.host.installed_here())

    # Helpers

    def _errorsShown(self):
        from XLSTMUNetLib.panel import ErrorsShown

        return ErrorsShown(self.logic.tell)

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
        self._selectEditorNode()
        self.editor.setSegmentationNodeSelectorVisible(False)
        self.editor.setSourceVolumeNodeSelectorVisible(False)
        self.ui.editorPlace.layout().addWidget(self.editor)

    def _selectEditorNode(self):
        """Give the editor its node, which goes when the scene is closed."""
        node = slicer.mrmlScene.GetSingletonNode("XLSTMUNet", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("XLSTMUNet")
            node = slicer.mrmlScene.AddNode(node)
        self.editor.setMRMLSegmentEditorNode(node)

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

        workplace = self.logic.host.workplace()
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
            Kind(box.itemData(box.currentIndex)),
            self.ui.pythonPathLineEdit.currentPath,
            self.ui.remoteLineEdit.text,
        )

    def _storeSettings(self):
        self.logic.host.store_workplace(self._workplace())
        self._showPlan()


class XLSTMUNetLogic(ScriptedLoadableModuleLogic):
    """Holds the controller, which does the work, and the host, which knows the application."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        from XLSTMUNetLib.host import Host

        self.host = Host()
        self.controller = None

    def getParameterNode(self):
        """Return the module's parameter node in the scene."""
        return XLSTMUNetParameterNode(super().getParameterNode())

    def makeController(self):
        """Make a controller with a worker as the settings say; it has not been started."""
        from XLSTMUNetLib.controller import Controller

        self.controller = Controller(self.host.new_client(self.tell), self.tell)

    def tell(self, error):
        """Show an error of the core's: what is wrong, and what to do."""
        if slicer.app.testingEnabled():
            raise error
        slicer.util.errorDisplay(str(error), windowTitle=_("xLSTM-UNet"))


class XLSTMUNetTest(ScriptedLoadableModuleTest):
    """What only a desktop Slicer can show; needs the packages of Set-up."""

    def runTest(self):
        """Run every test of XLSTMUNetLib.selftest."""
        from XLSTMUNetLib.selftest import run_all

        run_all(self.delayDisplay)
