"""The server without any fsync of files, for the comparison with nginx's PUT, which has none.

Not a setting: nobody who keeps files should find it.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agentsight.server import app, opening
from agentsight.server.blobs.local import LocalBlobStore
from agentsight.server.front_door import FrontDoor
from agentsight.server.settings import Settings, load_settings


def _open_undurable(settings: Settings) -> LocalBlobStore:
    return LocalBlobStore(Path(unquote(urlsplit(settings.storage_url).path)), durable=False)


def make() -> FrontDoor:
    """Make the application: what uvicorn calls."""
    opening.open_store_of = _open_undurable
    return app.create_app(load_settings(os.environ))
