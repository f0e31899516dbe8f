"""A small live chart of fine-tuning: the loss, and the scores where they were taken."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_xlstm_unet.learn_state import Curve

HEIGHT = 132
LOSS, HELD_OUT, CHECK = QColor("#8a929c"), QColor("#f59e1c"), QColor("#4aa3df")
_FRAME, _TEXT = QColor("#5a626c"), QColor("#aab2bc")
_LEFT, _RIGHT, _TOP, _BOTTOM = 30, 8, 20, 18

Points = Sequence[tuple[float, float]]


class CurveView(QWidget):
    """Scores from 0 to 1 on the left axis, seconds below; the loss is drawn against its own highest value."""

    def __init__(self) -> None:
        super().__init__()
        self._curve = Curve()
        self._seconds = 1.0
        self.setFixedHeight(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Orange: score on corrections that were kept back. Blue: score on what the model knew before. "
            "Gray: loss, against its highest value."
        )

    def show_curve(self, curve: Curve, budget: float) -> None:
        """Draw a curve of at most ``budget`` seconds, or longer if it is."""
        self._curve = curve
        last = max(
            (points[-1][0] for points in (curve.loss, curve.held_out, curve.check) if points), default=0
        )
        self._seconds = max(budget if last < budget else last, 1.0)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(_LEFT, _TOP, self.width() - _LEFT - _RIGHT, self.height() - _TOP - _BOTTOM)
        font = painter.font()
        font.setPointSizeF(8)
        painter.setFont(font)
        self._draw_axes(painter, area)
        curve = self._curve
        highest = max((loss for _, loss in curve.loss), default=0.0)
        if highest > 0:
            relative = [(seconds, loss / highest) for seconds, loss in _thinned(curve.loss)]
            self._draw_line(painter, area, relative, QPen(LOSS, 1.0), dots=False)
        for points, colour in ((curve.check, CHECK), (curve.held_out, HELD_OUT)):
            self._draw_line(painter, area, points, QPen(colour, 2.0), dots=True)
        self._draw_legend(painter)
        painter.end()

    def _draw_axes(self, painter: QPainter, area: QRectF) -> None:
        painter.setPen(QPen(_FRAME, 1.0))
        painter.drawRect(area)
        for score in (0.0, 0.5, 1.0):
            y = area.bottom() - score * area.height()
            painter.setPen(QPen(_FRAME, 1.0, Qt.PenStyle.DotLine))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(_TEXT)
            box = QRectF(0, y - 8, _LEFT - 5, 16)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{score:.1f}")
        below = QRectF(area.left(), area.bottom() + 1, area.width(), _BOTTOM - 2)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop, "0 s")
        painter.drawText(
            below, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignTop, f"{self._seconds:.0f} s"
        )

    def _draw_line(self, painter: QPainter, area: QRectF, points: Points, pen: QPen, *, dots: bool) -> None:
        places = [
            QPointF(
                area.left() + area.width() * min(seconds / self._seconds, 1.0),
                area.bottom() - area.height() * min(max(value, 0.0), 1.0),
            )
            for seconds, value in points
        ]
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF(places))
        if dots:
            painter.setBrush(pen.color())
            for place in places:
                painter.drawEllipse(place, 2.0, 2.0)

    def _draw_legend(self, painter: QPainter) -> None:
        x = float(_LEFT)
        for text, colour, shown in (
            ("corrections", HELD_OUT, self._curve.held_out),
            ("what it knew", CHECK, self._curve.check),
            ("loss", LOSS, self._curve.loss),
        ):
            if shown:
                painter.setPen(colour)
                painter.drawText(QPointF(x, _TOP - 6), text)
                x += painter.fontMetrics().horizontalAdvance(text) + 12


def _thinned(points: Points, most: int = 300) -> Points:
    """Return at most about ``most`` of the points, evenly."""
    step = -(-len(points) // most)
    return points[:: max(step, 1)]
