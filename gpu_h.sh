timeout 75 python3 -m pytest -m gpu tests/end_to_end/test_parity.py -q -x -k "one_gpu and qwen3" -p no:cacheprovider --tb=short 2>&1 | grep -v "^{\|timestamp" | tail -40 | cut -c1-600
timeout 100 python3 - <<'P'
import benchmarks.kernels.sweep as S, penstock_kernels.gpu.decode_attention as D
import io, contextlib
cases=[(1,576,0,128),(8,576,0,128),(32,576,0,128),(64,576,0,128),(128,576,0,128),(16,7000,0,128),(64,1056,960,128),(32,2064,1984,128),(1,200,0,64),(8,576,0,64),(64,576,0,64),(256,576,0,64),(64,1056,960,64)]
for keys,warps,stages in [(64,4,3),(64,4,2),(32,4,3),(32,4,4),(32,2,4),(64,8,3),(128,4,2),(64,2,2),(64,2,3)]:
    D.KEYS,D.WARPS,D.STAGES=keys,warps,stages
    row=[]
    for r,c,s,d in cases:
        with contextlib.redirect_stdout(io.StringIO()):
            x=S.decode_case(r,c,s,32,8,d,64)
        row.append(f"{x['together' if s else 'apart']['us']:.1f}")
    print(keys,warps,stages,' '.join(row),flush=True)
P
