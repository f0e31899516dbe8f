"""Measuring: scores of predictions, intervals of their means, and the objects themselves."""

from __future__ import annotations

from xlstm_unet.measure.bootstrap import Interval, bootstrap_interval
from xlstm_unet.measure.classes import ClassScores, score_classes
from xlstm_unet.measure.instances import (
    InstanceScores,
    Matches,
    match_instances,
    mean_scores,
    score_instances,
)
from xlstm_unet.measure.objects import ObjectMeasurement, measure_objects, write_measurements

__all__ = [
    "ClassScores",
    "InstanceScores",
    "Interval",
    "Matches",
    "ObjectMeasurement",
    "bootstrap_interval",
    "match_instances",
    "mean_scores",
    "measure_objects",
    "score_classes",
    "score_instances",
    "write_measurements",
]
