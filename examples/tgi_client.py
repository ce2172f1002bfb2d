"""TGI's protocol through huggingface_hub: details, probabilities, a stream, a grammar.

pip install huggingface_hub
"""

import json
import os

from huggingface_hub import InferenceClient

client = InferenceClient(os.environ.get("PENSTOCK_URL", "http://127.0.0.1:3000"))

answer = client.text_generation(
    "What is the capital of France?",
    max_new_tokens=20,
    return_full_text=False,  # this client asks the route /, where TGI repeats the prompt
    details=True,
    top_n_tokens=2,
)
print(answer.generated_text.strip())
for token in answer.details.tokens[:3]:
    print(f"{token.text!r:12} {token.logprob:.3f}")

for piece in client.text_generation("The sky is", max_new_tokens=8, stream=True):
    print(piece, end="", flush=True)
print()

schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
}
text = client.text_generation(
    "What is the capital of France?",
    max_new_tokens=40,
    return_full_text=False,
    grammar={"type": "json", "value": schema},
)
print(json.loads(text)["city"])
