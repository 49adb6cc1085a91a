"""The API server's answers.

`routes` sends a request for a resource to the module that answers it. `paths` answers everything else (health,
`discovery`). `resources` has the verbs of every kind, and `scale` a subresource. `access_reviews` stores nothing.
`streams` passes exec, attach and logs on to a kubelet.

A write goes through `admission` (with `node_restriction` and `escalation`, which each judge a `review`), `validation`
(of pods, of RBAC) and `managers`; a patch also through `patches`. A read may return a table (`tables`) or a watch
(`watches`). All of them get `requests`; a body may be `protobuf`.
"""
