timeout 100 python3 -m pytest -m gpu tests/kernels/test_gpu.py -q -p no:cacheprovider 2>&1 | grep -v "^{" | tail -30 | cut -c1-300
timeout 60 python3 -m benchmarks.kernels.profile_step --rows 1 8 32 64 --mixed 32+352 --out $OUT/p8.json > $OUT/p8.txt 2>&1
grep "us a step" $OUT/p8.txt
timeout 120 python3 -m benchmarks.h100 --out $OUT --budget-seconds 115 --case single c8 c32 c64 agent1000 fewshot2000 2>&1 | cut -c1-1500
timeout 100 python3 -m benchmarks.h100 --out $OUT --budget-seconds 75 --shape llama-3.2-1b --case single c8 c32 c64 agent1000 2>&1| cut -c1-1500
timeout 50 python3 -m benchmarks.h100 --out $OUT/b16 --budget-seconds 49 --case agent1000 fewshot2000 c64 -- --kv-block-size 16 2>&1 | cut -c1-500
