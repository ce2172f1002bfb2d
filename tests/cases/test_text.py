"""From text to tokens and back: one test a row."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock_router.api.options import Options
from penstock_router.api.output import Output
from penstock_router.text import TextModel, eos_token_ids
from penstock_router.text.library import TokenizerError
from penstock_router.text.marked import MarkedText
from penstock_router.text.token_table import token_table
from penstock_router.text.tokenizer import Tokenizer
from penstock_router.text.workers import Workers
from router.api import conftest as api
from support.assets import assets, needs_assets
from support.case_folders import FOLDERS, TEMPLATE
from support.fake_engine import FakeEngine, limits
from support.real_tokenizers import expected_tokens, tokenizer_folder

serve = api.serve
ROWS = 262  # of the model, as many as bytes and special tokens


@pytest.fixture
def place() -> str:
    return "beside"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("folders")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = FOLDERS[name](root / name)
        return made[name]

    return make


@pytest.fixture
async def text(request: pytest.FixtureRequest, folder: Callable[[str], Path]) -> AsyncIterator[Any]:
    """Of the folder that the test's row names."""
    model = TextModel.load(folder(request.param), None, 1)
    yield model
    model.close()


def over(name: str) -> Any:
    return pytest.mark.parametrize("text", [name], indirect=True, ids=[""])


def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.load(path, template_source=TEMPLATE)


def names(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    vocabulary = tokenizer.vocabulary()
    return [vocabulary[token] for token in ids]


# W1, C2: ids that the model has no rows for


PAD = "what is [PAD]?"
BEYOND = {
    "W1-generate": ("/generate", {"inputs": PAD}),
    "W1-root": ("/", {"inputs": PAD}),
    "W1-completions": ("/v1/completions", {"prompt": PAD}),
    "W1-completions-ids": ("/v1/completions", {"prompt": [7, 262]}),
    "W1-vertex": ("/vertex", {"instances": [{"inputs": PAD}]}),
    "W1-invocations": ("/invocations", {"inputs": PAD}),
    "W1-truncate": ("/generate", {"inputs": "x" * 99 + "[PAD]", "parameters": {"truncate": 5}}),
    "C2-stream": ("/generate_stream", {"inputs": "[PAD]"}),
}


@over("W1")
@pytest.mark.parametrize("row", BEYOND)
async def test_ids_beyond_the_model(serve: api.Serve, row: str) -> None:
    fake = FakeEngine(limits(vocab_size=ROWS))
    client = await serve(fake)
    path, body = BEYOND[row]
    async with client.session.post(client.url + path, json=body) as response:
        assert response.status == 422
        assert "262" in await response.text()
    assert not fake.jobs
    status, _ = await client.post("/generate", {"inputs": "what is PAD?"})
    assert status == 200


@over("W1")
async def test_W1_what_is_cut_off_does_not_count(serve: api.Serve) -> None:
    client = await serve(FakeEngine(limits(vocab_size=ROWS)))
    body = {"inputs": "[PAD]" + "x" * 99, "parameters": {"truncate": 5}}
    assert (await client.post("/generate", body))[0] == 200


@over("W1")
async def test_W1_chat_keeps_what_a_client_writes(serve: api.Serve) -> None:
    """`[PAD]` is no special token and the template does not name it."""
    client = await serve(FakeEngine(limits(vocab_size=ROWS)))
    body = {"messages": [{"role": "user", "content": PAD}], "max_tokens": 2}
    status, answer = await client.post("/v1/chat/completions", body)
    assert status in (200, 422), answer
    assert (await client.post("/generate", {"inputs": "x"}))[0] == 200


@over("post-processor")
async def test_W1_post_processor(serve: api.Serve) -> None:
    client = await serve(FakeEngine(limits(vocab_size=ROWS)))
    assert (await client.post("/generate", {"inputs": "x"}))[0] == 422
    assert (await client.post("/generate", {"inputs": "x", "add_special_tokens": False}))[0] == 200


def test_C2_start_says_so(
    folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    model = TextModel.load(folder("W1"), None, 1)
    model.warn_about_rows(263)
    assert not caplog.records
    model.warn_about_rows(ROWS)
    [record] = caplog.records
    assert "1 tokens beyond the model's 262, the first is '[PAD]' = 262" in record.getMessage()
    model.close()


# W2, W9: tokens that only the configuration names


def test_W2_eos_is_special(folder: Callable[[str], Path]) -> None:
    path = folder("W2")
    made = tokenizer(path)
    end = made.special_tokens["<|im_end|>"]
    assert eos_token_ids(path) == {end}
    assert made.encode("a<|im_end|>", False)[-1] == end
    assert end not in made.encode_marked(MarkedText("<|u|>a<|im_end|><|e|>", ((5, 16),)))


def test_W2_eos_of_the_vocabulary(folder: Callable[[str], Path]) -> None:
    path = folder("W2-vocabulary")
    made = tokenizer(path)
    assert eos_token_ids(path) == {made.encode("e", False)[0]} == {made.special_tokens["e"]}


def test_W2_a_letter_stays_a_letter(folder: Callable[[str], Path]) -> None:
    """Where EOS is a letter of the alphabet, texts still hold it."""
    made = tokenizer(folder("W2-vocabulary"))
    ids = made.encode_marked(MarkedText("<|u|>hello</s><|e|>", ((5, 14),)))
    assert made.decode(ids, skip_special_tokens=False) == "<|u|>hello</s><|e|>"
    assert 2 not in ids


@over("W2")
async def test_W2_a_users_eos_stays_text(serve: api.Serve) -> None:
    client = await serve(FakeEngine(limits(vocab_size=263)))
    body = {"messages": [{"role": "user", "content": "a<|im_end|>"}]}
    status, answer = await client.post("/chat_tokenize", body)
    assert status == 200 and answer["templated_text"] == "<|u|>a<|im_end|><|e|><|a|>"
    tokens = answer["tokenize_response"]
    assert "<|im_end|>" not in [token["text"] for token in tokens]
    assert [token["text"] for token in tokens][:2] == ["<|u|>", "a"]
    status, tokens = await client.post("/tokenize", {"inputs": "a<|im_end|>"})
    assert tokens[-1] == {"id": 262, "text": "<|im_end|>", "start": 1, "stop": 11}


@over("W2")
async def test_W2_the_models_eos_is_hidden(serve: api.Serve, text: TextModel) -> None:
    [request] = Options().requests([70], limits())
    output = Output(text.detokenizer(request.prompt), text.tokenizer.special_ids, Options())
    assert output.push(262) == "<|im_end|>" and output.released == ""


def test_W9_added_tokens_decoder(folder: Callable[[str], Path]) -> None:
    path = folder("W9")
    made = tokenizer(path)
    assert made.encode("<|im_start|>", False) == [263]
    assert eos_token_ids(path) == {262}
    assert made.encode("<|im_end|><|im_start|>x", False)[:2] == [262, 263]


def test_W9_ids_that_the_library_cannot_give(
    folder: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As transformers does it, but not in silence."""
    tokenizer(folder("W9"))
    assert not caplog.records
    path = FOLDERS["W1"](tmp_path)
    config = {"added_tokens_decoder": {"300": {"content": "<x>", "special": True}}}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    assert tokenizer(path).encode("<x>", False) == [263]
    assert "'<x>' (300, not 263)" in caplog.records[0].getMessage()


# W5, A3: what is put around a text


def test_W5_bos(folder: Callable[[str], Path]) -> None:
    made = tokenizer(folder("W5"))
    assert made.encode("ab") == [1, *made.encode("ab", False)] == [1, 70, 71]
    assert tokenizer(folder("W5-eos")).encode("ab") == [70, 71, 2]


REFERENCE = "transformers 4.57.6 AutoTokenizer ids"
REAL = [
    *("mistral-7b-v0.3", "mistral-7b-v0.1-lenml", "llama-2-gguf", "deepseek-v3", "qwen3"),
    *("llama-3.1", "openllama-zh", "pythia-410m", "mistral-tekken-240911"),
]


@needs_assets
@pytest.mark.parametrize("name", REAL)
def test_A3_W5_real_tokenizers(name: str, tmp_path: Path) -> None:
    """86 strings: the ids that TGI served, and the places that the library gives."""
    expected = expected_tokens()
    tokens = expected["tokens"][name]
    path = tokenizer_folder(name, tmp_path)
    made = Tokenizer.load(path)
    table = token_table(made)
    for index, string in enumerate(expected["strings"]):
        places = tokens["tokenizer.json"][index]
        ids = tokens[REFERENCE][index] if REFERENCE in tokens else [place[0] for place in places]
        assert made.encode(string) == ids, string
        inside = [[s.id, s.start, s.stop] for s in made.spans(string) if s.stop > s.start]
        assert inside == [place for place in places if place[2] > place[1]], string
        # W16: what comes token by token is what the library decodes.
        plain = [token for token in ids if token not in made.special_ids]
        step = table.detokenizer([])
        shown = "".join(map(step.step, plain)) + step.flush()
        assert shown == made.decode(plain), string


# W6, W14: a token's text and bytes


PIECES = {
    "W6-space": ("W6", "▁a", " a", [32, 97]),
    "W6-byte": ("W6", "<0xE4>", "\ufffd", [0xE4]),
    "W6-letter-byte": ("W6", "<0x41>", "A", [0x41]),
    "W6-special": ("W6", "<|u|>", "<|u|>", list(b"<|u|>")),
    "W6-metaspace": ("W7", "▁the", " the", list(b" the")),
    "W14-part": ("W5", "ð", "\ufffd", [240]),
    "W14-space": ("W5", "Ġ", " ", [32]),
    "W14-special": ("W5", "</s>", "</s>", list(b"</s>")),
}


@pytest.mark.parametrize("row", PIECES)
def test_text_and_bytes_of_tokens(folder: Callable[[str], Path], row: str) -> None:
    name, spelling, shown, raw = PIECES[row]
    model = TextModel.load(folder(name), None, 1)
    [token] = [i for i, s in model.tokenizer.vocabulary().items() if s == spelling]
    assert model.token_text(token) == shown
    assert list(model.token_bytes(token) or b"") == raw
    assert (model.token_text(10**6), model.token_bytes(10**6)) == ("", None)
    model.close()


# W7, A4: the plain tokenizer's ids wherever a client spells no control token


def first_token(made: Tokenizer, message: str) -> int:
    text = f"the {message}<|e|>"
    return made.encode_marked(MarkedText(text, ((4, 4 + len(message)),)))[0]


def test_W7_first_space(folder: Callable[[str], Path]) -> None:
    made = tokenizer(folder("W7"))
    ids = {first_token(made, message) for message in ("cat", "cat <", "cat <|e|>", "<s>")}
    assert names(made, list(ids)) == ["▁the"]


@needs_assets
@pytest.mark.parametrize("name", ["mistral-7b-v0.3", "openllama-zh"])
def test_A4_template_tokens_do_not_depend_on_the_message(name: str, tmp_path: Path) -> None:
    made = Tokenizer.load(tokenizer_folder(name, tmp_path), template_source="User: </s>")

    def begins(message: str) -> list[int]:
        text = f"</s>User: {message}</s>"
        marked = MarkedText(text, ((10, 10 + len(message)),))
        spans = made.spans_marked(marked)
        assert "<" in message or [s.id for s in spans] == made.encode(text, False)
        return [span.id for span in spans if span.stop <= 9]

    assert begins("a") == begins("a <") == begins("a </s>") == begins("<s>")


@needs_assets
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deepseek-v3", ["<｜Assistant｜>", "<｜User｜>"]),
        ("qwen3", ["<think>", "</think>", "<tool_call>", "<|im_end|>"]),
    ],
)
def test_A2_words_of_the_template(name: str, words: list[str]) -> None:
    """Tokens that the template names are control tokens, `special` or not."""
    made = Tokenizer.load(assets() / "trimmed" / name, template_source=" ".join(words))
    for word in words:
        token = made.encode(word, False)
        assert len(token) == 1
        marked = MarkedText(f"{word}{word}", ((len(word), 2 * len(word)),))
        ids = made.encode_marked(marked)
        assert ids[0] == token[0] and token[0] not in ids[1:]
        assert made.decode(ids[1:], skip_special_tokens=False) == word


# W16: decoders


@pytest.mark.parametrize("string", ["世界你好", "😀😀😀", "the cat 世", " a"])
@pytest.mark.parametrize("behind", ["", "a", "世界你好"])
def test_W16_bytes_before_the_space(
    folder: Callable[[str], Path], string: str, behind: str
) -> None:
    made = tokenizer(folder("W16"))
    prompt, ids = made.encode(behind, False) if behind else [], made.encode(string, False)
    detokenizer = token_table(made).detokenizer(prompt)
    shown = "".join(map(detokenizer.step, ids)) + detokenizer.flush()
    assert made.decode(prompt) + shown == made.decode(prompt + ids)


# A6: files of other libraries


@needs_assets
@pytest.mark.parametrize(
    ("file", "name", "config"),
    [
        ("tokenizer.model.v1", "mistral-7b-v0.1-lenml", {}),
        ("mistral_instruct_tokenizer_240323.model.v3", "mistral-7b-v0.3", {"legacy": False}),
    ],
)
def test_A6_sentencepiece(file: str, name: str, config: dict[str, Any], tmp_path: Path) -> None:
    """BOS and the first space as the converted tokenizers of the same models have them."""
    (tmp_path / "tokenizer.model").write_bytes((assets() / "sentencepiece" / file).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    made = Tokenizer.load(tmp_path)
    expected = expected_tokens()
    for string, places in zip(
        expected["strings"], expected["tokens"][name]["tokenizer.json"], strict=True
    ):
        assert made.encode(string) == [place[0] for place in places], string
    assert eos_token_ids(tmp_path) == {2}


def test_A6_tekken(tmp_path: Path) -> None:
    tokens = [bytes((byte,)) for byte in range(256)] + [b"th", b"the", b" the"]
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode()}
        for rank, token in enumerate(tokens)
    ]
    config = {"pattern": " ?\\w+|\\s+", "default_vocab_size": 289, "default_num_special_tokens": 30}
    (tmp_path / "tekken.json").write_text(json.dumps({"config": config, "vocab": vocabulary}))
    made = Tokenizer.load(tmp_path)
    assert made.encode("the the[INST]") == [1, 30 + 257, 30 + 258, 3]
    assert made.decode(made.encode("é the")) == "é the"
    assert eos_token_ids(tmp_path) == {2}


def test_A6_no_code_of_a_folder_runs(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"garbage")
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    config = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no SentencePiece model.*save_pretrained"):
        Tokenizer.load(tmp_path)


# A10: a prompt that comes to nothing


@over("A10")
async def test_A10_no_tokens(serve: api.Serve) -> None:
    client = await serve()
    status, answer = await client.post("/generate", {"inputs": "   "})
    assert status == 422 and "must come to at least one token" in answer["error"]


# H1, M2b: what a long text costs


LONG = {"H1-digits": "7" * 1_990_000, "H1b-brackets": "[" * 1_900_000}


@over("W5")
@pytest.mark.parametrize(
    "path", ["/generate", "/tokenize", "/chat_tokenize", "/v1/chat/completions"]
)
@pytest.mark.parametrize("row", LONG)
async def test_refused_before_it_is_tokenised(
    serve: api.Serve, row: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No tokenisation of it could fit."""
    client = await serve(payload_limit=2_000_000)
    monkeypatch.setattr("penstock_router.text.library.encode", None)
    body: dict[str, Any] = {"inputs": LONG[row]}
    if "chat" in path:
        body = {"messages": [{"role": "user", "content": LONG[row]}]}
    status, answer = await client.post(path, body)
    assert status == 422
    answer = json.dumps(answer)
    assert "must have less than 64 tokens. Given: at least " in answer


@needs_assets
@pytest.mark.parametrize("row", LONG)
def test_others_have_their_turn(row: str, tmp_path: Path) -> None:
    """While a long text is encoded, another thread hardly waits: the lock is released."""
    folder = tokenizer_folder("mistral-7b-v0.3", tmp_path)  # with 771 control tokens
    made = Tokenizer.load(folder, template_source="[INST]")
    string = LONG[row][:400_000]
    marked = MarkedText(string, ((0, len(string)),))
    for work in (lambda: made.encode(string), lambda: made.encode_marked(marked)):
        longest, total = waited(work)
        assert longest < total / 3


def waited(work: Callable[[], object]) -> tuple[float, float]:
    """The longest time that another thread did not run, and the whole time."""
    ended = threading.Event()
    gaps = []

    def tick() -> None:
        last = time.perf_counter()
        while not ended.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticking = threading.Thread(target=tick)
    ticking.start()
    start = time.perf_counter()
    work()
    total = time.perf_counter() - start
    ended.set()
    ticking.join()
    return max(gaps), total


@needs_assets
def test_H1c_nothing_is_built_for_a_message(tmp_path: Path, monkeypatch: Any) -> None:
    made = Tokenizer.load(assets() / "trimmed" / "qwen3", template_source="<|im_end|>")
    monkeypatch.setattr("tokenizers.Tokenizer.from_buffer", None)
    assert made.encode_marked(MarkedText("a<|im_end|>", ((0, 11),)))


MEMORY = """
import asyncio, resource, sys
from pathlib import Path
import psutil
from penstock_router.text import TextModel

async def main():
    model = TextModel.load(Path(sys.argv[1]), None, 2)
    resident = psutil.Process().memory_info
    await model.encode("x" * 200_000)
    before = resident().rss
    text = "7" * 600_000
    await asyncio.gather(model.encode(text), model.spans_json(text[:300_000]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(resident().rss - before, peak - before)
    model.close()

asyncio.run(main())
"""


@needs_assets
def test_M2b_memory_comes_back(tmp_path: Path) -> None:
    """In a process of its own, whose peak is that of the long text."""
    folder = tokenizer_folder("mistral-7b-v0.3", tmp_path)
    told = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder)], check=True, capture_output=True, text=True
    )
    kept, peak = map(int, told.stdout.split())
    assert peak > 100 << 20
    assert kept < peak / 3


# L2: a tokenizer that fails


@over("L2")
@pytest.mark.parametrize("path", ["/generate", "/tokenize"])
async def test_L2_panic(serve: api.Serve, path: str) -> None:
    client = await serve()
    status, answer = await client.post(path, {"inputs": "a" * 40 + "b"})
    assert status == 422 and "the tokenizer failed" in answer["error"]
    assert (await client.post("/generate", {"inputs": "x"}))[0] == 200


async def test_L2_a_text_that_never_ends() -> None:
    """Its request gets an error, and its thread a successor."""
    workers = Workers(1, seconds=0.2)
    release = threading.Event()
    with pytest.raises(TokenizerError, match="more than 0.2 seconds"):
        await workers.run(release.wait)
    assert await workers.run(lambda: 7) == 7
    release.set()
    workers.close()


# M7: what a tokenizer may hold


def hostile(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = path / "tokenizer.json"
    tree = json.loads(file.read_text())
    change(tree)
    file.write_text(json.dumps(tree))


HOSTILE = {
    "M7-id": (lambda tree: tree["model"]["vocab"].update(zz=2**31), "'zz' has the id 2147483648"),
    "M7-negative": (lambda tree: tree["model"]["vocab"].update(zz=-1), "'zz' has the id -1"),
    "M7-fraction": (lambda tree: tree["model"]["vocab"].update(zz=1.5), "'zz' has the id 1.5"),
    "M7-large": (lambda tree: tree["model"]["vocab"].update(zz=2**20), "integers below 1048576"),
    "M7-text": (lambda tree: tree["model"]["vocab"].update(zz="1"), "'zz' has the id 1,"),
    "M7-list": (lambda tree: tree["model"].update(vocab=[1, 2]), "int"),
    "M7-none": (lambda tree: tree["model"].update(vocab={}), "no vocabulary"),
    "M7-added": (lambda tree: tree.update(added_tokens=[{"id": 1}]), "an added token has no text"),
    "M7-decoder": (lambda tree: tree.update(decoder={"type": "Nothing"}), "the tokenizer failed"),
}


@pytest.mark.parametrize("row", HOSTILE)
def test_M7_tokenizers(tmp_path: Path, row: str) -> None:
    path = FOLDERS["W1"](tmp_path)
    change, sentence = HOSTILE[row]
    hostile(path, change)
    with pytest.raises(ValueError, match=f"tokenizer.json is not a tokenizer.*{sentence}"):
        TextModel.load(path, None, 1)


@pytest.mark.parametrize(
    "config",
    [
        {"added_tokens_decoder": {"x": {"content": "a"}}},
        {"added_tokens_decoder": [1]},
        {"added_tokens_decoder": 7},
        {"additional_special_tokens": 7},
        {"extra_special_tokens": {"a": {"content": 1}}},
        {"bos_token": {"content": ["x"]}},
    ],
)
def test_M7_configurations(tmp_path: Path, config: dict[str, Any]) -> None:
    """Values of another kind are refused in a sentence, or are as if they were not there."""
    path = FOLDERS["W1"](tmp_path)
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    try:
        made = Tokenizer.load(path)
    except ValueError as error:
        assert "tokenizer.json is not a tokenizer that can be read" in str(error)
    else:
        assert made.encode("ab", False) == [70, 71]


def test_an_override_adds_to_the_folders_configuration(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """One that brings a template alone changes no token."""
    (tmp_path / "other.json").write_text(json.dumps({"chat_template": "x"}))
    assert Tokenizer.load(folder("W5"), tmp_path / "other.json").encode("ab") == [1, 70, 71]
    (tmp_path / "other.json").write_text(json.dumps({"add_bos_token": False}))
    assert Tokenizer.load(folder("W5"), tmp_path / "other.json").encode("ab") == [70, 71]


def test_M7_four_million_entries(tmp_path: Path) -> None:
    """Refused by their number, before they are read into objects."""
    entries = ",".join(f'"t{i}":{i}' for i in range(4_000_000))
    (tmp_path / "tokenizer.json").write_text(f'{{"model":{{"vocab":{{{entries}}}}}}}')
    peak = psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match="it has some 4000002 strings"):
        Tokenizer.load(tmp_path)
    assert psutil.Process().memory_info().rss - peak < 300 << 20
