"""A program that prompts, branches and chooses; what its steps share is computed once.

pip install penstock
"""

import os

import penstock.lang as sgl


@sgl.function
def capital(s, country):
    s += sgl.user(f"What is the capital of {country}?")
    forks = s.fork(2)  # both go on behind the same prefix
    for fork, temperature in zip(forks, (0, 0.7), strict=True):
        fork += sgl.assistant(sgl.gen("answer", max_tokens=20, temperature=temperature))
    s += sgl.assistant(sgl.select("city", ["Paris", "Rome", "Madrid"]))
    return [fork["answer"] for fork in forks]


sgl.set_default_backend(
    sgl.RuntimeEndpoint(os.environ.get("PENSTOCK_URL", "http://127.0.0.1:3000"))
)
for state in capital.run_batch([{"country": "France"}, {"country": "Italy"}]):
    print(f"{state.ret_value[0]} (likeliest: {state['city']})")
