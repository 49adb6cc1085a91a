"""Who calls the API, and what they may do.

`impersonation` (a caller who acts as another) asks `authorization`, which asks RBAC and, for nodes,
`node_authorization`. Both read `rules`, and `roles` has those that every cluster starts with. `authentication` says
who calls; for service accounts `tokens` are issued and verified.
"""
