import torch, json, os
dev='cuda'
def bench(hidden, inter, qkv, layers, Ms):
    W=[(torch.randn(qkv,hidden,device=dev,dtype=torch.bfloat16)*.02, torch.randn(hidden,hidden,device=dev,dtype=torch.bfloat16)*.02, torch.randn(2*inter,hidden,device=dev,dtype=torch.bfloat16)*.02, torch.randn(hidden,inter,device=dev,dtype=torch.bfloat16)*.02) for _ in range(layers)]
    out={}
    for M in Ms:
        x=torch.randn(M,hidden,device=dev,dtype=torch.bfloat16); a=torch.randn(M,inter,device=dev,dtype=torch.bfloat16)
        res=[]
        for which in ([0],[1],[2],[3],[0,1,2,3]):
            def f():
                for w in W:
                    for i in which:
                        torch.mm(a if i==3 else x, w[i].t())
            f(); torch.cuda.synchronize()
            g=torch.cuda.CUDAGraph()
            with torch.cuda.graph(g): f()
            n=max(3,int(20/ (layers*max(.05,M/4096))))
            for _ in range(2): g.replay()
            s,e=torch.cuda.Event(True),torch.cuda.Event(True); s.record()
            for _ in range(n): g.replay()
            e.record(); torch.cuda.synchronize()
            res.append(s.elapsed_time(e)/n/layers*1e3)
            del g
        fl=2*M*(hidden*qkv+hidden*hidden+3*hidden*inter)
        out[M]=res
        print(f"M {M:5} qkv {res[0]:7.1f} o {res[1]:7.1f} gu {res[2]:7.1f} down {res[3]:7.1f} layer {res[4]:7.1f} us  {fl/res[4]/1e6:6.0f} TFLOP/s  tokens/ms*layers", flush=True)
    return out
r={}
Ms=[1,8,16,32,48,64,96,128,160,192,224,256,288,320,352,384,448,512,576,640,768,896,1024,1152,1280,1536,2048,3072,4096]
print('8B'); r['8b']=bench(4096,14336,6144,8,Ms)
print('1B'); r['1b']=bench(2048,8192,3072,16,Ms)
json.dump({'gpu':torch.cuda.get_device_name(),'us':r},open(os.environ['OUT']+'/gemm.json','w'))
