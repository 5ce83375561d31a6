"""What the page asks, through ComfyUI's own server, so that it works from another computer.

    GET  /luna/status                     the queue, the decoders, and how Luna is reached
    GET  /luna/jobs                       this ComfyUI's jobs with their nodes, newest first
    POST /luna/jobs/<id>/cancel, /retry
    POST /luna/prompts/<prompt id>/cancel the jobs of a prompt that have not ended

Questions to the daemon run on a thread of asyncio's pool: ComfyUI's loop never waits.
"""

import asyncio
import logging
import re

from .ids import renamed
from .luna_client import RC_BAD_REQUEST, RC_NOT_FOUND, LibraryMissing, LunaError
from .session import session

_ASK_MS = 2000
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_STATUS = {"not_found": 404, "exists": 409, "cancelled": 409, "bad_request": 400}

_log = logging.getLogger("luna")


def add(server):
    """Adds the routes to a PromptServer, and the look at what is queued."""
    from aiohttp import web

    def route(method, path, work):
        async def handle(request):
            ids = dict(request.match_info)
            loop = asyncio.get_running_loop()
            try:
                body = await loop.run_in_executor(None, lambda: work(**ids))
                return web.json_response(body)
            except (LunaError, LibraryMissing, OSError) as error:
                word = getattr(error, "word", "unavailable")
                return web.json_response({"error": word, "detail": str(error)},
                                         status=_STATUS.get(word, 503))
        server.routes.route(method, path)(handle)

    route("GET", "/luna/status", status)
    route("GET", "/luna/jobs", jobs)
    route("POST", "/luna/jobs/{job_id}/{order}", order_job)
    route("POST", "/luna/prompts/{prompt_id}/cancel", cancel_prompt)
    if hasattr(server, "add_on_prompt_handler"):
        server.add_on_prompt_handler(renamed)


def status():
    luna = session()
    found = {"available": luna.available(), "binding": luna.client.binding,
             "endpoint": luna.client.endpoint, "unsettled": luna.client.unsettled()[0],
             "outbox": luna.outbox}
    try:
        if found["available"]:
            found["queue"] = luna.client.status(_ASK_MS)
            found["decoders"] = luna.client.decoders(_ASK_MS)
    except LunaError as error:  # it went away just now
        found["detail"] = str(error)
    return found


def jobs():
    return {"jobs": session().follower.summaries()[::-1]}


def order_job(job_id, order):
    luna = session()
    if not _ID.match(job_id):
        raise LunaError(RC_BAD_REQUEST, "bad_request", "a job's id is a UUID in small letters")
    if order == "cancel":
        luna.client.cancel(job_id, _ASK_MS)
        luna.follower.wake()
    elif order == "retry":
        luna.follower.retry(job_id)
    else:
        raise LunaError(RC_NOT_FOUND, "not_found", f"there is no order {order}")
    return {"job_id": job_id, "order": order}


def cancel_prompt(prompt_id):
    luna, cancelled = session(), []
    for job_id in luna.follower.of_prompt(prompt_id):
        try:
            luna.client.cancel(job_id, _ASK_MS)
            cancelled.append(job_id)
        except LunaError as error:
            _log.warning("%s", error)
    luna.follower.wake()
    return {"cancelled": cancelled}
