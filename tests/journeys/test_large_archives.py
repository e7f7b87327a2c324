"""A ZIP of more than 4 GiB, made while it is sent: ZIP64, in little memory (`make soak`)."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from urllib.request import Request, urlopen

from agentsight import _contract as contract
from tests.support.server import LiveServer
from tests.support.soak import only_in_soak

SIZE_BYTES = 4_400_000_000
MIB = 1 << 20


@only_in_soak
def test_a_file_of_more_than_four_gigabytes_is_in_the_zip_with_what_follows(tmp_path: Path) -> None:
    """Its size, its checksum and the place of the file behind it need more than 32 bits."""
    limits = {f"AGENTSIGHT_MAX_{name}_BYTES": "6000000000" for name in ("FILE", "REQUEST")}
    large = tmp_path / "large.bin"
    large.touch()
    os.truncate(large, SIZE_BYTES)
    with LiveServer(tmp_path, settings=limits) as server:
        agent = server.make_agent()
        body = {"filename": "large.bin", "size_bytes": SIZE_BYTES}
        made = server.post_json(contract.UPLOADS_PATH, body, key=agent.write_key).json
        key = {"Authorization": f"Api-Key {agent.write_key}", "Content-Length": str(SIZE_BYTES)}
        with large.open("rb") as content:
            request = Request(made["upload_url"], content, key, method="PUT")
            with urlopen(request) as answer:
                assert answer.status == 200
        after = {"filename": "after.txt", "data": base64.b64encode(b"after").decode()}
        item = {"type": "attachments", "attachments": [{"upload": made["uid"]}, after]}
        batch = {"conversation": {"conversation_id": "c"}, "items": [item]}
        assert server.post_json(contract.BATCH_PATH, batch, key=agent.write_key).status == 200
        path = f"{contract.V1_CONVERSATIONS_PATH}by-id/c/attachments/zip/"
        request = Request(server.base_url + path, headers={"Authorization": key["Authorization"]})
        zipped = tmp_path / "all.zip"
        with urlopen(request) as answer, zipped.open("wb") as out:
            shutil.copyfileobj(answer, out, MIB)
        status = Path(f"/proc/{server.pid}/status").read_text()
        [peak] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        assert int(peak.split()[1]) * 1024 < 256 * MIB
    with zipfile.ZipFile(zipped) as archive:
        sizes = {Path(info.filename).name: info.file_size for info in archive.infolist()}
        assert sizes["large.bin"] == SIZE_BYTES
        [name] = [name for name in archive.namelist() if name.endswith("after.txt")]
        assert archive.read(name) == b"after"
        assert archive.testzip() is None
    unzip = shutil.which("unzip")
    if unzip:
        assert subprocess.run([unzip, "-tq", str(zipped)], check=False).returncode == 0
