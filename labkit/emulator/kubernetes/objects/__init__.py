"""The API server's storage, and its knowledge of every kind of object.

`writes` (changes and deletions) and `paging` use `storage` (all objects of one server). `storage` uses `status` (the
API's refusals) and `kinds` (the kinds that are served). `defaults`, `services`, `selectors`, `pods`, `names` and
`quantities` are about objects. `schema` has the fields of their types.
"""
