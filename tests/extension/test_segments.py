"""Labels into segments and back, in real MRML."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from test_mrml import add_volume, linear_transform, oblique
from XLSTMUNetLib.segments import (
    LABEL_TAG,
    Label,
    find_segment,
    labels_of_objects,
    new_segmentation,
    read_labels,
    read_tag,
    segments_of,
    unknown_segments,
    write_labels,
)

from xlstm_unet.errors import ImageError

LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
    "~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)
LABELS = (Label(1, "Liver", (221, 130, 101), LIVER), Label(2, "Tumeur é", (230, 230, 30)))


def blobs(shape=(20, 30, 40)) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    labels[2:9, 5:15, 5:20] = 1
    labels[10:15, 16:25, 18:30] = 2
    return labels


def mask(segmentation, segment_id, volume) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0


def volume_and_segmentation(scene, matrix=None, shape=(20, 30, 40)):
    volume = add_volume(np.zeros(shape, np.int16), oblique() if matrix is None else matrix)
    return volume, new_segmentation(volume, "MRI - model")


def test_segments_have_stable_ids_names_colours_and_terminology(scene):
    volume, segmentation = volume_and_segmentation(scene)
    ids = write_labels(segmentation, volume, blobs(), LABELS, "model")
    assert ids == ["XLSTMUNet_Liver", "XLSTMUNet_Tumeur_é"]
    liver = segmentation.GetSegmentation().GetSegment(ids[0])
    assert liver.GetName() == "Liver"
    assert liver.GetColor() == pytest.approx((221 / 255, 130 / 255, 101 / 255))
    assert read_tag(liver, slicer.vtkSegment.GetTerminologyEntryTagName()) == LIVER
    assert read_tag(liver, LABEL_TAG) == "Liver"


def test_a_bare_code_becomes_a_whole_terminology_entry(scene):
    volume, segmentation = volume_and_segmentation(scene)
    label = Label(1, "Hippocampus", terminology="SCT^5366008^Hippocampus")
    ids = write_labels(segmentation, volume, blobs(), [label], "model")
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    text = read_tag(segmentation.GetSegmentation().GetSegment(ids[0]), tag)
    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(text, entry) is not False
    assert text.count("~") == 6
    assert "SCT^5366008^Hippocampus" in text


@pytest.mark.parametrize("matrix", [np.diag([-1.0, -1.0, 2.0, 1.0]), oblique()], ids=["straight", "oblique"])
def test_every_voxel_lands_in_its_place(scene, matrix):
    volume, segmentation = volume_and_segmentation(scene, matrix)
    ids = write_labels(segmentation, volume, blobs(), LABELS, "model")
    for value, segment_id in enumerate(ids, 1):
        assert np.array_equal(mask(segmentation, segment_id, volume), blobs() == value)
    assert np.array_equal(read_labels(segmentation, volume, LABELS), blobs())


def test_the_result_lies_beside_the_volume_and_under_its_transform(scene):
    volume = add_volume(np.zeros((20, 30, 40), np.int16), oblique())
    volume.SetAndObserveTransformNodeID(linear_transform(scene).GetID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient é")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    segmentation = new_segmentation(volume, "MRI - model")
    write_labels(segmentation, volume, blobs(), LABELS, "model")
    assert segmentation.GetTransformNodeID() == volume.GetTransformNodeID()
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation)) == study
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is volume
    assert np.array_equal(read_labels(segmentation, volume, LABELS), blobs())
    center = [0.0] * 3
    segmentation.GetSegmentCenterRAS("XLSTMUNet_Liver", center)
    expected = oblique() @ [12.0, 9.5, 5.0, 1.0]  # voxels 5..19, 5..14, 2..8
    moved = volume.GetParentTransformNode().GetTransformToParent().TransformPoint(expected[:3])
    assert np.allclose(center, moved, atol=1.5)


def test_a_segmentation_elsewhere_is_written_to_the_same_place_in_the_world(scene):
    volume = add_volume(np.zeros((20, 30, 40), np.int16), oblique((1.0, 1.0, 1.0)))
    segmentation = new_segmentation(volume, "target")
    volume.SetAndObserveTransformNodeID(linear_transform(scene).GetID())
    write_labels(segmentation, volume, blobs(), LABELS, "model")
    found = read_labels(segmentation, volume, LABELS)
    assert (found == blobs()).mean() > 0.99
    assert (found == 1).sum() == pytest.approx((blobs() == 1).sum(), rel=0.05)


def test_other_transforms_that_are_not_linear_are_refused(scene):
    volume, segmentation = volume_and_segmentation(scene)
    bent = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "bent")
    volume.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(ImageError, match="not linear"):
        write_labels(segmentation, volume, blobs(), LABELS, "model")
    assert not list(segments_of(segmentation))


def test_the_users_segments_stay_as_they_are(scene):
    volume, segmentation = volume_and_segmentation(scene)
    own = segmentation.GetSegmentation()
    own.AddEmptySegment("mine", "Vessel", [0.1, 0.2, 0.3])
    drawn = np.zeros((20, 30, 40), np.uint8)
    drawn[3:12, 8:20, 10:22] = 1  # overlaps both labels
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, segmentation, "mine", volume)
    for shift in (0, 3):
        write_labels(segmentation, volume, np.roll(blobs(), shift, axis=2), LABELS, "model")
        assert np.array_equal(mask(segmentation, "mine", volume), drawn > 0)
        assert np.array_equal(read_labels(segmentation, volume, LABELS), np.roll(blobs(), shift, axis=2))
    assert own.GetSegment("mine").GetName() == "Vessel"
    assert unknown_segments(segmentation, LABELS) == ["mine"]


def test_renamed_and_recoloured_segments_keep_the_users_choice(scene):
    volume, segmentation = volume_and_segmentation(scene)
    write_labels(segmentation, volume, blobs(), LABELS, "model")
    liver = segmentation.GetSegmentation().GetSegment("XLSTMUNet_Liver")
    liver.SetName("Leber links")
    liver.SetColor(0.0, 0.0, 1.0)
    write_labels(segmentation, volume, np.roll(blobs(), 2, axis=0), LABELS, "model")
    assert (liver.GetName(), liver.GetColor()) == ("Leber links", (0.0, 0.0, 1.0))
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2


def test_a_segment_that_lost_its_id_is_found_by_its_tag(scene):
    volume, segmentation = volume_and_segmentation(scene)
    own = segmentation.GetSegmentation()
    own.AddEmptySegment("Segment_7", "Foie", [1.0, 0.0, 0.0])
    own.GetSegment("Segment_7").SetTag(LABEL_TAG, "Liver")
    assert find_segment(segmentation, LABELS[0]) == "Segment_7"
    assert write_labels(segmentation, volume, blobs(), LABELS, "model")[0] == "Segment_7"


def test_a_label_without_voxels_becomes_an_empty_segment_and_clears_a_full_one(scene):
    volume, segmentation = volume_and_segmentation(scene)
    write_labels(segmentation, volume, blobs(), LABELS, "model")
    write_labels(segmentation, volume, np.where(blobs() == 1, 1, 0), LABELS, "model")
    assert np.array_equal(read_labels(segmentation, volume, LABELS), np.where(blobs() == 1, 1, 0))
    write_labels(segmentation, volume, np.zeros_like(blobs()), LABELS, "model")
    assert not read_labels(segmentation, volume, LABELS).any()
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2


def test_a_result_is_one_undo_step(wired, scene):
    volume, segmentation = volume_and_segmentation(scene)
    editor = slicer.vtkSlicerSegmentEditorLogic()
    editor.SetMRMLScene(scene)
    editor.SetMRMLApplicationLogic(wired.application)
    history = slicer.vtkSegmentationHistory()
    editor.SetSegmentationHistory(history)
    editor.SetSegmentEditorNode(scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.SetSegmentationNode(segmentation)
    editor.SetSourceVolumeNode(volume)
    write_labels(segmentation, volume, blobs(), LABELS, "model")
    editor.SaveStateForUndo()
    write_labels(segmentation, volume, np.roll(blobs(), 4, axis=1), LABELS, "model")
    editor.Undo()
    assert np.array_equal(read_labels(segmentation, volume, LABELS), blobs())
    editor.Redo()
    assert np.array_equal(read_labels(segmentation, volume, LABELS), np.roll(blobs(), 4, axis=1))


def test_a_shown_surface_is_made_again(scene):
    volume, segmentation = volume_and_segmentation(scene)
    write_labels(segmentation, volume, blobs(), LABELS, "model")
    segmentation.CreateClosedSurfaceRepresentation()
    write_labels(segmentation, volume, np.roll(blobs(), 6, axis=2), LABELS, "model")
    surface = slicer.vtkMRMLSegmentationNode.SafeDownCast(
        segmentation
    ).GetClosedSurfaceInternalRepresentation("XLSTMUNet_Liver")
    assert surface.GetNumberOfPoints() > 0
    x = np.linalg.inv(oblique()) @ [*surface.GetCenter(), 1.0]
    assert x[0] == pytest.approx(18.0, abs=1.5)


def test_labels_of_another_shape_are_refused(scene):
    volume, segmentation = volume_and_segmentation(scene)
    with pytest.raises(ImageError, match="have the shape"):
        write_labels(segmentation, volume, blobs((20, 30, 41)), LABELS, "model")


def test_where_segments_overlap_the_changed_one_counts(scene):
    volume, segmentation = volume_and_segmentation(scene)
    predicted = blobs()
    write_labels(segmentation, volume, predicted, LABELS, "model")
    grown = predicted == 1
    grown[10:12, 16:20, 18:24] = True  # painted over the tumour, with overlap allowed
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        grown.astype(np.uint8), segmentation, "XLSTMUNet_Liver", volume
    )
    found = read_labels(segmentation, volume, LABELS, base=predicted)
    assert (found[10:12, 16:20, 18:24] == 1).all()


def test_objects_get_a_segment_each_and_too_many_are_refused():
    labels = labels_of_objects(3, Label(1, "nucleus"))
    assert [label.name for label in labels] == ["nucleus 1", "nucleus 2", "nucleus 3"]
    assert len({label.color for label in labels}) == 3
    with pytest.raises(ImageError, match="5000 objects"):
        labels_of_objects(5000, Label(1, "nucleus"))


def test_a_segmentation_is_saved_and_read_back(wired, scene, tmp_path):
    volume, segmentation = volume_and_segmentation(scene)
    write_labels(segmentation, volume, blobs(), LABELS, "model")
    segmentation.GetSegmentation().GetSegment("XLSTMUNet_Liver").SetName("Leber ü")
    file = tmp_path / "Ordner ü 空" / "seg é.seg.nrrd"
    file.parent.mkdir()
    segmentation.AddDefaultStorageNode()
    segmentation.GetStorageNode().SetFileName(str(file))
    assert segmentation.GetStorageNode().WriteData(segmentation)
    back = wired.segmentations.LoadSegmentationFromFile(str(file), True, "back")
    assert find_segment(back, LABELS[0]) == "XLSTMUNet_Liver"
    liver = back.GetSegmentation().GetSegment("XLSTMUNet_Liver")
    assert liver.GetName() == "Leber ü"
    assert "Liver" in read_tag(liver, slicer.vtkSegment.GetTerminologyEntryTagName())
    assert np.array_equal(read_labels(back, volume, LABELS), blobs())


def test_a_scene_is_saved_and_read_back(wired, scene, tmp_path):
    volume, segmentation = volume_and_segmentation(scene)
    write_labels(segmentation, volume, blobs(), LABELS, "model")
    bundle = tmp_path / "Szene ü.mrb"
    assert scene.WriteToMRB(str(bundle))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(bundle))
    back = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    image = scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert np.array_equal(read_labels(back, image, LABELS), blobs())
