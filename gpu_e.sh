mkdir -p $OUT; timeout 170 python3 -m benchmarks.kernels.chain --out $OUT/chain.json
