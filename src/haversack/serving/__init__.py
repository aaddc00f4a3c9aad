"""The live server: snapshots of a store over HTTP, read only.

``requests`` and ``answers`` are pure; ``http`` moves bytes between sockets and them; ``site`` knows what a
snapshot shows at which path; ``app`` says what a request gets.  Nothing here writes to the store.
"""
