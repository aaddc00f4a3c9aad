# Written by haversack render skypilot.
# Read it into the shell, or the unit, of the API server and of each client:  . env.sh
export DO_NOT_TRACK=1
export PIP_NO_BUILD_ISOLATION=0
export SCARF_NO_ANALYTICS=1
export SKYPILOT_API_SERVER_ENDPOINT=http://127.0.0.1:46580
export SKYPILOT_DISABLE_USAGE_COLLECTION=1
