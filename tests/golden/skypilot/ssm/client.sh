# Written by haversack render skypilot, of snapshot 2026-11 (sha256:15c803c6332c…), declaration sha256:e3b0c44298fc….
# Read it into the shell of each client:  . client.sh
# Put the bin of the environment skypilot first on PATH: it was not installed when this was rendered.
export DO_NOT_TRACK=1
export SCARF_NO_ANALYTICS=1
export SKYPILOT_API_SERVER_ENDPOINT=http://127.0.0.1:46580
export SKYPILOT_DISABLE_LOCAL_API_SERVER=1
export SKYPILOT_DISABLE_USAGE_COLLECTION=1
