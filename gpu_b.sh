set -o pipefail
date +%T
timeout 80 python3 -m pytest -m gpu tests/shard/test_mixed_steps.py tests/shard/test_cuda_graphs.py tests/shard/test_bfloat16.py -q -x -s -k "graphs or tie" -p no:cacheprovider 2>&1 | grep -v "^{" | tail -30
date +%T
timeout 150 python3 -m benchmarks.h100 --out $OUT --budget-seconds 145 --case single c8 c32 c64 c128 c256 agent1000 fewshot2000 long 2>&1 | cut -c1-1500
grep -h "captured\|ready" $OUT/*.log | cut -c1-300
date +%T
timeout 90 python3 -m benchmarks.h100 --out $OUT --budget-seconds 85 --shape llama-3.2-1b --case single c8 c32 c64 c128 c256 agent1000 2>&1| cut -c1-1500
date +%T
