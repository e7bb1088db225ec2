# noqa: N999 - PyInstaller wants this name
"""What PyInstaller does not see by itself: the shipped models, and modules that run as children."""

from pathlib import Path

import catdog_edge

datas = [(str(Path(catdog_edge.__file__).parent / "zoo"), "catdog_edge/zoo")]
hiddenimports = ["catdog_edge.camera.capture_process", "catdog_edge.events.video"]
