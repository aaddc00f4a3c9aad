# Written by haversack render clients, of snapshot 2026-11 (sha256:16a0eeb0791b…).
# For locks that name files by URL (uv.lock, pylock.toml); their hashes stay, and are checked:
# sed -f locks.sed uv.lock > mirrored/uv.lock
s#https://files\.example\.org/#https://mirror.example.org/upstream/files.example.org/#g
