"""The repository's shape: where packages lie, who may import whom, and what nobody may use."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# docs/design.md, "Layout": component -> the components of ours that it may import
MAY_IMPORT = {
    "proto": set(),
    "launcher": {"proto"},
    "router": {"proto"},
    "shard": {"proto", "kernels", "quantization"},
    "kernels": set(),
    "quantization": {"kernels"},
    "client": {"proto"},
    "benchmarks": None,  # not a package: measures whatever it likes
}
COMPONENTS = [name for name in MAY_IMPORT if (ROOT / name).is_dir()]
PACKAGE = re.compile(r"penstock_(\w+)")
BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "marshal", "cloudpickle", "shelve"}
BANNED_CALLS = {"eval", "exec"}
# each takes a pickle apart, or puts one on the wire
BANNED_ATTRIBUTES = re.compile(
    r"torch\.load|torch\.package|torch\.hub|.*\.(recv|send)_pyobj|(torch\.distributed|dist)\.\w*object\w*"
    r"|numpy\.load|np\.load|joblib\.load"
)
# what opens connections; the router's own are Unix sockets, and the shards'
CLIENTS = re.compile(
    r"http\.client|urllib\.request|aiohttp\.(client|ClientSession|TCPConnector|request)"
    r"|.*\b(open_connection|create_connection|urlopen|ClientSession)"
)
CLIENT_MODULES = {"requests", "httpx", "ftplib", "urllib3"}


def sources(component: str) -> list[Path]:
    files = sorted((ROOT / component).rglob("*.py"))
    assert files, f"{component} holds no Python files"
    return files


def problems(code: str) -> list[str]:
    """What in this code is banned everywhere, as text."""
    found = []
    for node in ast.walk(ast.parse(code)):
        for module in imported_by(node):
            if module.split(".")[0] in BANNED_MODULES:
                found.append(f"line {node.lineno}: imports {module}")
            if BANNED_ATTRIBUTES.fullmatch(module):
                found.append(f"line {node.lineno}: imports {module}")
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in BANNED_CALLS:
            found.append(f"line {node.lineno}: calls {ast.unparse(node.func)}")
        if isinstance(node, ast.Attribute) and BANNED_ATTRIBUTES.fullmatch(ast.unparse(node)):
            found.append(f"line {node.lineno}: uses {ast.unparse(node)}")
        if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            found.append(f"line {node.lineno}: names trust_remote_code")
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            found.append(f"line {node.value.lineno}: passes trust_remote_code")
    return found


def fetches(code: str) -> list[str]:
    """What in this code could fetch what a client names, as text."""
    found = []
    for node in ast.walk(ast.parse(code)):
        names = [name for name in imported_by(node) if name.split(".")[0] in CLIENT_MODULES]
        used = [ast.unparse(node)] if isinstance(node, ast.Attribute) else imported_by(node)
        names += [name for name in used if CLIENTS.match(name)]
        found += [f"line {node.lineno}: {name}" for name in names]
    return found


def imported_by(node: ast.AST) -> list[str]:
    """Modules and module members that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports of ours are absolute"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@pytest.mark.parametrize("component", COMPONENTS)
def test_component_folder_is_no_package(component):
    """`kernels` and `proto` are also names of other people's packages, which ours must not hide."""
    assert not (ROOT / component / "__init__.py").exists()


@pytest.mark.parametrize("component", [c for c in COMPONENTS if MAY_IMPORT[c] is not None])
def test_imports_go_one_way(component):
    allowed = MAY_IMPORT[component] | {component}
    for path in sources(component):
        for node in ast.walk(ast.parse(path.read_text())):
            for module in imported_by(node):
                if match := PACKAGE.match(module):
                    assert match[1] in allowed, f"{path}: {component} must not import {module}"


@pytest.mark.parametrize("component", COMPONENTS)
def test_nothing_is_unpickled_or_evaluated(component):
    for path in sources(component):
        assert problems(path.read_text()) == [], path


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import dill.source",
        "from torch import load",
        "torch.load(path)",
        "eval(text)",
        "exec(text)",
        "torch.distributed.broadcast_object_list(x)",
        "dist.all_gather_object(x, y)",
        "from torch.distributed import send_object_list",
        "socket.recv_pyobj()",
        "np.load(path, allow_pickle=True)",
        "f(trust_remote_code=True)",
    ],
)
def test_the_ban_sees(code):
    assert problems(code)


def test_the_router_fetches_nothing():
    """S14: there is no code that could."""
    for path in sources("router"):
        assert fetches(path.read_text()) == [], path


@pytest.mark.parametrize(
    "code",
    [
        "import urllib.request",
        "from urllib.request import urlopen",
        "import requests",
        "aiohttp.ClientSession()",
        "from aiohttp import web, ClientSession",
        "await asyncio.open_connection(host, 80)",
        "loop.create_connection(make, host)",
        "import http.client as c",
    ],
)
def test_what_fetches(code):
    assert fetches(code) and not fetches("from urllib.parse import urlsplit")


@pytest.mark.parametrize("code", ["model.eval()", "tensor.load", "re.compile(x)", "import json"])
def test_the_ban_lets_pass(code):
    assert not problems(code)


@pytest.mark.parametrize("package", ["penstock_launcher", "penstock_router", "penstock"])
def test_needs_no_torch(package):
    """Every module of the package is imported in a fresh process, and torch is not there then."""
    code = (
        "import importlib, pkgutil, sys\n"
        f"import {package}\n"
        f"for m in pkgutil.walk_packages({package}.__path__, '{package}.'):\n"
        "    if not m.name.endswith('__main__'):\n"
        "        importlib.import_module(m.name)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr or "torch was imported"


def test_stubs_are_what_the_proto_says(tmp_path):
    """`make proto` would change nothing."""
    wire = ROOT / "proto" / "penstock_proto"
    plain = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "proto", *plain]
    subprocess.run([*command, f"--grpc_python_out={tmp_path}", wire / "shard.proto"], check=True)
    others = [wire / f"{name}.proto" for name in ("request", "front", "offline")]
    subprocess.run([*command, *others], check=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "penstock_proto").iterdir()}
    committed = {path.name: path.read_text() for path in wire.glob("*_pb2*.py*")}
    assert len(fresh) == 9
    assert fresh == committed, "run `make proto`"
