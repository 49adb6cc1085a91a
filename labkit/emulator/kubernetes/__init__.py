"""The Kubernetes half of the lab, from the top to the ground.

`server` is one cluster's API server, an ASGI application. It puts together `controllers/` (what a controller manager
and a scheduler do), `api/` (how requests are answered), `access/` (who calls, and what they may do) and `objects/`
(the stored objects, and what every kind is). Joined to it by HTTP alone: `node/`, which runs containers as
processes of this machine, and `issuer`, where the public finds a cluster's keys.
"""
