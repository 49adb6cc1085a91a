"""The API's callers and their permissions.

`authentication` finds the caller. `tokens` issues and verifies service account tokens. `impersonation` lets a caller
act as another user. `authorization` decides what a caller may do, by RBAC. For nodes, it also uses
`node_authorization`. `rules` compares a request with RBAC rules. `roles` has the roles that every cluster has from the
start.
"""
