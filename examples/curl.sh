#!/bin/sh
# Draw a picture with a running server, and save it: curl.sh [PROMPT] [FILE]
set -eu
server=${SERVER:-http://127.0.0.1:8765}
prompt=${1:-a red circle on a blue background}
file=${2:-drawn.png}

# A prompt may hold quotes, so that its JSON is written by a program that knows how.
body=$(python3 -c 'import json, sys; print(json.dumps({"prompt": sys.argv[1], "seed": 7}))' "$prompt")
job=$(curl -sSf "$server/api/jobs" -H 'Content-Type: application/json' -d "$body")
events=$(printf '%s' "$job" | python3 -c 'import json, sys; print(json.load(sys.stdin)["events"])')

# The stream ends with the job; its last event holds the picture's address.
last=$(curl -sSfN "$server$events" | grep '^data: ' | tail -n 1 | cut -c 7-)
url=$(printf '%s' "$last" | python3 -c 'import json, sys; print(json.load(sys.stdin)["images"][0]["url"])')
curl -sSf "$server$url" -o "$file"
echo "$file"
