"""The work of a controller manager and a scheduler.

`controllers` empties namespaces, cascades deletions, and schedules pods (with `fit`). It also runs the Deployment
controller (`deployments`, with `rollout`) and the ReplicaSet controller (`replicasets`). Each of these two has a
`workqueue`. `aggregation` and `token_secrets` are two more controllers.

`client` changes the cluster as a controller's service account. `events` writes events, and `event_expiry` removes old
ones. `owners` finds an object's dependents. `namespace_conditions` says why a deleted namespace still exists.
"""
