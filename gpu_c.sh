timeout 60 python3 -m pytest -m gpu tests/shard/test_bfloat16.py -q -s -p no:cacheprovider 2>&1 | grep -v "^{" | grep "answers\|passed\|failed\|Error" | tail -30
timeout 100 python3 -m benchmarks.kernels.profile_step --rows 1 8 32 64 128 --out $OUT/p8.json
timeout 60 python3 -m benchmarks.kernels.profile_step --shape llama-3.2-1b --rows 1 8 64 --mixed 64+320 --out $OUT/p1.json
