"""A stand-in of the OpenAI platform: enough of it to mint, use, watch and revoke keys without leaving this machine.

It stands in for the part of OpenAI's administration API that Keyturn calls (projects, service accounts and their keys,
project keys, admin keys, completions usage, audit log) and for two calls that a key is good for (`GET /v1/models`,
`POST /v1/chat/completions`). Paths, parameters, bodies and errors follow OpenAI's published OpenAPI description (2026-08-21)
and the Python SDK 3.54.0 generated from a later one; a contract test holds every operation served against them.

It keeps to what a client may rely on and is strict where the vendor is silent: fields of a body that no route here reads are
refused, documented or not. Where no source says what OpenAI does, this is what the stand-in does:

- An expired key stays in the lists until it is deleted. The audit log's "tracking id" of a key is its key id.
- Deleting a service account, or archiving a project, deletes its keys.
- The keys of a service account without a role are refused for want of scopes, and hidden from the default key list.
- `last_used_at` and usage are exact and immediate; how fresh the real ones are is not documented.
- Cursors of deleted objects still work.

It does not have: users and invitations, roles, certificates, spend limits, data residency, per-model limits, streaming, or
any model. The chat answer is canned and repeats nothing of the prompt.

- `state.py`: what the organization holds, in one SQLite file; key values only as salted hashes.
- `wire.py`, `usage.py`, `errors.py`: the JSON that OpenAI answers with. `parameters.py`: what requests may carry.
- `control.py`: what a test or the demo may impose: delays, limits, faults; and the request log.
- `server.py`: the HTTP server. `harness.py`: the same server inside a test.
"""
