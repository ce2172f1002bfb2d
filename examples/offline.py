"""A batch of prompts without HTTP: the program starts what it needs, and it ends with it.

pip install 'penstock[all]'
"""

import sys

from penstock import LLM, SamplingParams

QUESTIONS = ["What is the capital of France?", "What is the capital of Italy?"]
ENDINGS = [" Paris.", " Rome."]


def main() -> None:
    # Without a name the built-in demo model; else a hub id or a folder.
    with LLM(*sys.argv[1:2], quiet=True) as llm:
        conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
        params = SamplingParams(temperature=0, max_tokens=32)
        outputs = llm.chat(conversations, params, use_tqdm=False)
        for question, output in zip(QUESTIONS, outputs, strict=True):
            print(f"{question} {output.outputs[0].text.strip()}")
        # how likely each ending is, and whether the model would have said it by itself
        prompts = ["The capital of France is"] * len(ENDINGS)
        scores = llm.loglikelihood(prompts, ENDINGS, use_tqdm=False)
        for ending, (logprob, greedy) in zip(ENDINGS, scores, strict=True):
            print(f"{ending!r}: {logprob:.2f}{', its own' if greedy else ''}")


if __name__ == "__main__":
    main()
