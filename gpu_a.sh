timeout 100 python3 gpu_a.py 2>&1 | tail -60
timeout 150 python3 -m benchmarks.kernels.profile_step --rows 8 32 64 128 256 --mixed 32+224 32+352 32+480 64+320 64+448 64+704 128+256 128+384 128+512 128+640 128+1024 256+512 256+896 256+1024 256+1792 8+376 8+1144 8+2040 --out $OUT/steps.json 2>&1 | grep -E "us a step|prefill of" | tail -40
