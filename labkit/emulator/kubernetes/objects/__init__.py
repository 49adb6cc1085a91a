"""The API server's storage, and the facts about every kind of object.

`writes` (changes and deletions) and `paging` use `storage` (all objects of one server). `storage` uses `status` (the
API's refusals) and `kinds` (the kinds that the server has). `defaults`, `services`, `selectors`, `pods`, `names` and
`quantities` are about single objects. `schema` has the fields of their types.
"""
