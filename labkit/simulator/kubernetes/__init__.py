"""The Kubernetes half of the lab.

`server` is one cluster's API server, an ASGI application. The server combines four parts:
- `controllers/` does the work of a controller manager and a scheduler.
- `api/` answers requests.
- `access/` finds a request's caller, and what the caller may do.
- `objects/` has the stored objects, and what the server knows about each kind.

`node/` runs containers as processes of this machine, and calls the server over HTTPS.
"""
