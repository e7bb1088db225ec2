"""Parts of the study of what `Classifier` costs."""

from __future__ import annotations

import pytest
from support.paths import TINY

from benchmarks.studies.classifier_overhead import _paced, picture
from catdog_edge import Classifier

pytestmark = pytest.mark.train


def test_a_paced_loop_counts_the_processor_time_of_its_frames_alone() -> None:
    with Classifier(TINY, "cpu", threads=1) as pets:
        found = _paced(pets, picture(*pets.spec.size), seconds=0.15)
    assert 0 <= found["processor_ms"] < 50
    assert 0 < found["wait_p50_ms"] <= found["wait_p95_ms"]
