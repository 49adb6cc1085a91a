"""What a controller manager and a scheduler do.

`controllers` has namespaces, cascading deletion and scheduling (`fit`), and runs `deployments` (with `rollout`) and
`replicasets`, each with a `workqueue`; beside it, `aggregation` and `token_secrets`. They write through `client`,
tell of it in `events` (which go by `event_expiry`), and find what belongs to an object by `owners`.
"""
