#!/usr/bin/env bash
# Measure a server twice and compare: what to do before and after a change of options or version.
set -euo pipefail
url=${PENSTOCK_URL:-http://127.0.0.1:3000}
prompts=${PROMPTS:-8}
folder=$(mktemp -d)
run=(penstock bench serve --url "$url" --input-len 64 --output-len 16 --num-prompts "$prompts"
  --max-concurrency 1 4 --disable-tqdm)

"${run[@]}" --out "$folder/before.json"
# ... the change would be here ...
# What became worse by more than the tolerance is named, and the exit code is then 1.
"${run[@]}" --out "$folder/after.json" --compare "$folder/before.json" \
  --tolerance "${TOLERANCE:-0.05}"
