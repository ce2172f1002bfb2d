"""Many requests at a time, with a bound, a deadline, and another try where the server is full.

pip install openai
"""

import asyncio
import os

from openai import AsyncOpenAI

URL = os.environ.get("PENSTOCK_URL", "http://127.0.0.1:3000")
COUNTRIES = ("France", "Italy", "Spain", "Germany", "Poland", "Greece", "Norway", "Portugal")
AT_A_TIME = 4


async def main() -> None:
    # The client tries 429 and 503 again, as Retry-After says.
    client = AsyncOpenAI(
        base_url=f"{URL}/v1",
        api_key=os.environ.get("PENSTOCK_API_KEY", "-"),
        max_retries=5,
        timeout=120,
    )
    model = (await client.models.list()).data[0].id
    room = asyncio.Semaphore(AT_A_TIME)

    async def ask(country: str) -> str:
        async with room:
            answer = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": f"What is the capital of {country}?"}],
                temperature=0,
                max_tokens=30,
            )
        return answer.choices[0].message.content or ""

    for country, answer in zip(COUNTRIES, await asyncio.gather(*map(ask, COUNTRIES)), strict=True):
        print(f"{country}: {answer}")


asyncio.run(main())
