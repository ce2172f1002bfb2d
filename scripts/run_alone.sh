#!/bin/sh
# The tests that failed last, each in a process of its own with nothing beside it.
#   run_alone.sh CODE PYTHON MOST
# CODE is pytest's; only 1 says that tests failed, and another is returned at once. Fails if there
# are more than MOST, or if one fails again. Says which passed, so that nobody takes them for sound:
# a test that fails beside others is a defect, of itself or of what it tests.
set -u
code=$1 python=$2 most=$3
[ "$code" -eq 1 ] || exit "$code"
failed=$("$python" -c '
import json
try:
    print("\n".join(json.load(open(".pytest_cache/v/cache/lastfailed"))))
except FileNotFoundError:
    pass')
count=$(printf '%s' "$failed" | grep -c .)
if [ "$count" -eq 0 ] || [ "$count" -gt "$most" ]; then
  exit 1
fi
printf '%s\n' "$failed" | {
  code=0
  while IFS= read -r test; do
    echo "=== again, alone: $test"
    if "$python" -m pytest -q -p no:cacheprovider "$test" < /dev/null; then
      echo "=== failed beside others, passed alone: $test"
    else
      code=1
    fi
  done
  exit "$code"
}
