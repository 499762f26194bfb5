"""No bytes that Slipstream reads can hold code: no pickle and nothing that is one inside, no eval, no shell.

`docs/threat-model.md` promises it. What is stored is JSON, TOML, ONNX, safetensors, NumPy arrays
without objects, and layouts of our own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# fmt: off
PLACES = ("schemas", "edge", "stream", "encoder", "ranker", "slipstream", "bench", "examples", "deploy", "docs", "tools")
_CODE_INSIDE = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
#: torch.load unpickles, and so does what Lightning Fabric loads.
_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save", "fabric.load", "fabric.save",
    "yaml.load", "yaml.unsafe_load",
}
# fmt: on


def offences(source: str) -> Iterator[str]:
    """What is wrong in a module, with its line."""
    for node in ast.walk(ast.parse(source)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names if alias.name.split(".")[0] in _CODE_INSIDE]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [str(node.module)] if str(node.module).split(".")[0] in _CODE_INSIDE else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            found = [name] if name in _CALLS or words.get("shell", "False") != "False" else []
            if words.get("allow_pickle", "False") != "False":
                found.append("allow_pickle")
        yield from (f"{getattr(node, 'lineno', 0)}: {what}" for what in found)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_is_read_is_run(place: str) -> None:
    wrong = [f"{file}:{offence}" for file in (ROOT / place).rglob("*.py") for offence in offences(file.read_text())]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "np.load(file, allow_pickle=True)",
        "np.load(file, allow_pickle=trusted)",
        "torch.load(file, weights_only=True)",
        "yaml.load(text)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_it_would_be_found(line: str) -> None:
    assert list(offences(line))
