set -o pipefail
date +%T
timeout 150 python3 -m pytest -m gpu tests/kernels/test_triton.py tests/shard/test_mixed_steps.py tests/shard/test_cuda_graphs.py tests/shard/test_bfloat16.py -q -x -s -k "decode or prefill or backends or shared or long or count or graphs or tie" -p no:cacheprovider 2>&1 | grep -v "^{" | tail -40
date +%T
timeout 170 python3 -m benchmarks.h100 --out $OUT --budget-seconds 165 --case single c8 c32 c64 c128 c256 agent1000 fewshot2000 long 2>&1
tail -5 $OUT/*.log | cut -c1-300
date +%T
timeout 100 python3 -m benchmarks.h100 --out $OUT --budget-seconds 95 --shape llama-3.2-1b --case single c8 c32 c64 c128 c256 agent1000 2>&1
date +%T
