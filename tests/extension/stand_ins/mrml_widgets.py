"""Stand-ins for the widgets of ctk and MRML that the ``.ui`` file names: Qt widgets with their properties.

A property that the file sets and that is not declared here fails the test of the file.
"""

from __future__ import annotations

import sys
from types import ModuleType

import slicer
from PyQt6 import QtCore, QtWidgets

_property = QtCore.pyqtProperty


def _plain(kind, name, default):
    """Return a property that holds a value."""

    def read(self):
        return self.__dict__.get(name, default)

    def write(self, value):
        self.__dict__[name] = value

    return _property(kind, read, write)


class qMRMLWidget(QtWidgets.QWidget):
    """A widget that knows the scene."""

    def setMRMLScene(self, scene):
        """Take the scene."""
        self.scene = scene


class qMRMLNodeComboBox(qMRMLWidget):
    """A list of nodes, without the list."""

    currentNodeChanged = QtCore.pyqtSignal()
    nodeTypes = _plain("QStringList", "nodeTypes", [])
    showChildNodeTypes = _plain(bool, "showChildNodeTypes", True)
    addEnabled = _plain(bool, "addEnabled", True)
    removeEnabled = _plain(bool, "removeEnabled", True)
    renameEnabled = _plain(bool, "renameEnabled", False)
    noneEnabled = _plain(bool, "noneEnabled", False)
    noneDisplay = _plain(str, "noneDisplay", "")

    node = None

    def currentNode(self):
        """Return the chosen node."""
        return self.node

    def setCurrentNode(self, node):
        """Choose a node."""
        if node is not self.node:
            self.node = node
            self.currentNodeChanged.emit()


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A section."""

    text = _plain(str, "text", "")
    collapsed = _plain(bool, "collapsed", False)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A path."""

    currentPath = _plain(str, "currentPath", "")


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The Segment Editor's widget: its undo is the real logic's."""

    def __init__(self):
        super().__init__()
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.logic.SetMRMLApplicationLogic(slicer.appLogic)
        self.history = slicer.vtkSegmentationHistory()
        self.logic.SetSegmentationHistory(self.history)

    def setMaximumNumberOfUndoStates(self, count):
        """Keep that many states."""
        self.history.SetMaximumNumberOfStates(count)

    def setMRMLSegmentEditorNode(self, node):
        """Take the editor's node."""
        self.logic.SetSegmentEditorNode(node)

    def setSegmentationNodeSelectorVisible(self, visible):
        """Show or hide the list of segmentations."""

    def setSourceVolumeNodeSelectorVisible(self, visible):
        """Show or hide the list of volumes."""

    def setSegmentationNode(self, node):
        """Edit a segmentation."""
        self.logic.SetSegmentationNode(node)

    def setSourceVolumeNode(self, node):
        """Edit on a volume."""
        self.logic.SetSourceVolumeNode(node)

    def setActiveEffect(self, effect):
        """Choose a tool."""

    def saveStateForUndo(self):
        """Save a state."""
        self.logic.SaveStateForUndo()

    def undo(self):
        """Go back one state."""
        self.logic.Undo()


def _with_setters(cls):
    """Give a class the methods ``setName`` of its properties, which uic calls."""
    for name, value in list(vars(cls).items()):
        if isinstance(value, QtCore.pyqtProperty):
            setattr(cls, f"set{name[0].upper()}{name[1:]}", value.fset)


for _class in (qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton, ctkPathLineEdit):
    _with_setters(_class)
    _module = ModuleType(_class.__name__)
    setattr(_module, _class.__name__, _class)
    sys.modules[_class.__name__] = _module  # where uic looks for the class of a custom widget
