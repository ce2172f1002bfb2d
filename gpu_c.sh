timeout 60 python3 -m pytest -m gpu tests/kernels/test_triton.py -q -k "argmax or rope or shared" -p no:cacheprovider 2>&1 | tail -5
timeout 60 python3 -m pytest -m gpu tests/shard/test_bfloat16.py -q -s -p no:cacheprovider 2>&1 | grep -v "^{" | grep "answers\|passed\|failed\|Error" | cut -c1-300 | tail
timeout 100 python3 -m benchmarks.kernels.profile_step --rows 1 8 32 64 --out $OUT/p8.json > $OUT/p8.txt 2>&1
grep -v "^{" $OUT/p8.txt | cut -c1-90 | grep -v "  [0-4]\.[0-9] us" | tail -85
timeout 60 python3 -m benchmarks.kernels.profile_step --shape llama-3.2-1b --rows 1 64 --mixed 64+320 --out $OUT/p1.json > $OUT/p1.txt 2>&1
grep -v "^{" $OUT/p1.txt | cut -c1-90 | grep -v "  [0-4]\.[0-9] us" | tail -45
