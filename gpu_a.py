"""Power and clocks under sustained products, cuBLAS and gated kernel."""
import subprocess, threading, time, torch
import torch.nn.functional as F
from penstock_kernels.gpu.hopper_gated import hopper_gated_linear, fills_hopper
torch.manual_seed(0)
L=6
shapes={'qkv':(6144,4096),'o':(4096,4096),'gu':(28672,4096),'down':(4096,14336)}
W={n:[torch.randn(s,device='cuda',dtype=torch.bfloat16)*0.02 for _ in range(L)] for n,s in shapes.items()}
samples=[]; stop=False
def watch():
    p=subprocess.Popen(['nvidia-smi','--query-gpu=clocks.sm,power.draw.instant,temperature.gpu,clocks_event_reasons.active','--format=csv,noheader,nounits','-lms','20'],stdout=subprocess.PIPE,text=True)
    for line in p.stdout:
        if stop: break
        a=line.split(','); samples.append((time.monotonic(),float(a[0]),float(a[1]),float(a[2]),a[3].strip()))
    p.kill()
t=threading.Thread(target=watch,daemon=True); t.start(); time.sleep(1)
def graph(f):
    for i in range(L): f(i)
    torch.cuda.synchronize(); g=torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        for i in range(L): f(i)
    return g
def sustained(name,f,flop,secs):
    g=graph(f); torch.cuda.synchronize(); time.sleep(0.25)
    a=torch.cuda.Event(enable_timing=True);b=torch.cuda.Event(enable_timing=True)
    g.replay(); torch.cuda.synchronize()
    a.record(); [g.replay() for _ in range(3)]; b.record(); b.synchronize(); cold=a.elapsed_time(b)/3/L*1e3
    t0=time.monotonic(); n=0; times=[]
    while time.monotonic()-t0<secs:
        a.record(); [g.replay() for _ in range(4)]; b.record(); b.synchronize(); times.append(a.elapsed_time(b)/4/L*1e3)
    hot=sum(times[len(times)//2:])/(len(times)-len(times)//2)
    s=[x for x in samples if x[0]>t0+secs/2]
    print(f"{name:22} cold {cold:8.1f} us {flop/cold/1e6:6.0f} TF | hot {hot:8.1f} us {flop/hot/1e6:6.0f} TF | clk {sum(x[1] for x in s)/len(s):.0f} W {sum(x[2] for x in s)/len(s):.0f} T {s[-1][3]:.0f} {s[-1][4]}",flush=True)
for M in (256,384,512,640,768,1024,1152,2048,4096):
    x={4096:torch.randn(M,4096,device='cuda',dtype=torch.bfloat16),14336:torch.randn(M,14336,device='cuda',dtype=torch.bfloat16)}
    out=torch.empty(M,14336,device='cuda',dtype=torch.bfloat16)
    def layer(i):
        for n,(a,b) in shapes.items(): F.linear(x[b],W[n][i])
    sustained(f'layer {M}',layer,M*436.2e6,1.2)
    if M in (384,512,1152,2048):
        for n,(a,b) in shapes.items(): sustained(f'{n} {M}',lambda i:F.linear(x[b],W[n][i]),2*M*a*b,0.6)
    if M>=512: sustained(f'gated kernel {M}',lambda i:hopper_gated_linear(x[4096],W['gu'][i],out),2*M*28672*4096,0.6)
z=torch.zeros(4096,4096,device='cuda',dtype=torch.bfloat16)
sustained('gu 4096 zeros',lambda i:F.linear(z,W['gu'][i]),2*4096*28672*4096,0.6)
stop=True
