"""A hook as a router of FastAPI; needs `assent[fastapi]`.

```python
app = FastAPI()
app.include_router(hook_router("/assent", decide))
```
"""

from fastapi import APIRouter

from assent.hook import AsyncHook, Hook
from assent.starlette import hook_route


def hook_router(path: str, hook: Hook | AsyncHook, *, token: str | None = None) -> APIRouter:
    """Return a router that serves a hook; see `assent.starlette.hook_route`."""
    return APIRouter(routes=[hook_route(path, hook, token=token)])
