"""A hook as a route of Starlette; needs `assent[starlette]`.

An error of the hook is raised, as any endpoint's: the server logs it and answers 500; the
agent asks again, a few times.
"""

from inspect import iscoroutinefunction
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from assent._json import write_json
from assent.hook import (
    QUESTION_BYTES_MAX,
    AsyncHook,
    Hook,
    answer,
    answer_async,
    is_allowed,
    read_question,
)


def hook_route(path: str, hook: Hook | AsyncHook, *, token: str | None = None) -> Route:
    """Return a route that serves a hook; one that is no coroutine runs in a thread.

    `token` is that of the agent's `hook_token_file`.
    """

    async def endpoint(request: Request) -> Response:
        if not is_allowed(token, request.headers.get("authorization")):
            return PlainTextResponse("the token is missing or wrong", 401)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > QUESTION_BYTES_MAX:
                return PlainTextResponse("the body is too large", 413)
        try:
            question = read_question(bytes(body))
        except ValueError as error:
            return PlainTextResponse(str(error), 400)
        answered: dict[str, Any]
        if iscoroutinefunction(hook):
            answered = await answer_async(question, hook)
        else:
            answered = await run_in_threadpool(answer, question, cast(Hook, hook))
        return Response(write_json(answered), media_type="application/json")

    return Route(path, endpoint, methods=["POST"])
