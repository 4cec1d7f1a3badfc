"""The server: stories as resources over HTTP, their making as events, and the interface of OpenAI's clients.

    from seedstory.server import ServerSettings, create_app

    app = create_app(pipeline, Path("stories"), ServerSettings())

It needs `pip install seedstory[server]`.
"""

from seedstory.server.app import create_app
from seedstory.server.settings import ServerSettings

__all__ = ["ServerSettings", "create_app"]
