"""The work of a controller manager and a scheduler.

`controllers` empties namespaces, aggregates roles, cascades deletions, and schedules pods (with `fit`). It also runs
the Deployment controller (`deployments`, with `rollout`) and the ReplicaSet controller (`replicasets`). Each of these
two has a `workqueue`. `token_secrets` is one more controller.

`client` changes the cluster as a controller's service account. `events` writes events, and removes old ones. `owners`
finds an object's dependents.
"""
