"""The API's callers and their permissions.

`authentication` finds the caller. `tokens` issues and verifies service account tokens. `impersonation` lets a caller
act as another user. `authorization` decides by RBAC, and for nodes also by `node_authorization`. These two modules
compare requests with RBAC `rules`. `roles` has the roles that every cluster has from the start.
"""
