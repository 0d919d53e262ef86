"""A whole load, from its options to its report. Importing this imports the histogram's library, numpy and uvloop."""

from random import Random
from urllib.parse import quote, urlsplit

import uvloop

from clipper.client.http_api import HttpApi
from clipper.errors import ClipperError, InvalidArgument, RequestError, Unavailable
from clipper.load.asked import Asked
from clipper.load.inputs import Head, Requests, Sample, read_requests
from clipper.load.report import Report
from clipper.load.runner import PATIENCE_S, Plan, Runner, Watch, allow_files
from clipper.load.sender import Target
from clipper.tls.trust import ClientTls

# No load has so many queries, so the first query's input is not in the cache for the load.
_FIRST_NUMBER = 10**12


def carry_out(asked: Asked, watch: Watch) -> Report:
    """Send one query to see whether it is answered, then all of them.

    Raises:
        ClipperError: the inputs cannot be read or are not the application's, or the server is not there.
    """
    allow_files(asked.max_connections)
    parts = urlsplit(asked.query_url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise InvalidArgument(f"url is {asked.query_url!r}: expected http://HOST:PORT")
    path = f"{parts.path.rstrip('/')}/{quote(asked.application, safe='')}/predict"
    requests = _requests(asked, Head(parts.netloc, path, asked.api_key))
    is_tls = parts.scheme == "https"
    _ask_once(
        f"{parts.scheme}://{parts.netloc}",
        path,
        requests.of(_FIRST_NUMBER).partition(b"\r\n\r\n")[2],
        asked.slo_ms / 1e3,
        asked.tls,
        asked.api_key,
    )
    plan = Plan(
        target=Target(parts.hostname, parts.port or (443 if is_tls else 80), asked.tls.context if is_tls else None),
        requests=requests,
        arrivals=asked.arrivals,
        rate_per_s=asked.rate_per_s,
        duration_s=asked.duration_s,
        slo_ms=asked.slo_ms,
        max_connections=asked.max_connections,
    )

    async def go() -> Report:
        runner = Runner(plan, watch)
        done = await (runner.sweep() if asked.sweep else runner.one())
        return Report(
            application=asked.application,
            url=f"{parts.scheme}://{parts.netloc}{path}",
            arrivals=asked.arrivals,
            inputs=requests.what,
            slo_ms=asked.slo_ms,
            slo_of=asked.slo_of,
            max_connections=asked.max_connections,
            interrupted=done.interrupted,
            runs=done.runs,
            found=done.found,
        )

    return uvloop.run(go())


def _requests(asked: Asked, head: Head) -> Requests:
    if asked.inputs is not None:
        return read_requests(asked.inputs, head, asked.input_type)
    if asked.input_type is None:
        raise InvalidArgument("random inputs need the application's input type: give a file of inputs")
    return Sample(head, asked.input_type, asked.width, Random())


def _ask_once(url: str, path: str, body: bytes, slo_s: float, tls: ClientTls, api_key: str | None) -> None:
    """Before thousands of queries that are all wrong in the same way: report what is wrong with the first one."""
    api = HttpApi(url, lambda: api_key, tls, is_management=False)
    try:
        api.call("POST", path, body, slo_s + PATIENCE_S)
    except (RequestError, Unavailable):
        raise
    except ClipperError:
        pass  # the model's fault, or a lack of time: the load shows that
    finally:
        api.close()
