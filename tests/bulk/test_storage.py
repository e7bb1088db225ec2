"""Images and results in S3, on a local server."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.paths import TINY

cv2 = pytest.importorskip("cv2")
fs = pytest.importorskip("pyarrow.fs", reason="needs the extra [parquet]")
server = pytest.importorskip("moto.server", reason="needs moto[server]")

from catdog_edge.bulk.storage import Folder, filesystem
from catdog_edge.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # moto's own


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The options of an address of a server with a bucket `shots`, which holds 7 files."""
    moto = server.ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    where = f"{moto.get_host_and_port()[0]}:{moto.get_host_and_port()[1]}"
    options = f"?scheme=http&endpoint_override={where}&region=us-east-1&allow_bucket_creation=true"
    system, _ = fs.FileSystem.from_uri(f"s3://shots{options}")
    system.create_dir("shots")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(5):
            colour = (0, 0, 200) if number % 2 else (200, 0, 0)
            data = cv2.imencode(".png", np.full((40, 60, 3), colour, np.uint8))[1].tobytes()
            archive.writestr(f"{number}.png", data)
            with system.open_output_stream(f"shots/in/day/{number}.png") as stream:
                stream.write(data)
    for name, data in (("in/none.jpg", b"no image"), ("a.zip", packed.getvalue())):
        with system.open_output_stream(f"shots/{name}") as stream:
            stream.write(data)
    yield options
    moto.stop()


def predict(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["predict", "--model", str(TINY), "--part", "2", *arguments])


def test_a_folder_and_an_archive_in_s3_and_results_there(bucket: str) -> None:
    out = f"s3://shots/out{bucket}"
    done = predict(f"s3://shots/in{bucket}", f"s3://shots/a.zip{bucket}", "--out", out)
    assert done.exit_code == 1, done.output  # for none.jpg
    folder = Folder(out)
    rows = []
    for name in sorted(folder.names()):
        with folder.open(name) as stream:
            if name.startswith("part-"):
                rows += [json.loads(line) for line in stream]
    labels = {row["file"]: row.get("label") for row in rows}
    assert len(rows) == len(labels) == 11
    for number in range(5):
        wanted = "cat" if number % 2 else "dog"
        assert labels[f"s3://shots/in/day/{number}.png"] == wanted
        assert labels[f"s3://shots/a.zip/{number}.png"] == wanted
    assert labels["s3://shots/in/none.jpg"] is None
    before = folder.names()
    again = predict(f"s3://shots/in{bucket}", f"s3://shots/a.zip{bucket}", "--out", out)
    assert "0 to do" in again.stderr
    assert folder.names() == before
    missing = predict(f"s3://shots/nothing{bucket}", "--out", out + "&x=1")
    assert missing.exit_code == 1


@pytest.mark.parametrize(("options", "seconds"), [("", 60), ("?retry_limit_seconds=7", 7)])
def test_google_gives_up_unless_told_otherwise(options: str, seconds: int) -> None:
    system, path = filesystem(f"gs://anonymous@shots/in{options}")
    assert path == "shots/in"
    # It has no property of it.
    assert system.__reduce__()[1][0]["retry_time_limit"] == timedelta(seconds=seconds)
