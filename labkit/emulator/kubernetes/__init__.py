"""The Kubernetes half of the lab, from the top down.

`server` is one cluster's API server, an ASGI application. It puts together `controllers/` (what a controller manager
and a scheduler do), `api/` (how requests are answered), `access/` (who calls, and what they may do) and `objects/`
(the stored objects, and the kinds). Two parts are connected to it only by HTTP: `node/`, which runs containers as
processes of this machine, and `issuer`, which publishes a cluster's keys.
"""
