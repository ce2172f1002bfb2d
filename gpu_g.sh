timeout 60 python3 -m pytest -m gpu tests/kernels/test_gpu.py -q -p no:cacheprovider -k stress 2>&1 | grep -v "^{" | tail -5 | cut -c1-300
timeout 70 python3 - <<'P'
import benchmarks.kernels.sweep as S, penstock_kernels.gpu.decode_attention as D
for m in (16,32,64):
    D.QUERY_ROWS=m; print('M',m,flush=True)
    for c in [(1,576,0),(8,576,0),(64,576,0),(16,7000,0),(64,1056,960),(32,2064,1984)]:
        S.decode_case(*c,32,8,128,64)
    for c in [(8,576,0),(64,576,0),(64,1056,960)]:
        S.decode_case(*c,32,8,64,64)
P
timeout 110 python3 -m benchmarks.h100 --out $OUT --budget-seconds 105 --case c128 c256 long 2>&1 | cut -c1-1500
timeout 100 python3 -m benchmarks.h100 --out $OUT/b16 --budget-seconds 95 --case agent1000 fewshot2000 c64 -- --kv-block-size 16 2>&1 | cut -c1-500
timeout 90 python3 -m pytest -m gpu tests/end_to_end/test_parity.py -q -k "one_gpu and (llama3 or mistral or qwen3)" -p no:cacheprovider 2>&1 | tail -5 | cut -c1-400
