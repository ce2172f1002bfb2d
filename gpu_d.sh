timeout 60 python3 -m pytest -m gpu tests/shard/test_bfloat16.py tests/shard/test_mixed_steps.py -q -s -p no:cacheprovider 2>&1 | grep -v "^{" | grep "answers\|passed\|failed\|Error" | cut -c1-300 | tail
timeout 70 python3 -m benchmarks.kernels.profile_step --rows 1 8 64 --mixed 32+352 --out $OUT/p8.json > $OUT/p8.txt 2>&1
grep "decode\|merge\|mixed\|_kernel" $OUT/p8.txt | cut -c1-90 | grep -v "nvjet\|native\|  [0-4]\.[0-9] us" | tail -45
timeout 120 python3 -m benchmarks.h100 --out $OUT --budget-seconds 115 --case single c8 c32 c64 agent1000 fewshot2000 long 2>&1 | cut -c1-1500
timeout 100 python3 -m benchmarks.h100 --out $OUT --budget-seconds 75 --shape llama-3.2-1b --case single c8 c64 c256 agent1000 2>&1| cut -c1-1500
