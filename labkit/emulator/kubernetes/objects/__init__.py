"""The ground: the API server's storage, and its knowledge of every kind of object.

`writes` (how objects change and go) and `paging` stand on `storage` (every object of one server), `storage` on
`status` (how a refusal is said) and `kinds` (the kinds that are served). `defaults`, `services`, `selectors`, `pods`,
`names` and `quantities` say more of objects; `schema` holds the types' fields.
"""
