"""``clipper dashboard``."""

from urllib.parse import quote

from clipper.api.dashboard.files import ROOT
from clipper.cli.options import AsJson, Home, Url
from clipper.cli.output import Output
from clipper.client import Clipper
from clipper.client.access import token_for_home, token_for_url
from clipper.settings.home import find_home


def dashboard(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Print a link to the dashboard that logs in, with CLIPPER_TOKEN if it is set. It is a secret, like the token.

    The link is not opened: it would be on a command line then, which other users of the machine can read.
    """
    place = find_home(home)
    with Clipper.connect(url, home) as clipper:
        # It also shows that the server takes the token.
        own = clipper.status().management_url
    source = token_for_home(place, None) if url is None else token_for_url(url, place, None)
    # After the #: a browser keeps it to itself, so it is in no log of a server or proxy.
    link = f"{(url or own).rstrip('/')}{ROOT}#token={quote(source() or '', safe='')}"
    Output(as_json).secret({"url": link}, link, "open it in a browser; whoever has the link has the token")
