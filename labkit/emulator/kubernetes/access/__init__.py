"""The API's callers and their permissions.

`authentication` finds the caller, and `tokens` issues and verifies the tokens of service accounts. `impersonation` lets
a caller act as another user. `authorization` asks RBAC and, for nodes, `node_authorization`. Both use `rules`. `roles`
has the roles that every cluster starts with.
"""
