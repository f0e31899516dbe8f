"""Stands in for the base classes of Slicer's scripted modules."""

import os
import unittest

import qt
import slicer
from PyQt6 import QtWidgets


class ScriptedLoadableModule:
    """What the factory makes first."""

    def __init__(self, parent):
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """A panel in a window of its own."""

    def __init__(self, parent=None):
        self.parent = parent
        self.window = QtWidgets.QWidget()
        self.layout = qt.Like(QtWidgets.QVBoxLayout(self.window))
        self.moduleName = type(self).__name__.removesuffix("Widget")

    def resourcePath(self, name):
        """Return the path of a resource."""
        return os.path.join(self.folder, "Resources", name)

    def setup(self):
        """Do nothing: there are no developer's buttons."""


class ScriptedLoadableModuleLogic:
    """Knows the parameter node."""

    def getParameterNode(self):
        """Return the module's node in the scene, making it if there is none."""
        node = slicer.mrmlScene.GetSingletonNode("XLSTMUNet", "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag("XLSTMUNet")
            node.SetName("XLSTMUNet")
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A self-test."""
