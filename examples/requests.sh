#!/usr/bin/env bash
# The routes that one needs first, with curl and nothing else.
set -euo pipefail
url=${PENSTOCK_URL:-http://127.0.0.1:3000}
json=(-H 'Content-Type: application/json' -H "Authorization: Bearer ${PENSTOCK_API_KEY:--}")

echo '# is it ready?'
curl -fsS -o /dev/null -w '%{http_code}\n' "$url/ready"

echo '# a chat'
curl -fsS "$url/v1/chat/completions" "${json[@]}" -d '{
  "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'
echo

echo '# the same as a stream'
curl -fsSN "$url/v1/chat/completions" "${json[@]}" -d '{"stream": true,
  "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'

echo '# held to an expression'
curl -fsS "$url/generate" "${json[@]}" -d '{"inputs": "The moon landing was in ",
  "parameters": {"max_new_tokens": 8, "grammar": {"type": "regex", "value": "19[0-9]{2}"}}}'
echo

echo '# how many tokens are that?'
curl -fsS "$url/tokenize" "${json[@]}" -d '{"inputs": "What is the capital of France?"}'
echo

echo '# what is wrong with this one?'
curl -sS -w '\n%{http_code}\n' "$url/generate" "${json[@]}" -d '{"inputs": "x",
  "parameters": {"top_p": 5}}'
