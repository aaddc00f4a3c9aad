# Written by haversack render systemd, of snapshot 2026-11.
export SKYPILOT_API_SERVER_ENDPOINT='http://[::1]:18080'
export SKYPILOT_DISABLE_LOCAL_API_SERVER='1'
export SKYPILOT_DISABLE_USAGE_COLLECTION='1'
