"""Protocols that prove a model: accuracy, robustness, and comparison of networks."""

from __future__ import annotations
