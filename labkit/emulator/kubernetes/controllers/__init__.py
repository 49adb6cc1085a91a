"""The work of a controller manager and a scheduler.

`controllers` has namespaces, cascading deletion and scheduling (`fit`). It runs `deployments` (with `rollout`) and
`replicasets`, each with a `workqueue`. `aggregation` and `token_secrets` run beside it. All of them write through
`client` and record `events`, which `event_expiry` removes. `owners` finds an object's dependents.
"""
