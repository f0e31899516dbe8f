"""PythonQt's manner of Qt over PyQt6: properties are attributes, everything else is as in C++.

Small, and only what the extension's widget touches: an unknown property or method is an AttributeError, so
that a misspelt one fails the test. It stands in for the module ``qt`` of Slicer.
"""

from __future__ import annotations

from PyQt6 import QtCore, QtWidgets, uic

_BINDING = (QtCore.QObject,)


class Like:
    """A QObject as PythonQt shows it."""

    def __init__(self, real):
        object.__setattr__(self, "real", real)

    def __getattr__(self, name):
        real = object.__getattribute__(self, "real")
        if name == "name":
            return real.objectName()
        place = real.metaObject().indexOfProperty(name)
        if place >= 0:
            return real.metaObject().property(place).read(real)
        found = getattr(real, name)
        if isinstance(found, QtCore.pyqtBoundSignal) or not callable(found):
            return found
        return lambda *arguments: wrap(found(*(unwrap(each) for each in arguments)))

    def __setattr__(self, name, value):
        place = self.real.metaObject().indexOfProperty(name)
        if place < 0:
            raise AttributeError(f"{type(self.real).__name__} has no property {name!r}")
        if not self.real.metaObject().property(place).write(self.real, value):
            raise TypeError(f"{type(self.real).__name__}.{name} cannot be {value!r}")

    def __eq__(self, other):
        return isinstance(other, Like) and self.real is other.real

    def __hash__(self):
        return id(self.real)


def wrap(value):
    """Return objects of Qt as `Like`, everything else as it is."""
    if isinstance(value, list):
        return [wrap(each) for each in value]
    return Like(value) if isinstance(value, _BINDING) else value


def unwrap(value):
    """Return what is inside a `Like`."""
    return value.real if isinstance(value, Like) else value


def QTimer():
    """Return a timer."""
    return Like(QtCore.QTimer())


class QFile:
    """A file that `slicer.util.loadUI` opens."""

    ReadOnly = QtCore.QIODevice.OpenModeFlag.ReadOnly

    def __init__(self, path):
        self.path = path

    def exists(self):
        """Whether it exists."""
        return QtCore.QFile.exists(self.path)

    def open(self, mode):
        """Do nothing: the loader reads it."""


class QUiLoader:
    """Loads a ``.ui`` file."""

    def load(self, file):
        """Return its widget."""
        return Like(uic.loadUi(file.path))


def QWidget():
    """Return a widget."""
    return Like(QtWidgets.QWidget())
