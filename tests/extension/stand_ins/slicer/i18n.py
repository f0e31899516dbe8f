"""Stands in for Slicer's translations: texts stay as they are."""


def tr(text):
    """Return the text."""
    return text


def translate(context, text):
    """Return the text."""
    return text
