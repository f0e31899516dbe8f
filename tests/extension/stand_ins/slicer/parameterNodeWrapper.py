"""Stands in for Slicer's parameter node wrapper: annotated attributes, stored in a real parameter node.

Nodes are node references, an enum is its name, everything else is its text. Widgets whose property
``SlicerParameterName`` names an attribute follow it, and it follows them.
"""

import enum

import slicer
import vtk


def parameterNodeWrapper(cls):
    """Make annotated attributes of a class live in a parameter node."""
    for name, kind in cls.__annotations__.items():
        setattr(cls, name, _parameter(name, kind, cls.__dict__.get(name)))
    cls.__init__ = _init
    for method in (AddObserver, RemoveObserver, connectGui, disconnectGui):
        setattr(cls, method.__name__, method)
    return cls


def _init(self, node):
    self.parameterNode = node
    self._connected = []


def _parameter(name, kind, default):
    is_node = isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)

    def read(self):
        if is_node:
            return self.parameterNode.GetNodeReference(name)
        text = self.parameterNode.GetParameter(name)
        if text == "":
            return default
        if issubclass(kind, enum.Enum):
            return kind[text]
        return text == "True" if kind is bool else kind(text)

    def write(self, value):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name} is {value!r}, expected {kind}")
        if is_node:
            self.parameterNode.SetNodeReferenceID(name, value.GetID() if value is not None else None)
            self.parameterNode.Modified()
        else:
            self.parameterNode.SetParameter(name, value.name if isinstance(value, enum.Enum) else str(value))

    return property(read, write)


def AddObserver(self, event, method, priority=0.0):
    """Observe the node."""
    return self.parameterNode.AddObserver(event, method, priority)


def RemoveObserver(self, tag):
    """Observe it no more."""
    self.parameterNode.RemoveObserver(tag)


def connectGui(self, ui):
    """Tie widgets to attributes; return a tag for `disconnectGui`."""
    for widget in vars(ui).values():
        name = widget.property("SlicerParameterName")
        if name:
            kind = type(self).__annotations__[name]
            self._connected.append(_connect(self, widget, name, kind))
    return 1


def disconnectGui(self, tag):
    """Untie them."""
    for disconnect in self._connected:
        disconnect()
    self._connected = []


def _connect(self, widget, name, kind):
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        items = list(kind)
        widget.clear()
        for item in items:
            widget.addItem(item.label())
        signal = widget.currentIndexChanged
        read, write = (
            lambda: items[widget.currentIndex],
            lambda value: setattr(widget, "currentIndex", items.index(value)),
        )
    elif kind is bool:
        signal = widget.toggled
        read, write = lambda: widget.checked, lambda value: setattr(widget, "checked", value)
    else:
        signal = widget.currentNodeChanged
        read, write = widget.currentNode, widget.setCurrentNode

    def from_widget(*_):
        if getattr(self, name) != read():
            setattr(self, name, read())

    def to_widget(*_):
        if getattr(self, name) != read():
            write(getattr(self, name))

    to_widget()
    signal.connect(from_widget)
    tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, to_widget)

    def disconnect():
        signal.disconnect(from_widget)
        self.parameterNode.RemoveObserver(tag)

    return disconnect
