"""A real MRML scene without the desktop application.

slicer-core brings the classes of 3D Slicer; `qSlicerApplication` wires them on the desktop, this module here.
"""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

import slicer
import slicer.util
import vtk


def make_scene():
    """Return a scene with the logics that the nodes need; it is ``slicer.mrmlScene`` from now on."""
    folder = tempfile.mkdtemp(prefix="slicer-core-")
    scene = slicer.vtkMRMLScene()
    cache, io_manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    cache.SetMRMLScene(scene)
    cache.SetRemoteCacheDirectory(folder)
    io_manager.SetCacheManager(cache)
    scene.SetCacheManager(cache)
    scene.SetDataIOManager(io_manager)
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    application.SetTemporaryPath(folder)
    if hasattr(application, "SetHomeDirectory"):
        application.SetHomeDirectory(folder)
    application.GetColorLogic().SetMRMLScene(scene)
    application.GetColorLogic().AddDefaultColorNodes()
    logics = {}
    for name, cls in (
        ("colors", slicer.vtkSlicerColorLogic),
        ("volumes", slicer.vtkSlicerVolumesLogic),
        ("terminologies", slicer.vtkSlicerTerminologiesModuleLogic),
        ("segmentations", slicer.vtkSlicerSegmentationsModuleLogic),
        ("subjecthierarchy", slicer.vtkSlicerSubjectHierarchyModuleLogic),
        ("sequences", slicer.vtkSlicerSequencesLogic),
        ("transforms", slicer.vtkSlicerTransformLogic),
    ):
        logic = cls()
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name.capitalize(), logic)
        logics[name] = logic
    scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, _into_subject_hierarchy)
    scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, _out_of_subject_hierarchy)
    scene.AddObserver(slicer.vtkMRMLScene.EndCloseEvent, _new_subject_hierarchy)
    _new_subject_hierarchy(scene, None)
    slicer.mrmlScene = scene
    slicer.appLogic = application
    slicer.modules = SimpleNamespace(
        **{name: SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in logics.items()}
    )
    return SimpleNamespace(scene=scene, application=application, **logics)


def _new_subject_hierarchy(scene, event):
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _into_subject_hierarchy(scene, event, node):
    """Give a node its item, as a Qt plugin does on the desktop."""
    if scene.IsBatchProcessing():  # a file brings its own items
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    shown = node.IsA("vtkMRMLDisplayableNode") and not node.GetHideFromEditors()
    if hierarchy and shown and not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _out_of_subject_hierarchy(scene, event, node):
    """Remove the item of a node that goes, as the plugin does."""
    if scene.IsBatchProcessing():
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy and node is not hierarchy else 0
    if item:
        hierarchy.RemoveItem(item, False, False)
