import subprocess, threading, time, tempfile
from pathlib import Path
from benchmarks.cases import CASES
from benchmarks.configs import write_model_folder
from benchmarks.load import Target, run_case
from benchmarks.server import penstock
from benchmarks.h100 import LIMITS, WARM_UP, token_range
samples=[]
def watch():
    p=subprocess.Popen(['nvidia-smi','--query-gpu=clocks.sm,power.draw.instant,power.draw.average,temperature.gpu,clocks_event_reasons.active','--format=csv,noheader,nounits','-lms','20'],stdout=subprocess.PIPE,text=True)
    for line in p.stdout:
        a=line.split(','); samples.append((time.monotonic(),float(a[0]),float(a[1]),float(a[2]),float(a[3]),int(a[4],16)))
def main():
    threading.Thread(target=watch,daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        model=write_model_folder('llama-3.1-8b',Path(folder))
        with penstock(['--model-id',str(model),'--load-format','dummy',*LIMITS],Path('/tmp/log'),ready_seconds=90) as server:
            t=Target(url=server.url,processes=8,token_range=token_range('llama-3.1-8b'),max_seconds=60)
            run_case(t,WARM_UP)
            for c in ('c8','c32','c64','c128','c256','long'):
                t0=time.monotonic(); r=run_case(t,CASES[c]); t1=time.monotonic()
                s=[x for x in samples if t1-r['seconds']<x[0]<t1-.3]
                w=sorted(x[2] for x in s); k=sorted(x[1] for x in s)
                q=lambda v,f:v[int(len(v)*f)] if v else 0
                print(c,f"{r['output_tokens_per_second']:.0f} n {len(s)} W mean {sum(w)/len(w):.0f} p10 {q(w,.1):.0f} p50 {q(w,.5):.0f} p90 {q(w,.9):.0f} | avgW {q([x[3] for x in s],.5):.0f} clk mean {sum(k)/len(k):.0f} p10 {q(k,.1):.0f} p50 {q(k,.5):.0f} p90 {q(k,.9):.0f} T {s[-1][4]} capped {sum(1 for x in s if x[5]&4)/len(s):.2f}",flush=True)
                time.sleep(0.5)
if __name__=='__main__': main()
