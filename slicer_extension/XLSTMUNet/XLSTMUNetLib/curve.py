"""The learning curve as MRML: a table, three series and a chart, which any plot view shows."""

from __future__ import annotations

from typing import Any

import vtk

from XLSTMUNetLib.state import Tuning

_TABLE = "xLSTM-UNet learning curve"
_COLUMNS = ("seconds", "loss", "held-out corrections", "check part")
_COLORS = ((0.5, 0.5, 0.5), (0.9, 0.5, 0.1), (0.2, 0.5, 0.9))


def has_curve(scene: Any) -> bool:
    """Whether the scene has a chart already."""
    return scene.GetFirstNode(_TABLE, "vtkMRMLPlotChartNode") is not None


def show_curve(scene: Any, tuning: Tuning) -> Any:
    """Write a curve into the scene's chart, making it if there is none; return the chart node."""
    table = _node(scene, "vtkMRMLTableNode", _TABLE)
    rows = sorted(
        [(seconds, loss, None, None) for seconds, loss in tuning.losses]
        + [(seconds, None, held_out, check) for seconds, held_out, check in tuning.scores],
        key=lambda row: row[0],
    )
    data = vtk.vtkTable()
    for place, name in enumerate(_COLUMNS):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        for row in rows:
            column.InsertNextValue(float("nan") if row[place] is None else row[place])
        data.AddColumn(column)
    table.SetAndObserveTable(data)
    chart = _node(scene, "vtkMRMLPlotChartNode", _TABLE)
    chart.SetTitle(_TABLE)
    chart.SetXAxisTitle("seconds")
    for name, color in zip(_COLUMNS[1:], _COLORS, strict=True):
        series = _node(scene, "vtkMRMLPlotSeriesNode", f"xLSTM-UNet {name}")
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(_COLUMNS[0])
        series.SetYColumnName(name)
        series.SetPlotType(series.PlotTypeScatter)
        series.SetColor(*color)
        if not chart.HasPlotSeriesNodeID(series.GetID()):
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return chart


def _node(scene: Any, kind: str, name: str) -> Any:
    node = scene.GetFirstNode(name, kind)
    return node if node is not None else scene.AddNewNodeByClass(kind, name)
