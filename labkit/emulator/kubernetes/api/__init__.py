"""How the API server answers.

`routes` finds who answers a request for a resource, and `paths` answers everything else (health, `discovery`).
`resources` has the verbs of every kind, `scale` a subresource; `access_reviews` answers at once and stores nothing;
`streams` passes exec, attach and logs on to a kubelet. A write goes through `admission` (with `node_restriction` and
`escalation`, each judging a `review`), `validation` (of pods, of RBAC) and `managers`, a patch through `patches`; a
read may be a table (`tables`) or a watch (`watches`). All of them read `requests`; a body may be `protobuf`.
"""
