"""The API server's answers.

`routes` sends a request for a resource to the module that answers it. `paths` answers everything else (health,
`discovery`). `resources` has the verbs of every kind, and `scale` has one subresource. `access_reviews` stores nothing.
`streams` passes exec, attach and logs on to a kubelet.

A write passes `admission` (with `node_restriction` and `escalation`, which each judge a `review`), `validation` (of
pods, of RBAC) and `managers`. A patch also passes `patches`. A read may return a table (`tables`) or a watch
(`watches`). All these modules take `requests`. A body may be `protobuf`.
"""
