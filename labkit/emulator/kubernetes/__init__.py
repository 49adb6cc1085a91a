"""The Kubernetes half of the lab.

`server` is one cluster's API server, an ASGI application. It combines four parts: `controllers/` do the work of a
controller manager and a scheduler, `api/` answers requests, `access/` has callers and their permissions, and `objects/`
has the stored objects and their kinds. Two parts are connected to it only by HTTP: `node/`, which runs containers as
processes of this machine, and `issuer`, which publishes a cluster's keys.
"""
